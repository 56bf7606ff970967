// Requests of the Responses API: what becomes of each field, and what is refused by which words.
#include "server/gateway/openai_responses.h"

#include <catch2/catch.hpp>

#include "tests/server/gateway/gateway_fixture.h"
#include "tests/server/gateway/parsed_request.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Json;
using testing::Shown;

std::string Body(const std::string& more = "") {
  return R"({"model":"m","input":"hi")" + more + "}";
}

std::string WithInput(const std::string& input, const std::string& more = "") {
  return R"({"input":)" + input + more + "}";
}

constexpr char kTools[] =
    R"(,"tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"}},)"
    R"({"type":"function","name":"g","parameters":null,"strict":null}])";

v1::GenerateRequest Parse(const std::string& body, GenerationRequest* request) {
  return testing::ParseOne(ParseResponsesRequest, body, request);
}

v1::GenerateRequest Parse(const std::string& body) {
  GenerationRequest request;
  return Parse(body, &request);
}

TEST_CASE("responses: each field goes to its place", "[gateway]") {
  GenerationRequest request;
  const auto call = Parse(
      Body(
          R"(,"instructions":"be","max_output_tokens":7,"temperature":0,"top_p":0.5,"top_k":3,)"
          R"("stream":true,"stream_options":{"include_obfuscation":false},"store":true,"user":"u",)"
          R"("metadata":{"a":"b"},"truncation":"disabled","background":false,)"
          R"("reasoning":{"effort":null,"summary":"auto"},"text":{"verbosity":"medium"},)"
          R"("include":["reasoning.encrypted_content"],"chat_template_kwargs":{"k":1},)"
          R"("prompt_cache_key":"p","safety_identifier":"s","service_tier":"auto","tools":[],)"
          R"("tool_choice":"auto","parallel_tool_calls":true,"previous_response_id":null,"x":1)"),
      &request);
  CHECK(Shown(call.chat()) == "system|be||/|\nuser|hi||/|\n");
  CHECK(call.chat().chat_template_kwargs_json() == R"({"k":1})");
  CHECK(call.model() == "m");
  CHECK(call.stopping().max_tokens() == 7);
  CHECK(call.sampling().has_temperature());
  CHECK(call.sampling().temperature() == 0);
  CHECK(call.sampling().top_p() == 0.5f);
  CHECK(call.sampling().top_k() == 3);
  CHECK(call.output().reasoning());
  CHECK_FALSE(call.output().has_logprobs());
  CHECK_FALSE(call.output().tool_calls());
  CHECK_FALSE(call.has_constraint());
  CHECK(request.options.stream);
  CHECK(request.ignored == std::vector<std::string>{"x"});
}

TEST_CASE("responses: items of one turn become one message again", "[gateway]") {
  GenerationRequest request;
  const auto call = Parse(
      WithInput(
          R"([{"role":"developer","content":"dev"},{"role":"user","content":[)"
          R"({"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},)"
          R"({"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"sum"}],)"
          R"("content":[{"type":"reasoning_text","text":"why"}],"encrypted_content":"zz"},)"
          R"({"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[)"
          R"({"type":"output_text","text":"c","annotations":[],"logprobs":[]}]},)"
          R"({"type":"function_call","id":"fc_1","call_id":"i","name":"f","arguments":"{\"x\":1}",)"
          R"("status":"completed"},{"type":"function_call","call_id":"j","name":"g","arguments":"{}"},)"
          R"({"type":"function_call_output","call_id":"j","output":"r"},)"
          R"({"type":"function_call_output","call_id":"i","output":[{"type":"input_text","text":"p"},)"
          R"({"type":"input_text","text":"q"}]},)"
          R"({"type":"reasoning","summary":[{"type":"summary_text","text":"so"}]},)"
          R"({"type":"function_call","call_id":"k","name":"f","arguments":"{}"},)"
          R"({"type":"function_call_output","call_id":"k","output":""},)"
          R"({"role":"assistant","content":"d"},{"role":"assistant","content":[)"
          R"({"type":"refusal","refusal":"no"}]},{"role":"system","content":"s"},)"
          R"({"role":"user","content":"e"}])",
          R"(,"instructions":"be")"),
      &request);
  CHECK(Shown(call.chat()) ==
        "system|be\ndev||/|\n"
        "user|a\nb||/|\n"
        "assistant|c|why|/|i f{\"x\":1}j g{}\n"
        "tool|r||j/g|\n"
        "tool|p\nq||i/f|\n"
        "assistant|(none)|so|/|k f{}\n"
        "tool|||k/f|\n"
        "assistant|d||/|\n"
        "assistant|no||/|\n"
        "system|s||/|\n"
        "user|e||/|\n");
  CHECK(request.ignored == std::vector<std::string>{"input[2].encrypted_content"});
}

TEST_CASE("responses: tools have the shape that templates know", "[gateway]") {
  const auto call = Parse(Body(kTools));
  REQUIRE(call.chat().tools_json_size() == 2);
  CHECK(
      call.chat().tools_json(0) ==
      R"({"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}})");
  CHECK(call.chat().tools_json(1) == R"({"type":"function","function":{"name":"g"}})");
  CHECK(call.output().tool_calls());
}

TEST_CASE("responses: tool_choice and text.format become constraints", "[gateway]") {
  struct Row {
    std::string more;
    bool tool_calls;
    bool parallel;
    std::string constraint;
  };
  const std::string tools = kTools;
  const std::string strict =
      R"(,"tools":[{"type":"function","name":"f","strict":true,"parameters":{}}])";
  const std::string schema =
      R"(,"text":{"format":{"type":"json_schema","name":"n","strict":true,"schema":{"type":"object"}}})";
  const std::string schema_text = "json_schema: \"{\\\"type\\\":\\\"object\\\"}\"";
  for (const Row& row : {
           Row{tools + R"(,"tool_choice":"auto")", true, true, ""},
           Row{tools + R"(,"parallel_tool_calls":false)", true, false,
               "tool_calls { single: true optional: true }"},
           Row{tools + R"(,"tool_choice":"none")", false, true, ""},
           Row{tools + R"(,"tool_choice":"required")", true, true, "tool_calls { }"},
           Row{tools + R"(,"tool_choice":"required","parallel_tool_calls":false)", true, false,
               "tool_calls { single: true }"},
           Row{tools + R"(,"tool_choice":{"type":"function","name":"g"})", true, true,
               "tool_calls { name: \"g\" single: true }"},
           Row{strict, true, true, "tool_calls { optional: true }"},
           Row{R"(,"text":{"format":{"type":"text"}})", false, true, ""},
           Row{R"(,"text":{"format":{"type":"json_object"}})", false, true, "json_object: true"},
           Row{schema, false, true, schema_text},
           Row{tools + schema, true, true, schema_text + " or_tool_calls: true"},
           Row{tools + schema + R"(,"tool_choice":"none")", false, true, schema_text},
           Row{tools + schema + R"(,"tool_choice":"required")", true, true, "tool_calls { }"},
       }) {
    INFO(row.more);
    GenerationRequest request;
    const auto call = Parse(Body(row.more), &request);
    CHECK(call.output().tool_calls() == row.tool_calls);
    CHECK(request.options.parallel_tool_calls == row.parallel);
    CHECK(call.constraint().ShortDebugString() == row.constraint);
    CHECK(request.ignored.empty());
  }
}

TEST_CASE("responses: logprobs come when include or top_logprobs asks", "[gateway]") {
  GenerationRequest request;
  auto call = Parse(Body(R"(,"include":["message.output_text.logprobs"])"), &request);
  CHECK(call.output().has_logprobs());
  CHECK(call.output().logprobs() == 0);
  CHECK(request.options.logprobs);
  call = Parse(Body(R"(,"top_logprobs":3)"));
  CHECK(call.output().logprobs() == 3);
  call = Parse(Body(R"(,"top_logprobs":0)"));
  CHECK_FALSE(call.output().has_logprobs());
}

TEST_CASE("responses: what a Response repeats is what was asked, or what holds", "[gateway]") {
  GenerationRequest request;
  Parse(Body(), &request);
  auto echo = Json("{" + request.options.echo_json + "}");
  CHECK(At(echo, "/tool_choice") == "auto");
  CHECK(At(echo, "/tools") == "[]");
  CHECK(At(echo, "/parallel_tool_calls") == "true");
  CHECK(At(echo, "/metadata") == "{}");
  CHECK(At(echo, "/text/format/type") == "text");
  CHECK(At(echo, "/instructions") == "(null)");
  CHECK(At(echo, "/store") == "false");
  request = {};
  Parse(Body(std::string(
                 R"(,"store":true,"instructions":"be","metadata":{"a":"b"},"temperature":0.5)") +
             kTools),
        &request);
  echo = Json("{" + request.options.echo_json + "}");
  CHECK(At(echo, "/store") == "false");
  CHECK(At(echo, "/instructions") == "be");
  CHECK(At(echo, "/metadata/a") == "b");
  CHECK(At(echo, "/temperature") == "5E-1");
  CHECK(At(echo, "/tools/0/name") == "f");
}

TEST_CASE("responses: what is refused is named", "[gateway]") {
  struct Row {
    std::string body;
    std::string param;
  };
  const std::string user = R"({"role":"user","content":)";
  for (const Row& row : {
           Row{"", ""},
           Row{"7", ""},
           Row{"{}", "input"},
           Row{WithInput("7"), "input"},
           Row{WithInput("[]"), "input"},
           Row{WithInput("[7]"), "input[0]"},
           Row{WithInput(R"([{"content":"x"}])"), "input[0].role"},
           Row{WithInput(R"([{"role":"tool","content":"x"}])"), "input[0].role"},
           Row{WithInput(R"([{"role":"user"}])"), "input[0].content"},
           Row{WithInput("[" + user + "7}]"), "input[0].content"},
           Row{WithInput("[" + user + "[7]}]"), "input[0].content"},
           Row{WithInput("[" + user + R"([{"type":"input_image","image_url":"x"}]}])"),
               "input[0].content[0].type"},
           Row{WithInput("[" + user + R"([{"type":"input_file","file_id":"x"}]}])"),
               "input[0].content[0].type"},
           Row{WithInput("[" + user + R"([{"type":"input_text"}]}])"), "input[0].content[0].text"},
           Row{WithInput(R"([{"type":"item_reference","id":"x"}])"), "input[0].type"},
           Row{WithInput(R"([{"type":"web_search_call","id":"x"}])"), "input[0].type"},
           Row{WithInput(R"([{"type":"function_call","name":"f","arguments":"{}"}])"),
               "input[0].call_id"},
           Row{WithInput(R"([{"type":"function_call","call_id":"i","name":"f"}])"),
               "input[0].arguments"},
           Row{WithInput(R"([{"type":"function_call_output","call_id":"i"}])"), "input[0].output"},
           Row{WithInput(R"([{"type":"function_call_output","output":"x"}])"), "input[0].call_id"},
           Row{Body(R"(,"previous_response_id":"resp_1")"), "previous_response_id"},
           Row{Body(R"(,"conversation":"c")"), "conversation"},
           Row{Body(R"(,"prompt":{"id":"p"})"), "prompt"},
           Row{Body(R"(,"background":true)"), "background"},
           Row{Body(R"(,"truncation":"auto")"), "truncation"},
           Row{Body(R"(,"context_management":[])"), "context_management"},
           Row{Body(R"(,"reasoning":{"effort":"low"})"), "reasoning.effort"},
           Row{Body(R"(,"text":{"verbosity":"low"})"), "text.verbosity"},
           Row{Body(R"(,"text":{"format":{"type":"grammar"}})"), "text.format.type"},
           Row{Body(R"(,"text":{"format":{"type":"json_schema"}})"), "text.format.schema"},
           Row{Body(R"(,"text":{"format":{}})"), "text.format.type"},
           Row{Body(R"(,"include":["x"])"), "include"},
           Row{Body(R"(,"top_logprobs":21)"), "top_logprobs"},
           Row{Body(R"(,"max_output_tokens":0)"), "max_output_tokens"},
           Row{Body(R"(,"tools":[{"type":"web_search"}])"), "tools[0].type"},
           Row{Body(R"(,"tools":[{"type":"function"}])"), "tools[0].name"},
           Row{Body(R"(,"tools":[{"type":"function","name":"f","parameters":[]}])"),
               "tools[0].parameters"},
           Row{Body(R"(,"tools":[1])"), "tools[0]"},
           Row{Body(R"(,"tool_choice":"required")"), "tool_choice"},
           Row{Body(R"(,"tool_choice":"some")"), "tool_choice"},
           Row{Body(std::string(kTools) + R"(,"tool_choice":{"type":"function","name":"h"})"),
               "tool_choice"},
           Row{Body(std::string(kTools) + R"(,"tool_choice":{"type":"mcp"})"), "tool_choice.type"},
           Row{Body(R"(,"messages":[])"), "messages"},
           Row{Body(R"(,"n":2)"), "n"},
           Row{Body(R"(,"stop":["a"])"), "stop"},
           Row{Body(R"(,"guided_new":"a")"), "guided_new"},
           Row{Body(R"(,"temperature":"hot")"), "temperature"},
           Row{Body(R"(,"metadata":[])"), "metadata"},
       }) {
    INFO(row.body);
    GenerationRequest request;
    const auto error = ParseResponsesRequest(row.body, &request);
    REQUIRE(error.has_value());
    CHECK(error->status == 400);
    CHECK(error->param == row.param);
    CHECK_FALSE(error->message.empty());
  }
}

}  // namespace
}  // namespace fastgen::gateway
