// Errors as OpenAI's clients expect them, and the one table from gRPC status to HTTP status.
//
// Body: {"error":{"message","type","param","code"}}; `type` follows from the HTTP status. `param`
// of a refused field is taken from the google.rpc.BadRequest in grpc-status-details-bin and turned
// back into OpenAI's name for it; Retry-After from google.rpc.RetryInfo, else a default, on 429 and
// 503.
// Thread rule: any thread.
// Tested by tests/server/gateway/errors_test.cc.
#pragma once

#include <grpcpp/support/status.h>

#include <string>
#include <string_view>

#include "server/gateway/exchange.h"

namespace fastgen::gateway {

struct ApiError {
  int status = 400;
  std::string message = {};
  std::string param = {};  // "" is null
  std::string code = {};   // "" is null
  int retry_after_s = 0;
};

// Names that differ between routes.
struct ParamNames {
  std::string_view prompt = "prompt";
  std::string_view max_tokens = "max_tokens";
  std::string_view logprobs = "logprobs";
  std::string_view prompt_logprobs = "echo";
  std::string_view not_found = "model_not_found";  // the code of what the daemon does not have
  std::string_view constraint = "";  // the field that constrains; "" is response_format
  std::string_view stop = "stop";
  // The daemon's messages are the request's own, one for one: an index into them can be named.
  bool messages_match = true;
};

// Bodies: OpenAI's as above, or Anthropic's {"type":"error","error":{"type","message"},
// "request_id"}, whose message names the field.
enum class ErrorShape { kOpenAi, kAnthropic };
// Of the answers to a path, which may have no route.
ErrorShape ErrorShapeOf(std::string_view path);

ApiError ErrorFromGrpc(const grpc::Status& status, const ParamNames& names = {});

// {"error":{...}}
std::string ErrorJson(const ApiError& error);
HttpResponse ErrorResponse(const ApiError& error);
// In Anthropic's shape the id, drawn here where it is "", goes out in the body and in the headers
// "request-id" and X-Request-Id.
HttpResponse ErrorResponse(const ApiError& error, ErrorShape shape, std::string_view request_id);
// {"type":"error",...}
std::string AnthropicErrorJson(const ApiError& error, std::string_view request_id);

// OpenAI's name for a field of fastgen.v1.GenerateRequest, "sampling.top_p" or
// "chat.messages[3].role"; a name that the table lacks is its last part.
std::string OpenAiParam(std::string_view field, const ParamNames& names);

}  // namespace fastgen::gateway
