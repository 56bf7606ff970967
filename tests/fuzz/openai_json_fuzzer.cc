// Any bytes as the body of the generation routes, in each dialect: a request or an error below 500,
// never a crash. A conversation that is read has messages of known roles only.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/gateway/anthropic_messages.h"
#include "server/gateway/openai_chat.h"
#include "server/gateway/openai_completions.h"
#include "server/gateway/openai_responses.h"

namespace {

void Check(const std::optional<fastgen::gateway::ApiError>& error,
           const fastgen::gateway::GenerationRequest& request) {
  if (error.has_value() && (error->status < 400 || error->status > 499 || error->message.empty()))
    std::abort();
  if (!error.has_value() && request.calls.empty()) std::abort();
  for (const auto& call : request.calls) {
    if (error.has_value()) break;
    if (call.has_n() && call.n() != request.num_answers) std::abort();
    if (call.has_best_of() && call.best_of() < request.num_answers) std::abort();
    if (call.has_best_of() && request.options.stream) std::abort();
    if (call.output().has_prompt_logprobs() && call.output().prompt_logprobs() > 20) std::abort();
    // What constrains has a name for the daemon's refusals, and is never empty.
    if (call.has_constraint() != !request.names.constraint.empty()) std::abort();
    if (call.has_constraint() && call.constraint().kind_case() == 0) std::abort();
    if (call.sampling().logit_bias_size() > 1024 || call.sampling().bad_words_size() > 256)
      std::abort();
  }
  for (const auto& name : request.ignored) {
    if (name.find_first_of("\r\n") != std::string::npos) std::abort();
  }
}

void CheckChat(const fastgen::v1::Chat& chat) {
  if (chat.messages().empty()) std::abort();
  for (const auto& message : chat.messages()) {
    const std::string& role = message.role();
    if (role != "system" && role != "user" && role != "assistant" && role != "tool") std::abort();
    if (role != "assistant" && message.tool_calls_size() > 0) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  fastgen::gateway::GenerationRequest chat;
  Check(fastgen::gateway::ParseChatRequest(body, &chat), chat);
  fastgen::gateway::GenerationRequest completions;
  Check(fastgen::gateway::ParseCompletionsRequest(body, &completions), completions);
  fastgen::gateway::GenerationRequest responses;
  const auto responses_error = fastgen::gateway::ParseResponsesRequest(body, &responses);
  Check(responses_error, responses);
  if (!responses_error.has_value()) CheckChat(responses.calls[0].chat());
  fastgen::gateway::GenerationRequest messages;
  const auto messages_error = fastgen::gateway::ParseMessagesRequest(body, &messages);
  Check(messages_error, messages);
  if (!messages_error.has_value()) CheckChat(messages.calls[0].chat());
  fastgen::v1::RenderChatRequest counted;
  std::vector<std::string> ignored;
  if (!fastgen::gateway::ParseCountTokensRequest(body, &counted, &ignored).has_value())
    CheckChat(counted.chat());
  return 0;
}
