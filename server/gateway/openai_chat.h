// POST /chat/completions: the request to fastgen.v1, the events to OpenAI's shapes.
//
// Messages and tools are read by chat_fields.h, constraints by constraint_fields.h. A forced call
// ends with the finish_reason "tool_calls" where any tool would do and with "stop" where one was
// named, as OpenAI's and vLLM's answers do. With `parallel_tool_calls` false one call at most is
// made, and shown.
//
// Reasoning, of models that have some, is kept apart from the content, under both of the names that
// clients look for: `reasoning_content` and `reasoning`. `include_reasoning` false leaves it out;
// `separate_reasoning` false leaves it in the content as the model wrote it.
// Thread rule: ParseChatRequest on any thread; ChatFormat on the connection's strand.
// Tested by tests/server/gateway/openai_chat_test.cc, tests/fuzz/openai_json_fuzzer.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/gateway/answer_format.h"
#include "server/gateway/errors.h"
#include "server/gateway/generation_request.h"

namespace fastgen::gateway {

// nullopt and `*request` filled, or what is wrong.
std::optional<ApiError> ParseChatRequest(std::string_view body, GenerationRequest* request);

// {"token":..,"logprob":..,"bytes":..,"top_logprobs":[..]} for each, after what `out` already holds
// of the list.
void AppendChatLogprobs(const AnswerOptions& options,
                        const google::protobuf::RepeatedPtrField<v1::TokenLogprob>& logprobs,
                        std::string* out);

class ChatFormat final : public AnswerFormat {
 public:
  explicit ChatFormat(const AnswerOptions& options);

  void SetSystemFingerprint(const std::string& fingerprint) override;
  void AppendOpening(const ChoiceState& choice, const PromptState& prompt,
                     std::string* out) override;
  void AppendDelta(const v1::Delta& delta, ChoiceState* choice, const PromptState& prompt,
                   std::string* out) override;
  void AppendFinish(const ChoiceState& choice, const PromptState& prompt,
                    std::string* out) override;
  void AppendUsage(const AnswerUsage& usage, std::string* out) override;
  bool resumes_anywhere() const override { return true; }
  void Keep(const v1::Delta& delta, ChoiceState* choice) override;
  std::string Whole(const std::vector<ChoiceState>& choices,
                    const std::vector<PromptState>& prompts, const AnswerUsage& usage) override;

 private:
  AnswerOptions options_;
  std::string chunk_head_;  // `data: {"id":...,"choices":[{"index":`
};

}  // namespace fastgen::gateway
