// Conversation: what has been said so far, in rounds of a user's message and its answer, and the commands that the
// user may type instead of a message.
// Thread rule: one thread.
// Tested by tests/clients/conversation_test.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fastgen/v1/inference.pb.h"

namespace fastgen {

// One line as typed at the prompt.
struct ChatInput {
  enum class Kind { kMessage, kEmpty, kReset, kMultiLine, kHelp, kQuit, kMistake };
  Kind kind = Kind::kEmpty;
  std::string text;  // kMessage: the message; kMistake: what to type instead
  int round = 0;     // kReset: the round to go back to
};

// `num_rounds` is the number of the round about to be typed: /r accepts 1 to that.
ChatInput ParseChatInput(std::string_view line, int num_rounds);

class Conversation {
 public:
  explicit Conversation(std::string system_message) : system_(std::move(system_message)) {}

  // The number shown in the prompt, from 1.
  int round() const { return static_cast<int>(rounds_.size()) + 1; }
  // Forgets round `round` and all after it. REQUIRES: 1 <= round <= round().
  void ResetTo(int round);
  // The whole conversation with `message` as its next question.
  fastgen::v1::Chat With(std::string_view message) const;
  void Add(std::string message, std::string answer);

 private:
  struct Round {
    std::string message;
    std::string answer;
  };
  const std::string system_;
  std::vector<Round> rounds_;
};

}  // namespace fastgen
