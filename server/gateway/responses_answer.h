// ResponsesFormat: an answer as OpenAI's Responses API has it, whole or as named events.
//
//   response.created response.in_progress
//   {response.output_item.added ... response.output_item.done}*
//   response.completed | response.incomplete | error response.failed
// Within an item: content_part.added, deltas, the whole text (..done) and content_part.done for
// reasoning and messages; function_call_arguments.delta and .done for calls. Each event has the
// next sequence_number, from 0. Items are reasoning (its text as content; nobody summarises it),
// message and function_call, in the model's own order; their ids are the response's with their
// index. The item that the end cut short is "incomplete". A request that was cancelled by its id
// has the status "cancelled", and its stream ends with response.incomplete, as there is no event of
// that name.
// Thread rule: the connection's strand.
// Tested by tests/server/gateway/responses_answer_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/gateway/answer_format.h"
#include "server/gateway/answer_items.h"

namespace fastgen::gateway {

class ResponsesFormat final : public AnswerFormat, private AnswerItems::Listener {
 public:
  explicit ResponsesFormat(const AnswerOptions& options);

  void AppendOpening(const ChoiceState& choice, const PromptState& prompt,
                     std::string* out) override;
  void AppendDelta(const v1::Delta& delta, ChoiceState* choice, const PromptState& prompt,
                   std::string* out) override;
  void AppendFinish(const ChoiceState& choice, const PromptState& prompt,
                    std::string* out) override;
  void AppendUsage(const AnswerUsage& usage, std::string* out) override {}
  void AppendEnd(std::string* out) override {}
  void AppendError(const ApiError& error, std::string* out) override;
  void Keep(const v1::Delta& delta, ChoiceState* choice) override;
  std::string Whole(const std::vector<ChoiceState>& choices,
                    const std::vector<PromptState>& prompts, const AnswerUsage& usage) override;

 private:
  void OnOpen(const AnswerItem& item) override;
  void OnPiece(const AnswerItem& item, std::string_view piece, std::string_view logprobs) override;
  void OnClose(const AnswerItem& item) override;

  // `event: <name>` and the data up to its own members.
  void OpenEvent(std::string_view name);
  // The same, and where in the output the event belongs.
  void OpenItemEvent(std::string_view name, const AnswerItem& item);
  void OpenPartEvent(std::string_view name, const AnswerItem& item);
  void AppendItemEvent(std::string_view name, const AnswerItem& item, std::string_view status,
                       std::string_view content);
  void AppendPartEvent(std::string_view name, const AnswerItem& item, std::string_view text,
                       std::string_view logprobs);
  void CloseEvent();

  std::string ItemId(const AnswerItem& item) const;
  void AppendItem(const AnswerItem& item, std::string_view status, std::string_view content,
                  std::string* out) const;
  // `content` of the whole item, or its arguments.
  std::string ContentOf(const AnswerItem& item) const;
  // The whole response; `usage` and `error` may be nullptr. `cut`: the last item is incomplete.
  std::string ResponseJson(std::string_view status, const AnswerUsage* usage,
                           const ApiError* error) const;

  const AnswerOptions options_;
  AnswerItems items_;
  std::string_view last_status_ = "completed";  // of the item that the end closes
  int64_t sequence_number_ = 0;
  bool started_ = false;
  std::string* out_ = nullptr;  // where events go, during a call
};

}  // namespace fastgen::gateway
