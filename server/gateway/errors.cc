#include "server/gateway/errors.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/gateway/json_text.h"
#include "server/gateway/request_id.h"

namespace fastgen::gateway {
namespace {

struct GrpcRow {
  grpc::StatusCode grpc;
  int http;
  std::string_view code;
  int retry_after_s;
};

// CANCELLED is 400: only the client's own side cancels. ALREADY_EXISTS is a request id in use.
constexpr GrpcRow kGrpcRows[] = {
    {grpc::StatusCode::INVALID_ARGUMENT, 400, "invalid_value", 0},
    {grpc::StatusCode::OUT_OF_RANGE, 400, "out_of_range", 0},
    {grpc::StatusCode::FAILED_PRECONDITION, 400, "failed_precondition", 0},
    {grpc::StatusCode::ALREADY_EXISTS, 400, "already_exists", 0},
    {grpc::StatusCode::CANCELLED, 400, "cancelled", 0},
    {grpc::StatusCode::UNAUTHENTICATED, 401, "invalid_api_key", 0},
    {grpc::StatusCode::PERMISSION_DENIED, 403, "permission_denied", 0},
    {grpc::StatusCode::NOT_FOUND, 404, "model_not_found", 0},
    {grpc::StatusCode::DEADLINE_EXCEEDED, 408, "deadline_exceeded", 0},
    {grpc::StatusCode::RESOURCE_EXHAUSTED, 429, "rate_limit_exceeded", 1},
    {grpc::StatusCode::UNIMPLEMENTED, 501, "not_implemented", 0},
    {grpc::StatusCode::UNAVAILABLE, 503, "unavailable", 1},
    {grpc::StatusCode::ABORTED, 503, "aborted", 1},
    {grpc::StatusCode::UNKNOWN, 500, "internal_error", 0},
    {grpc::StatusCode::INTERNAL, 500, "internal_error", 0},
    {grpc::StatusCode::DATA_LOSS, 500, "internal_error", 0},
};

std::string_view TypeOf(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 408:
      return "timeout_error";
    case 429:
      return "rate_limit_error";
    case 500:
      return "server_error";
    case 501:
      return "not_supported_error";
    case 503:
      return "unavailable_error";
    default:
      return "invalid_request_error";
  }
}

// 503 stays 503, which proxies and balancers know, where Anthropic has a status of its own, 529.
std::string_view AnthropicTypeOf(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 408:
      return "timeout_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 500:
    case 501:
      return "api_error";
    case 503:
      return "overloaded_error";
    default:
      return "invalid_request_error";
  }
}

constexpr std::pair<std::string_view, std::string_view> kParams[] = {
    {"stopping.include_stop", "include_stop_str_in_output"},
    {"output.token_ids", "return_token_ids"},
    {"output.tool_calls", "tools"},
    {"chat.tools_json", "tools"},
    {"chat.chat_template_kwargs_json", "chat_template_kwargs"},
    {"resume_window", "X-Fastgen-Resume-Window"},
    {"from_token", "Last-Event-ID"},
};

// "a[3].b" is "a.b".
std::string WithoutIndices(std::string_view field) {
  std::string plain;
  bool inside = false;
  for (char c : field) {
    if (c == '[') inside = true;
    if (!inside) plain += c;
    if (c == ']') inside = false;
  }
  return plain;
}

void AddDetails(const grpc::Status& status, const ParamNames& names, ApiError* error) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return;
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::BadRequest bad_request;
    google::rpc::RetryInfo retry;
    google::rpc::ErrorInfo info;
    if (any.UnpackTo(&bad_request) && bad_request.field_violations_size() > 0) {
      // Said again in the names that this client used.
      error->message.clear();
      for (const auto& violation : bad_request.field_violations()) {
        const std::string param = OpenAiParam(violation.field(), names);
        if (error->param.empty()) error->param = param;
        absl::StrAppend(&error->message, error->message.empty() ? "" : "; ", param,
                        param.empty() ? "" : ": ", violation.description());
      }
    } else if (any.UnpackTo(&retry)) {
      const int64_t seconds = retry.retry_delay().seconds() + (retry.retry_delay().nanos() > 0);
      error->retry_after_s = static_cast<int>(std::clamp<int64_t>(seconds, 1, 3600));
    } else if (any.UnpackTo(&info) && info.reason() == "CONTEXT_LENGTH_EXCEEDED") {
      error->code = "context_length_exceeded";
    }
  }
}

void AppendStringOrNull(std::string_view text, std::string* out) {
  if (text.empty()) {
    out->append("null");
  } else {
    AppendJsonString(text, out);
  }
}

}  // namespace

ApiError ErrorFromGrpc(const grpc::Status& status, const ParamNames& names) {
  ApiError error;
  error.status = 500;
  error.code = "internal_error";
  for (const GrpcRow& row : kGrpcRows) {
    if (row.grpc != status.error_code()) continue;
    error.status = row.http;
    error.code = std::string(row.code);
    error.retry_after_s = row.retry_after_s;
  }
  if (error.status == 404) error.code = std::string(names.not_found);
  error.message = status.error_message();
  // The library's own words, where the daemon could not say it in time.
  if (error.message == "Deadline Exceeded") error.message = "the answer did not come in time";
  if (error.message.empty())
    error.message = absl::StrCat("the daemon answered ", ToAbsl(error.code));
  AddDetails(status, names, &error);
  if (error.status != 429 && error.status != 503) error.retry_after_s = 0;
  return error;
}

std::string OpenAiParam(std::string_view field, const ParamNames& names) {
  const std::string plain = WithoutIndices(field);
  for (const auto& [from, to] : kParams) {
    if (plain == from) return std::string(to);
  }
  if (plain == "text" || plain == "ids" || plain == "token_ids" || plain == "token_ids.ids" ||
      plain == "prompt") {
    return std::string(names.prompt);
  }
  if (plain == "stopping.max_tokens" || plain == "max_tokens") return std::string(names.max_tokens);
  if (plain == "output.prompt_logprobs") return std::string(names.prompt_logprobs);
  if (plain == "output.logprobs" || plain == "logprobs") return std::string(names.logprobs);
  if (plain == "stopping.stop") return std::string(names.stop);
  if (plain == "constraint" || plain.rfind("constraint.", 0) == 0) {
    return std::string(names.constraint.empty() ? "response_format" : names.constraint);
  }
  if (plain == "chat" || plain.rfind("chat.messages", 0) == 0) {
    if (!names.messages_match) return std::string(names.prompt);
    // The index says which message; the rest of the path is the same in both dialects.
    return field.substr(0, 5) == "chat." ? std::string(field.substr(5)) : std::string(names.prompt);
  }
  const size_t dot = plain.rfind('.');
  return dot == std::string::npos ? plain : plain.substr(dot + 1);
}

std::string ErrorJson(const ApiError& error) {
  std::string out = "{\"error\":{\"message\":";
  AppendJsonString(error.message, &out);
  out += ",\"type\":";
  AppendJsonString(TypeOf(error.status), &out);
  out += ",\"param\":";
  AppendStringOrNull(error.param, &out);
  out += ",\"code\":";
  AppendStringOrNull(error.code, &out);
  out += "}}";
  return out;
}

std::string AnthropicErrorJson(const ApiError& error, std::string_view request_id) {
  std::string out = "{\"type\":\"error\",\"error\":{\"type\":";
  AppendJsonString(AnthropicTypeOf(error.status), &out);
  out += ",\"message\":";
  const bool names_it = error.message.find(error.param) != std::string::npos;
  AppendJsonString(names_it ? error.message : absl::StrCat(error.param, ": ", error.message), &out);
  out += "},\"request_id\":";
  AppendStringOrNull(request_id, &out);
  out += '}';
  return out;
}

ErrorShape ErrorShapeOf(std::string_view path) {
  constexpr std::string_view kMessages = "/messages";
  if (path.substr(0, 4) == "/v1/") path.remove_prefix(3);
  const bool messages = path.substr(0, kMessages.size()) == kMessages &&
                        (path.size() == kMessages.size() || path[kMessages.size()] == '/');
  return messages ? ErrorShape::kAnthropic : ErrorShape::kOpenAi;
}

HttpResponse ErrorResponse(const ApiError& error, ErrorShape shape, std::string_view request_id) {
  HttpResponse response = ErrorResponse(error);
  if (shape == ErrorShape::kOpenAi) return response;
  // What was refused before it had an id gets one: the body and both headers say the same.
  const std::string id = request_id.empty() ? NewRequestId() : std::string(request_id);
  response.body = AnthropicErrorJson(error, id);
  response.headers.emplace_back("X-Request-Id", id);
  response.headers.emplace_back("request-id", id);
  return response;
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = ErrorJson(error);
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.retry_after_s > 0) {
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  }
  return response;
}

}  // namespace fastgen::gateway
