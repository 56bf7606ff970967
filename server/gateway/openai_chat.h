// POST /chat/completions: the request to fastgen.v1, the events to OpenAI's shapes.
//
// Messages go to the daemon as they are: it owns the chat template. `developer` becomes `system`
// (the same role by its newer name) and text parts are joined with a line break. `tools` are shown
// to the template whatever the tool_choice; with "auto", the default, the answer's tool calls are
// parsed. "required" and a named tool are refused: nothing would make the model obey. With
// `parallel_tool_calls` false, calls after the first are left out of the answer.
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

// What a request says about tools that the model may call.
enum class ToolChoice { kNone, kAuto };

// The `messages`, `tools`, `chat_template_kwargs`, ... of a request; also read by /tokenize.
ToolChoice ReadChat(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored);

// Refuses what is said about the special tokens of a text prompt: the template places them here.
void RefuseTextOnly(JsonFields* fields);

class ChatFormat final : public AnswerFormat {
 public:
  explicit ChatFormat(const AnswerOptions& options);

  void AppendOpening(const ChoiceState& choice, const PromptState& prompt,
                     std::string* out) override;
  void AppendDelta(const v1::Delta& delta, ChoiceState* choice, const PromptState& prompt,
                   std::string* out) override;
  void AppendFinish(const ChoiceState& choice, const PromptState& prompt,
                    std::string* out) override;
  void AppendUsage(const AnswerUsage& usage, std::string* out) override;
  void Keep(const v1::Delta& delta, ChoiceState* choice) override;
  std::string Whole(const std::vector<ChoiceState>& choices,
                    const std::vector<PromptState>& prompts, const AnswerUsage& usage) override;

 private:
  const AnswerOptions options_;
  const std::string chunk_head_;  // `data: {"id":...,"choices":[{"index":`
};

}  // namespace fastgen::gateway
