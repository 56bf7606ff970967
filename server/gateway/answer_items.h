// AnswerItems: the parts of one answer in the order in which the model wrote them: reasoning, text
// and tool calls, each once as long as nothing else comes between.
//
// Responses and Messages answer with a list of such parts, where chat has one message with a member
// for each kind. A listener hears of each part when it begins, of its pieces and of its end;
// without one the parts add up. Both see the same parts, so a stream and its whole twin agree.
//
// Within one delta the order is: what goes on with the open call, reasoning, text, then calls that
// begin. Logprobs belong to text: those of tokens that show nothing wait for the next text, or go
// with the end of the text that is open; those of reasoning and calls are left out.
// Thread rule: one thread at a time.
// Tested by tests/server/gateway/answer_items_test.cc.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "fastgen/v1/inference.pb.h"

namespace fastgen::gateway {

struct AnswerItem {
  enum class Kind { kReasoning, kText, kToolCall };

  Kind kind = Kind::kText;
  size_t index = 0;  // in the answer
  int call_index = 0;
  std::string call_id;
  std::string call_name;
  std::string text;      // reasoning, text or arguments
  std::string logprobs;  // of a text: the items of a JSON list
};

class AnswerItems {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void OnOpen(const AnswerItem& item) = 0;
    // `item` holds the piece already. `logprobs`: the items of a JSON list.
    virtual void OnPiece(const AnswerItem& item, std::string_view piece,
                         std::string_view logprobs) = 0;
    virtual void OnClose(const AnswerItem& item) = 0;
  };

  enum class Calls { kAll, kFirst };

  explicit AnswerItems(Calls calls) : calls_(calls) {}

  // `listener` may be nullptr.
  void Add(const v1::Delta& delta, Listener* listener);
  // The end of the answer: closes what is open.
  void Finish(Listener* listener);

  const std::vector<AnswerItem>& items() const { return items_; }

 private:
  bool IsOpen(AnswerItem::Kind kind) const { return open_ && items_.back().kind == kind; }
  void Open(AnswerItem::Kind kind, const v1::ToolCallDelta* call, Listener* listener);
  void Append(std::string_view piece, Listener* listener);
  void Close(Listener* listener);
  void AddText(AnswerItem::Kind kind, std::string_view text, Listener* listener);
  void AddCall(const v1::ToolCallDelta& call, Listener* listener);

  const Calls calls_;
  std::vector<AnswerItem> items_;
  bool open_ = false;  // the last one
  std::string waiting_logprobs_;
};

}  // namespace fastgen::gateway
