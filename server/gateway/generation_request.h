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
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fastgen/v1/inference.pb.h"
#include "server/gateway/errors.h"
#include "server/gateway/json_fields.h"

namespace fastgen::gateway {

// How the answer is to be written.
struct AnswerOptions {
  std::string id;       // "chatcmpl-..." or "cmpl-..."
  std::string model;    // as asked
  std::string system_fingerprint;  // names the daemon's build and weights; "" is left out
  int64_t created = 0;  // Unix seconds
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool return_token_ids = false;
  bool logprobs = false;
  bool shows_reasoning = true;        // chat: else it is left out of the answer
  bool parallel_tool_calls = true;    // chat: else only the first call is shown
  std::vector<int32_t> stop_token_ids;  // those that count as stop_reason
};

struct GenerationRequest {
  std::vector<v1::GenerateRequest> calls;  // one a prompt
  int32_t num_answers = 1;                 // OpenAI's n: choices a prompt
  std::string request_id;                  // "" when the body names none
  AnswerOptions options;
  ParamNames names;
  std::vector<std::string> ignored;
};

// Reads everything that both routes share into `request->options` and `call`.
void ReadSharedFields(JsonFields* fields, v1::GenerateRequest* call, GenerationRequest* request);

// A request id may stand in headers, logs and URLs: 1 to 128 printable ASCII characters, no space.
bool IsRequestId(std::string_view id);

}  // namespace fastgen::gateway
