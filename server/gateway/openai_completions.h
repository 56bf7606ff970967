// POST /completions: the legacy shape that evaluation and load tools use.
//
// A prompt is a string, a list of strings, token ids, or a list of token-id lists; each prompt is a
// Generate call of its own, and choice index = prompt index * n + k. Logprobs have the legacy
// shape: four parallel lists (tokens, token_logprobs, top_logprobs, text_offset) that with `echo`
// begin with the prompt's tokens, the first without a logprob. text_offset counts code points of
// the token strings, as vLLM does.
// Thread rule: ParseCompletionsRequest on any thread; CompletionsFormat on the connection's strand.
// Tested by tests/server/gateway/openai_completions_test.cc, tests/fuzz/openai_json_fuzzer.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/gateway/answer_format.h"
#include "server/gateway/errors.h"
#include "server/gateway/generation_request.h"

namespace fastgen::gateway {

std::optional<ApiError> ParseCompletionsRequest(std::string_view body, GenerationRequest* request);

class CompletionsFormat final : public AnswerFormat {
 public:
  explicit CompletionsFormat(const AnswerOptions& options);

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
  std::string chunk_head_;
};

}  // namespace fastgen::gateway
