#include "clients/fgchat/conversation.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/strings.h"

namespace fastgen {
namespace {

void AddMessage(fastgen::v1::Chat* chat, const char* role, std::string_view content) {
  fastgen::v1::ChatMessage* message = chat->add_messages();
  message->set_role(role);
  message->set_content(content.data(), content.size());
}

}  // namespace

ChatInput ParseChatInput(std::string_view line, int num_rounds) {
  using Kind = ChatInput::Kind;
  const absl::string_view trimmed = absl::StripAsciiWhitespace(ToAbsl(line));
  if (trimmed.empty()) return {Kind::kEmpty, "", 0};
  if (trimmed[0] != '/') return {Kind::kMessage, std::string(line), 0};
  const std::vector<std::string> words = absl::StrSplit(trimmed, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (words[0] == "/q" && words.size() == 1) return {Kind::kQuit, "", 0};
  if (words[0] == "/m" && words.size() == 1) return {Kind::kMultiLine, "", 0};
  if (words[0] == "/h" && words.size() == 1) return {Kind::kHelp, "", 0};
  if (words[0] == "/r") {
    int round = 1;
    if (words.size() <= 2 && (words.size() == 1 || absl::SimpleAtoi(words[1], &round)) && round >= 1 &&
        round <= num_rounds) {
      return {Kind::kReset, "", round};
    }
    return {Kind::kMistake, absl::StrCat("/r N goes back to before round N; N is 1 to ", num_rounds), 0};
  }
  return {Kind::kMistake, absl::StrCat(words[0], " is not a command: /r N, /m, /h or /q (a message that starts with ",
                                       "a slash goes through /m)"), 0};
}

void Conversation::ResetTo(int round) {
  CHECK(round >= 1 && round <= this->round());
  rounds_.resize(static_cast<size_t>(round) - 1);
}

fastgen::v1::Chat Conversation::With(std::string_view message) const {
  fastgen::v1::Chat chat;
  if (!system_.empty()) AddMessage(&chat, "system", system_);
  for (const Round& round : rounds_) {
    AddMessage(&chat, "user", round.message);
    AddMessage(&chat, "assistant", round.answer);
  }
  AddMessage(&chat, "user", message);
  return chat;
}

void Conversation::Add(std::string message, std::string answer) {
  rounds_.push_back({std::move(message), std::move(answer)});
}

}  // namespace fastgen
