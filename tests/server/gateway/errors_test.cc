#include "server/gateway/errors.h"

#include <catch2/catch.hpp>

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

TEST_CASE("broken status details do not hide the error", "[gateway]") {
  const ApiError error =
      ErrorFromGrpc(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no", "\xff\xff garbage"));
  CHECK(error.status == 400);
  CHECK(error.message == "no");
  CHECK(error.param.empty());
}

TEST_CASE("an error is JSON whatever its text", "[gateway]") {
  CHECK(ErrorJson({.status = 429, .message = "a\"\n\xff"}) ==
        "{\"error\":{\"message\":\"a\\\"\\n\xEF\xBF\xBD\",\"type\":\"rate_limit_error\",\"param\":"
        "null,\"code\":null}}");
}

}  // namespace
}  // namespace fastgen::gateway
