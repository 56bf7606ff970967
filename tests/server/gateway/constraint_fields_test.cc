#include "server/gateway/constraint_fields.h"

#include <catch2/catch.hpp>

#include "server/gateway/openai_chat.h"
#include "server/gateway/openai_completions.h"
#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Gateway;
using testing::GenerateScript;
using testing::Json;

constexpr char kTools[] = R"(,"tools":[{"type":"function","function":{"name":"f"}},)"
                          R"({"type":"function","function":{"name":"g"}}])";

std::string Body(const std::string& more) {
  return R"({"messages":[{"role":"user","content":"hi"}])" + more + "}";
}

// The constraint that a body asks for, as text; "param: message" when it is refused.
std::string ConstraintOf(const std::string& more) {
  GenerationRequest request;
  const auto error = ParseChatRequest(Body(more), &request);
  if (error.has_value()) return error->param + ": " + error->message;
  CHECK(request.ignored.empty());
  if (!request.calls[0].has_constraint()) return "none";
  return request.calls[0].constraint().ShortDebugString();
}

TEST_CASE("every way to say a constraint becomes the same one", "[gateway]") {
  struct Row {
    std::string fields;
    std::string want;
  };
  const std::string schema = R"(json_schema: "{\"type\":\"integer\"}")";
  const Row row = GENERATE_COPY(values<Row>({
      {"", "none"},
      {R"(,"response_format":{"type":"text"})", "none"},
      {R"(,"response_format":{"type":"json_object"})", "json_object: true"},
      {R"(,"response_format":{"type":"json_schema","json_schema":{"name":"n","description":"d",)"
       R"("strict":true,"schema":{"type":"integer"}}})",
       schema},
      {R"(,"response_format":{"type":"json_schema","schema":{"type":"integer"}})", schema},
      {R"(,"response_format":{"type":"json_object","schema":{"type":"integer"}})", schema},
      {R"(,"structured_outputs":{"json":{"type":"integer"}})", schema},
      {R"(,"structured_outputs":{"json":"{\"type\":\"integer\"}"})", schema},
      {R"(,"guided_json":{"type":"integer"})", schema},
      {R"(,"json_schema":{"type":"integer"})", schema},
      {R"(,"guided_json":true)", "json_schema: \"true\""},
      {R"(,"json_schema":{})", "json_schema: \"{}\""},
      {R"(,"structured_outputs":{"json_object":true})", "json_object: true"},
      {R"(,"guided_json_object":true)", "json_object: true"},
      {R"(,"structured_outputs":{"regex":"a+"})", "regex: \"a+\""},
      {R"(,"guided_regex":"a+")", "regex: \"a+\""},
      {R"(,"regex":"a+")", "regex: \"a+\""},
      {R"(,"structured_outputs":{"choice":["a","b"]})", R"(choice { choices: "a" choices: "b" })"},
      {R"(,"guided_choice":["a"],"guided_decoding_backend":"x")", R"(choice { choices: "a" })"},
      {R"(,"structured_outputs":{"grammar":"root ::= x"})", "grammar: \"root ::= x\""},
      {R"(,"guided_grammar":"root ::= x")", "grammar: \"root ::= x\""},
      {R"(,"grammar":"root ::= x")", "grammar: \"root ::= x\""},
      {R"(,"ebnf":"root ::= x")", "grammar: \"root ::= x\""},
      {R"(,"structured_outputs":{"structural_tag":{"type":"structural_tag"}})",
       R"(structural_tag: "{\"type\":\"structural_tag\"}")"},
      {R"(,"response_format":{"type":"structural_tag","format":{"type":"any_text"}})",
       R"(structural_tag: "{\"type\":\"structural_tag\",\"format\":{\"type\":\"any_text\"}}")"},
      {R"(,"response_format":{"type":"structural_tag","triggers":["<a"],)"
       R"("structures":[{"begin":"<a>","schema":{},"end":"</a>"}]})",
       R"(structural_tag: "{\"type\":\"structural_tag\",\"format\":{\"type\":\"triggered_tags\",)"
       R"(\"triggers\":[\"<a\"],\"tags\":[{\"begin\":\"<a>\",\"content\":{\"type\":\"json_schema\",)"
       R"(\"json_schema\":{}},\"end\":\"</a>\"}]}}")"},
  }));
  INFO(row.fields);
  CHECK(ConstraintOf(row.fields) == row.want);
}

TEST_CASE("tools constrain by their choice", "[gateway]") {
  struct Row {
    std::string fields;
    std::string want;
  };
  const std::string format = R"(,"response_format":{"type":"json_object"})";
  const Row row = GENERATE_COPY(values<Row>({
      {"", "none"},
      {R"(,"tool_choice":"none")", "none"},
      {R"(,"parallel_tool_calls":true)", "none"},
      {R"(,"parallel_tool_calls":false)", "tool_calls { single: true optional: true }"},
      {R"(,"tool_choice":"none","parallel_tool_calls":false)", "none"},
      {R"(,"tool_choice":"required")", "tool_calls { }"},
      {R"(,"tool_choice":"required","parallel_tool_calls":false)", "tool_calls { single: true }"},
      {R"(,"tool_choice":{"type":"function","function":{"name":"g"}})",
       R"(tool_calls { name: "g" single: true })"},
      {format, "json_object: true or_tool_calls: true"},
      {format + R"(,"tool_choice":"none")", "json_object: true"},
      {format + R"(,"tool_choice":"required")", "tool_calls { }"},
      {R"(,"regex":"a","tool_choice":"auto")", "regex: \"a\" or_tool_calls: true"},
      {R"(,"regex":"a","tool_choice":"required")",
       "tool_choice: regex and tool_choice cannot both constrain the answer"},
      {R"(,"tool_choice":{"type":"function","function":{"name":"h"}})",
       "tool_choice: tool_choice names \"h\", which is not among the tools"},
  }));
  INFO(row.fields);
  CHECK(ConstraintOf(kTools + row.fields) == row.want);
}

TEST_CASE("a strict tool constrains its arguments", "[gateway]") {
  CHECK(ConstraintOf(R"(,"tools":[{"type":"function","function":{"name":"f","strict":true}}])") ==
        "tool_calls { optional: true }");
}

TEST_CASE("two constraints are refused with both names", "[gateway]") {
  struct Row {
    std::string fields;
    std::string want;
  };
  const Row row = GENERATE(values<Row>({
      {R"(,"response_format":{"type":"json_object"},"guided_regex":"a")",
       "guided_regex: response_format and guided_regex"},
      {R"(,"structured_outputs":{"regex":"a","choice":["b"]})",
       "structured_outputs.choice: structured_outputs.regex and structured_outputs.choice"},
      {R"(,"structured_outputs":{"regex":"a"},"json_schema":{})",
       "json_schema: structured_outputs.regex and json_schema"},
      {R"(,"grammar":"a","ebnf":"b")", "ebnf: grammar and ebnf"},
      {R"(,"guided_json":{},"guided_json":{},"guided_json_object":true)",
       "guided_json_object: guided_json and guided_json_object"},
  }));
  INFO(row.fields);
  CHECK(ConstraintOf(row.fields) == row.want + " cannot both constrain the answer");
}

TEST_CASE("a malformed constraint is refused by name", "[gateway]") {
  struct Row {
    std::string fields;
    std::string param;
  };
  const Row row = GENERATE(values<Row>({
      {R"(,"guided_json":5)", "guided_json"},
      {R"(,"guided_json":"")", "guided_json"},
      {R"(,"guided_choice":[])", "guided_choice"},
      {R"(,"guided_choice":[1])", "guided_choice"},
      {R"(,"guided_choice":"a")", "guided_choice"},
      {R"(,"guided_regex":5)", "guided_regex"},
      {R"(,"guided_unheard_of":1)", "guided_unheard_of"},
      {R"(,"guided_whitespace_pattern":"x")", "guided_whitespace_pattern"},
      {R"(,"structured_outputs":[])", "structured_outputs"},
      {R"(,"structured_outputs":{"regex":[]})", "structured_outputs.regex"},
      {R"(,"structured_outputs":{"json":{},"whitespace_pattern":"x"})",
       "structured_outputs.whitespace_pattern"},
      {R"(,"response_format":{"type":"json_schema","json_schema":5})",
       "response_format.json_schema"},
      {R"(,"response_format":{"type":"json_schema","json_schema":{"schema":5}})",
       "response_format.json_schema.schema"},
      {R"(,"response_format":{"type":"structural_tag"})", "response_format.format"},
      {R"(,"response_format":{"type":"structural_tag","triggers":[],"structures":[{}]})",
       "response_format.structures"},
  }));
  INFO(row.fields);
  const std::string got = ConstraintOf(row.fields);
  CHECK(got.substr(0, got.find(':')) == row.param);
}

TEST_CASE("the daemon's refusal of a constraint names the client's field", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.status = testing::FieldViolation("constraint.regex", "does not compile");
    return script;
  };
  const auto reply = gateway.Post("/v1/chat/completions", Body(R"(,"guided_regex":"(")"));
  CHECK(reply.status == 400);
  CHECK(At(Json(reply.body), "/error/param") == "guided_regex");
  CHECK(At(Json(reply.body), "/error/message") == "guided_regex: does not compile");
}

TEST_CASE("a constraint travels with completions as well", "[gateway]") {
  GenerationRequest request;
  REQUIRE_FALSE(
      ParseCompletionsRequest(R"({"prompt":["a","b"],"guided_regex":"x"})", &request).has_value());
  REQUIRE(request.calls.size() == 2);
  CHECK(request.calls[1].constraint().regex() == "x");
}

}  // namespace
}  // namespace fastgen::gateway
