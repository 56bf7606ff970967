// GenerationRequest: what /chat/completions and /completions have in common, from JSON fields to
// fastgen.v1.
//
// A field that would change the answer and that nobody here or in the daemon honours is refused
// with its name, unless it holds its neutral value; harmless ones are accepted; unknown ones are
// accepted and listed in `ignored`. Values are checked for type and for what protobuf can hold;
// limits belong to the daemon, which answers with field violations.
// Thread rule: values.
// Tested by tests/server/gateway/openai_{chat,completions}_test.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "fastgen/v1/inference.pb.h"
#include "server/gateway/errors.h"
#include "server/gateway/json_fields.h"
#include "server/gateway/request_id.h"
#include "server/gateway/stream_position.h"

namespace fastgen::gateway {

enum class GenerationRoute { kChat, kCompletions, kResponses, kMessages };

// How the answer is to be written.
struct AnswerOptions {
  std::string id;                  // "chatcmpl-..." or "cmpl-..."
  std::string model;               // as asked
  std::string system_fingerprint;  // names the daemon's build and weights; "" is left out
  int64_t created = 0;             // Unix seconds
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool return_token_ids = false;
  bool logprobs = false;
  bool shows_reasoning = true;             // chat: else it is left out of the answer
  bool parallel_tool_calls = true;         // chat: else only the first call is shown
  bool named_tool = false;                 // chat: a call to it was forced
  bool tokens_as_ids = false;              // tokens of logprobs are shown as "token_id:5"
  bool echo = false;                       // completions: the prompt opens the answer
  int32_t top_logprobs = 0;                // completions: candidates of each token
  std::optional<int32_t> prompt_logprobs;  // vLLM's, in whole answers
  std::vector<int32_t> stop_token_ids;     // those that count as stop_reason
  std::string echo_json;  // Responses: members that the answer repeats of the request
};

inline constexpr int64_t kMaxLogprobs = 20;  // candidates a token; the engine's

struct GenerationRequest {
  std::vector<v1::GenerateRequest> calls;  // one a prompt
  int32_t num_answers = 1;                 // OpenAI's n: choices a prompt
  std::string request_id;                  // "" when the body names none
  AnswerOptions options;
  ParamNames names;
  std::vector<std::string> ignored;
  // With a resume window: an event stream's events have ids.
  bool has_window = false;
  absl::Time deadline =
      absl::InfiniteFuture();  // of all calls, whichever daemons they are tried on
  // Or nothing: with the number of the daemon that a call goes to, and that has accepted it.
  std::function<void(size_t daemon)> on_sent;
  std::function<void(size_t daemon)> on_accepted;
  // Instead of `calls`: the stream to take up, and from where.
  std::optional<StreamPosition> resume;
  size_t daemon = 0;  // that has the stream to take up
};

// Parts of it, which the dialects without OpenAI's older names read too.
// model, request_id, priority, cache_salt
void ReadIdentity(JsonFields* fields, v1::GenerateRequest* call, GenerationRequest* request);
// OpenAI's parameters and vLLM's.
void ReadSampling(JsonFields* fields, v1::Sampling* sampling);
// Refuses the names with `why`, whatever their value: "n is not part of /responses".
void RefuseNames(JsonFields* fields, std::initializer_list<std::string_view> names,
                 std::string_view why);

// Reads everything that both routes share into `request->options` and `call`.
void ReadSharedFields(JsonFields* fields, v1::GenerateRequest* call, GenerationRequest* request);

}  // namespace fastgen::gateway
