// Any bytes as the body of the two generation routes: a request or an error below 500, never a
// crash.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "server/gateway/openai_chat.h"
#include "server/gateway/openai_completions.h"

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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  fastgen::gateway::GenerationRequest chat;
  Check(fastgen::gateway::ParseChatRequest(body, &chat), chat);
  fastgen::gateway::GenerationRequest completions;
  Check(fastgen::gateway::ParseCompletionsRequest(body, &completions), completions);
  return 0;
}
