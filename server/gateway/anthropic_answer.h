// MessagesFormat: an answer as Anthropic's Messages API has it, whole or as named events.
//
//   message_start {content_block_start content_block_delta* content_block_stop}* message_delta
//   message_stop
// Blocks are thinking, text and tool_use, in the model's own order. `input` of a tool_use block is
// an object in a whole answer and pieces of JSON text in a stream; of a call that was cut, which is
// no JSON, the whole answer has an empty object. input_tokens leaves out the tokens that came from
// the prefix cache, which cache_read_input_tokens counts. stop_reason is null for a request that
// was cancelled by its id. A silent stream is kept open with `ping` once it has begun, before that
// with a comment.
// Thread rule: the connection's strand.
// Tested by tests/server/gateway/anthropic_answer_test.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/gateway/answer_format.h"
#include "server/gateway/answer_items.h"

namespace fastgen::gateway {

class MessagesFormat final : public AnswerFormat, private AnswerItems::Listener {
 public:
  explicit MessagesFormat(const AnswerOptions& options);

  void AppendOpening(const ChoiceState& choice, const PromptState& prompt,
                     std::string* out) override;
  void AppendDelta(const v1::Delta& delta, ChoiceState* choice, const PromptState& prompt,
                   std::string* out) override;
  void AppendFinish(const ChoiceState& choice, const PromptState& prompt,
                    std::string* out) override;
  void AppendUsage(const AnswerUsage& usage, std::string* out) override {}
  void AppendEnd(std::string* out) override {}
  void AppendError(const ApiError& error, std::string* out) override;
  void AppendKeepAlive(std::string* out) override;
  HttpResponse ErrorAnswer(const ApiError& error) override;
  void Keep(const v1::Delta& delta, ChoiceState* choice) override;
  std::string Whole(const std::vector<ChoiceState>& choices,
                    const std::vector<PromptState>& prompts, const AnswerUsage& usage) override;

 private:
  void OnOpen(const AnswerItem& item) override;
  void OnPiece(const AnswerItem& item, std::string_view piece, std::string_view logprobs) override;
  void OnClose(const AnswerItem& item) override;

  bool IsShown(const AnswerItem& item) const;
  // The block's index in the answer, which counts those that are shown.
  size_t BlockIndex(const AnswerItem& item) const;

  const AnswerOptions options_;
  const std::string request_id_;
  AnswerItems items_;
  size_t num_hidden_ = 0;  // thinking blocks that are left out
  bool started_ = false;
  std::string* out_ = nullptr;  // while items_ speaks to this
};

}  // namespace fastgen::gateway
