#include "server/gateway/answer_items.h"

#include <utility>

#include "server/gateway/openai_chat.h"

namespace fastgen::gateway {

using Kind = AnswerItem::Kind;

void AnswerItems::Add(const v1::Delta& delta, Listener* listener) {
  int num_calls_read = 0;
  // What goes on with the open call was written before anything else in this delta.
  while (IsOpen(Kind::kToolCall) && num_calls_read < delta.tool_calls_size() &&
         delta.tool_calls(num_calls_read).name().empty()) {
    AddCall(delta.tool_calls(num_calls_read++), listener);
  }
  if (!delta.reasoning().empty()) AddText(Kind::kReasoning, delta.reasoning(), listener);
  const bool shows_other = !delta.reasoning().empty() || delta.tool_calls_size() > 0;
  if (delta.logprobs_size() > 0 && (!delta.text().empty() || !shows_other)) {
    AppendChatLogprobs(AnswerOptions(), delta.logprobs(), &waiting_logprobs_);
  }
  if (!delta.text().empty()) AddText(Kind::kText, delta.text(), listener);
  for (; num_calls_read < delta.tool_calls_size(); ++num_calls_read) {
    AddCall(delta.tool_calls(num_calls_read), listener);
  }
}

void AnswerItems::Finish(Listener* listener) {
  if (IsOpen(Kind::kText) && !waiting_logprobs_.empty()) Append("", listener);
  if (open_) Close(listener);
}

void AnswerItems::AddText(Kind kind, std::string_view text, Listener* listener) {
  if (!IsOpen(kind)) Open(kind, nullptr, listener);
  Append(text, listener);
}

void AnswerItems::AddCall(const v1::ToolCallDelta& call, Listener* listener) {
  if (calls_ == Calls::kFirst && call.index() > 0) return;
  if (!call.name().empty()) {
    Open(Kind::kToolCall, &call, listener);
  } else if (!IsOpen(Kind::kToolCall) || items_.back().call_index != call.index()) {
    return;  // of a call that never began, or has ended
  }
  if (!call.arguments().empty()) Append(call.arguments(), listener);
}

void AnswerItems::Open(Kind kind, const v1::ToolCallDelta* call, Listener* listener) {
  if (open_) Close(listener);
  AnswerItem& item = items_.emplace_back();
  item.kind = kind;
  item.index = items_.size() - 1;
  if (call != nullptr) {
    item.call_index = call->index();
    item.call_id = call->id();
    item.call_name = call->name();
  }
  open_ = true;
  if (listener != nullptr) listener->OnOpen(item);
}

void AnswerItems::Append(std::string_view piece, Listener* listener) {
  AnswerItem& item = items_.back();
  item.text += piece;
  const std::string logprobs = std::exchange(waiting_logprobs_, {});
  const bool shows_logprobs = item.kind == Kind::kText && !logprobs.empty();
  if (shows_logprobs) {
    if (!item.logprobs.empty()) item.logprobs += ',';
    item.logprobs += logprobs;
  }
  if (listener != nullptr) {
    listener->OnPiece(item, piece,
                      shows_logprobs ? std::string_view(logprobs) : std::string_view());
  }
}

void AnswerItems::Close(Listener* listener) {
  open_ = false;
  if (listener != nullptr) listener->OnClose(items_.back());
}

}  // namespace fastgen::gateway
