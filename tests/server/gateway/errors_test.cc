#include "server/gateway/errors.h"

#include <catch2/catch.hpp>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace fastgen::gateway {
namespace {

TEST_CASE("fields of fastgen.v1 have OpenAI's names", "[gateway]") {
  struct Row {
    std::string field;
    std::string want;
  };
  const Row row = GENERATE(values<Row>({
      {"sampling.temperature", "temperature"},
      {"stopping.max_tokens", "max_tokens"},
      {"stopping.stop[3]", "stop"},
      {"stopping.include_stop", "include_stop_str_in_output"},
      {"output.logprobs", "logprobs"},
      {"output.prompt_logprobs", "echo"},
      {"output.token_ids", "return_token_ids"},
      {"constraint.json_schema", "response_format"},
      {"chat.messages[2].role", "messages[2].role"},
      {"chat.messages", "messages"},
      {"chat.tools_json[0]", "tools"},
      {"text", "prompt"},
      {"token_ids.ids[5]", "prompt"},
      {"n", "n"},
      {"request_id", "request_id"},
      {"", ""},
      {"[", ""},
  }));
  INFO(row.field);
  CHECK(OpenAiParam(row.field, {}) == row.want);
}

TEST_CASE("every gRPC status is one HTTP status, type and code", "[gateway]") {
  using Code = grpc::StatusCode;
  struct Row {
    Code grpc;
    int http;
    std::string type;
    std::string code;
    int retry_after_s;
  };
  const Row row = GENERATE(values<Row>({
      {Code::INVALID_ARGUMENT, 400, "invalid_request_error", "invalid_value", 0},
      {Code::OUT_OF_RANGE, 400, "invalid_request_error", "out_of_range", 0},
      {Code::FAILED_PRECONDITION, 400, "invalid_request_error", "failed_precondition", 0},
      {Code::ALREADY_EXISTS, 400, "invalid_request_error", "already_exists", 0},
      {Code::CANCELLED, 400, "invalid_request_error", "cancelled", 0},
      {Code::UNAUTHENTICATED, 401, "authentication_error", "invalid_api_key", 0},
      {Code::PERMISSION_DENIED, 403, "permission_error", "permission_denied", 0},
      {Code::NOT_FOUND, 404, "not_found_error", "model_not_found", 0},
      {Code::DEADLINE_EXCEEDED, 408, "timeout_error", "deadline_exceeded", 0},
      {Code::RESOURCE_EXHAUSTED, 429, "rate_limit_error", "rate_limit_exceeded", 1},
      {Code::UNIMPLEMENTED, 501, "not_supported_error", "not_implemented", 0},
      {Code::UNAVAILABLE, 503, "unavailable_error", "unavailable", 1},
      {Code::ABORTED, 503, "unavailable_error", "aborted", 1},
      {Code::INTERNAL, 500, "server_error", "internal_error", 0},
      {Code::UNKNOWN, 500, "server_error", "internal_error", 0},
      {Code::DATA_LOSS, 500, "server_error", "internal_error", 0},
      {static_cast<Code>(20), 500, "server_error", "internal_error", 0},
  }));
  const ApiError error = ErrorFromGrpc(grpc::Status(row.grpc, "why"));
  CHECK(error.status == row.http);
  CHECK(error.code == row.code);
  CHECK(error.message == "why");
  CHECK(error.retry_after_s == row.retry_after_s);
  CHECK(ErrorJson(error).find("\"type\":\"" + row.type + "\"") != std::string::npos);
  const HttpResponse response = ErrorResponse(error);
  CHECK(response.status == row.http);
  const bool has_header = row.retry_after_s > 0 || row.http == 401;  // Retry-After, WWW-Authenticate
  CHECK(response.headers.size() == (has_header ? 1 : 0));
}

TEST_CASE("broken status details do not hide the error", "[gateway]") {
  const ApiError error =
      ErrorFromGrpc(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no", "\xff\xff garbage"));
  CHECK(error.status == 400);
  CHECK(error.message == "no");
  CHECK(error.param.empty());
}

TEST_CASE("a context overflow has the code that clients look for", "[gateway]") {
  google::rpc::Status rich;
  google::rpc::BadRequest bad_request;
  bad_request.add_field_violations()->set_field("prompt");
  google::rpc::ErrorInfo info;
  info.set_reason("CONTEXT_LENGTH_EXCEEDED");
  rich.add_details()->PackFrom(bad_request);
  rich.add_details()->PackFrom(info);
  const ApiError error = ErrorFromGrpc(
      grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "too long", rich.SerializeAsString()));
  CHECK(error.status == 400);
  CHECK(error.code == "context_length_exceeded");
  CHECK(error.param == "prompt");
}

TEST_CASE("Retry-After is whole seconds, rounded up", "[gateway]") {
  google::rpc::Status rich;
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  retry.mutable_retry_delay()->set_nanos(1);
  rich.add_details()->PackFrom(retry);
  const auto header = [&](grpc::StatusCode code) {
    return ErrorFromGrpc(grpc::Status(code, "full", rich.SerializeAsString())).retry_after_s;
  };
  CHECK(header(grpc::StatusCode::RESOURCE_EXHAUSTED) == 3);
  CHECK(header(grpc::StatusCode::UNAVAILABLE) == 3);
  CHECK(header(grpc::StatusCode::INVALID_ARGUMENT) == 0);
}

TEST_CASE("an error is JSON whatever its text", "[gateway]") {
  CHECK(ErrorJson({.status = 429, .message = "a\"\n\xff"}) ==
        "{\"error\":{\"message\":\"a\\\"\\n\xEF\xBF\xBD\",\"type\":\"rate_limit_error\",\"param\":"
        "null,\"code\":null}}");
}

}  // namespace
}  // namespace fastgen::gateway
