// Anthropic's requests: what becomes of each field, and what is refused by which words.
#include "server/gateway/anthropic_messages.h"

#include <catch2/catch.hpp>

#include "tests/server/gateway/answer_scripts.h"
#include "tests/server/gateway/gateway_fixture.h"
#include "tests/server/gateway/parsed_request.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Gateway;
using testing::GenerateScript;
using testing::HttpReply;
using testing::Json;
using testing::Shown;

std::string Body(const std::string& more = "") {
  return R"({"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}])" + more + "}";
}

std::string WithMessages(const std::string& messages, const std::string& more = "") {
  return R"({"max_tokens":9,"messages":)" + messages + more + "}";
}

constexpr char kTools[] =
    R"(,"tools":[{"name":"f","description":"d","input_schema":{"type":"object"}},)"
    R"({"name":"g","input_schema":{}}])";

v1::GenerateRequest Parse(const std::string& body, GenerationRequest* request) {
  return testing::ParseOne(ParseMessagesRequest, body, request);
}

v1::GenerateRequest Parse(const std::string& body) {
  GenerationRequest request;
  return Parse(body, &request);
}

ApiError Refused(const std::string& body) {
  GenerationRequest request;
  INFO(body);
  const auto error = ParseMessagesRequest(body, &request);
  REQUIRE(error.has_value());
  CHECK(error->status == 400);
  return *error;
}

TEST_CASE("messages: each field goes to its place", "[gateway]") {
  GenerationRequest request;
  const auto call = Parse(
      Body(R"(,"system":"be","stop_sequences":["a","b"],"temperature":0,"top_k":3,"top_p":0.5,)"
           R"("stream":true,"metadata":{"user_id":"u"},"service_tier":"auto","min_p":0.25,)"
           R"("cache_control":{"type":"ephemeral"},"request_id":"r-1","priority":2,"x":1)"),
      &request);
  CHECK(Shown(call.chat()) == "system|be||/|\nuser|hi||/|\n");
  CHECK(call.model() == "m");
  CHECK(call.stopping().max_tokens() == 9);
  CHECK(call.stopping().stop_size() == 2);
  CHECK(call.stopping().stop(1) == "b");
  CHECK(call.sampling().has_temperature());
  CHECK(call.sampling().temperature() == 0);
  CHECK(call.sampling().top_k() == 3);
  CHECK(call.sampling().top_p() == 0.5f);
  CHECK(call.sampling().min_p() == 0.25f);
  CHECK(call.priority() == 2);
  CHECK(call.output().reasoning());
  CHECK_FALSE(call.output().tool_calls());
  CHECK_FALSE(call.has_constraint());
  CHECK(request.options.stream);
  CHECK(request.request_id == "r-1");
  CHECK(request.ignored == std::vector<std::string>{"x"});
}

TEST_CASE("messages: blocks become what a template knows", "[gateway]") {
  GenerationRequest request;
  const auto call = Parse(
      WithMessages(
          R"([{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},)"
          R"({"type":"text","text":"b"}]},)"
          R"({"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},)"
          R"({"type":"redacted_thinking","data":"zz"},{"type":"text","text":"c"},)"
          R"({"type":"tool_use","id":"i","name":"f","input":{"x":[1,"y"]}},)"
          R"({"type":"tool_use","id":"j","name":"g","input":{}}]},)"
          R"({"role":"user","content":[{"type":"tool_result","tool_use_id":"j","content":"r"},)"
          R"({"type":"tool_result","tool_use_id":"i","is_error":true,"content":[)"
          R"({"type":"text","text":"p"},{"type":"text","text":"q"}]},)"
          R"({"type":"tool_result","tool_use_id":"k"},)"
          R"({"type":"text","text":"go"}]},{"role":"user","content":"on"}])",
          R"(,"system":[{"type":"text","text":"s1"},{"type":"text","text":"s2","citations":null}])"),
      &request);
  CHECK(Shown(call.chat()) ==
        "system|s1\ns2||/|\n"
        "user|a\nb||/|\n"
        "assistant|c|t|/|i f{\"x\":[1,\"y\"]}j g{}\n"
        "tool|r||j/g|\n"
        "tool|p\nq||i/f|\n"
        "tool|||k/|\n"
        "user|go\non||/|\n");
  CHECK(request.ignored ==
        std::vector<std::string>{"messages[1].content[1].data", "messages[2].content[1].is_error"});
  CHECK_FALSE(call.chat().has_continue_final_message());
}

TEST_CASE("messages: the assistant's last word is gone on with, its call is not", "[gateway]") {
  auto call = Parse(
      WithMessages(R"([{"role":"user","content":"hi"},{"role":"assistant","content":"I say"}])"));
  CHECK(call.chat().continue_final_message());
  CHECK_FALSE(call.chat().add_generation_prompt());
  CHECK(call.chat().has_add_generation_prompt());
  call = Parse(WithMessages(R"([{"role":"user","content":"hi"},{"role":"assistant","content":)"
                            R"([{"type":"tool_use","id":"i","name":"f","input":{}}]}])"));
  CHECK_FALSE(call.chat().has_continue_final_message());
  CHECK_FALSE(call.chat().messages(1).has_content());
}

TEST_CASE("messages: tools have the shape that templates know", "[gateway]") {
  const auto call = Parse(Body(kTools));
  REQUIRE(call.chat().tools_json_size() == 2);
  CHECK(
      call.chat().tools_json(0) ==
      R"({"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}})");
  CHECK(call.chat().tools_json(1) ==
        R"({"type":"function","function":{"name":"g","parameters":{}}})");
  CHECK(call.output().tool_calls());
  CHECK_FALSE(call.has_constraint());
}

TEST_CASE("messages: tool_choice and output_config.format become constraints", "[gateway]") {
  struct Row {
    std::string more;
    bool tool_calls;
    bool parallel;
    std::string constraint;
  };
  const std::string tools = kTools;
  const std::string strict =
      R"(,"tools":[{"name":"f","strict":true,"type":"custom","input_schema":{}}])";
  const std::string format =
      R"(,"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}})";
  for (const Row& row : {
           Row{tools + R"(,"tool_choice":{"type":"auto"})", true, true, ""},
           Row{tools + R"(,"tool_choice":{"type":"auto","disable_parallel_tool_use":true})", true,
               false, "tool_calls { single: true optional: true }"},
           Row{tools + R"(,"tool_choice":{"type":"none"})", false, true, ""},
           Row{tools + R"(,"tool_choice":{"type":"any"})", true, true, "tool_calls { }"},
           Row{tools + R"(,"tool_choice":{"type":"any","disable_parallel_tool_use":true})", true,
               false, "tool_calls { single: true }"},
           Row{tools + R"(,"tool_choice":{"type":"tool","name":"g"})", true, true,
               "tool_calls { name: \"g\" single: true }"},
           Row{strict, true, true, "tool_calls { optional: true }"},
           Row{format, false, true, "json_schema: \"{\\\"type\\\":\\\"object\\\"}\""},
           Row{tools + format, true, true,
               "json_schema: \"{\\\"type\\\":\\\"object\\\"}\" or_tool_calls: true"},
           Row{tools + format + R"(,"tool_choice":{"type":"any"})", true, true, "tool_calls { }"},
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

TEST_CASE("messages: thinking is a variable of the template", "[gateway]") {
  struct Row {
    std::string more;
    std::string kwargs;
    bool shown;
    std::vector<std::string> ignored;
  };
  for (
      const Row& row : {
          Row{"", "", true, {}},
          Row{R"(,"thinking":{"type":"enabled","budget_tokens":1024})",
              R"({"enable_thinking":true})",
              true,
              {"thinking.budget_tokens"}},
          Row{R"(,"thinking":{"type":"disabled"})", R"({"enable_thinking":false})", true, {}},
          Row{R"(,"thinking":{"type":"adaptive","display":"omitted"})", "", false, {}},
          Row{R"(,"thinking":{"type":"disabled"},"chat_template_kwargs":{"enable_thinking":true,"a":1})",
              R"({"enable_thinking":true,"a":1})",
              true,
              {}},
      }) {
    INFO(row.more);
    GenerationRequest request;
    const auto call = Parse(Body(row.more), &request);
    CHECK(call.chat().chat_template_kwargs_json() == row.kwargs);
    CHECK(request.options.shows_reasoning == row.shown);
    CHECK(request.ignored == row.ignored);
  }
}

TEST_CASE("messages: what is refused is named", "[gateway]") {
  struct Row {
    std::string body;
    std::string param;
  };
  const std::string image =
      R"({"type":"image","source":{"type":"base64","media_type":"image/png","data":""}})";
  for (const Row& row : {
           Row{"", ""},
           Row{"[]", ""},
           Row{R"({"max_tokens":1})", "messages"},
           Row{R"({"messages":[{"role":"user","content":"x"}]})", "max_tokens"},
           Row{R"({"max_tokens":0,"messages":[{"role":"user","content":"x"}]})", "max_tokens"},
           Row{WithMessages("[]"), "messages"},
           Row{WithMessages("{}"), "messages"},
           Row{WithMessages("[1]"), "messages[0]"},
           Row{WithMessages(R"([{"role":"tool","content":"x"}])"), "messages[0].role"},
           Row{WithMessages(R"([{"content":"x"}])"), "messages[0].role"},
           Row{WithMessages(R"([{"role":"user"}])"), "messages[0].content"},
           Row{WithMessages(R"([{"role":"user","content":7}])"), "messages[0].content"},
           Row{WithMessages(R"([{"role":"user","content":[7]}])"), "messages[0].content[0]"},
           Row{WithMessages(R"([{"role":"user","content":[{"text":"x"}]}])"),
               "messages[0].content[0].type"},
           Row{WithMessages(R"([{"role":"user","content":[{"type":"text"}]}])"),
               "messages[0].content[0].text"},
           Row{WithMessages(R"([{"role":"user","content":[)" + image + "]}]"),
               "messages[0].content[0].type"},
           Row{WithMessages(R"([{"role":"user","content":[{"type":"document","source":{}}]}])"),
               "messages[0].content[0].type"},
           Row{WithMessages(R"([{"role":"user","content":[{"type":"tool_result","tool_use_id":"i",)"
                            R"("content":[)" +
                            image + "]}]}]"),
               "messages[0].content[0].content[0].type"},
           Row{WithMessages(
                   R"([{"role":"user","content":[{"type":"tool_use","id":"i","name":"f"}]}])"),
               "messages[0].content[0].type"},
           Row{WithMessages(R"([{"role":"assistant","content":[{"type":"tool_use","id":"i",)"
                            R"("name":"f","input":"x"}]}])"),
               "messages[0].content[0].input"},
           Row{Body(R"(,"system":[)" + image + "]"), "system[0].type"},
           Row{Body(R"(,"stop_sequences":"a")"), "stop_sequences"},
           Row{Body(R"(,"stop_sequences":[1])"), "stop_sequences"},
           Row{Body(R"(,"tools":[{"type":"web_search_20250305","name":"web_search"}])"),
               "tools[0].type"},
           Row{Body(R"(,"tools":[{"name":"f"}])"), "tools[0].input_schema"},
           Row{Body(R"(,"tools":[{"input_schema":{}}])"), "tools[0].name"},
           Row{Body(R"(,"tools":[1])"), "tools[0]"},
           Row{Body(R"(,"tool_choice":{"type":"any"})"), "tool_choice"},
           Row{Body(std::string(kTools) + R"(,"tool_choice":{"type":"tool","name":"h"})"),
               "tool_choice"},
           Row{Body(std::string(kTools) + R"(,"tool_choice":{"type":"tool"})"), "tool_choice.name"},
           Row{Body(std::string(kTools) + R"(,"tool_choice":{"type":"some"})"), "tool_choice.type"},
           Row{Body(R"(,"thinking":{"type":"deep"})"), "thinking.type"},
           Row{Body(R"(,"thinking":{"type":"enabled","display":"x"})"), "thinking.display"},
           Row{Body(R"(,"output_config":{"effort":"low"})"), "output_config.effort"},
           Row{Body(R"(,"output_config":{"format":{"type":"regex"}})"),
               "output_config.format.type"},
           Row{Body(R"(,"output_config":{"format":{"type":"json_schema"}})"),
               "output_config.format.schema"},
           Row{Body(R"(,"mcp_servers":[])"), "mcp_servers"},
           Row{Body(R"(,"container":"c")"), "container"},
           Row{Body(R"(,"context_management":{})"), "context_management"},
           Row{Body(R"(,"n":2)"), "n"},
           Row{Body(R"(,"logprobs":true)"), "logprobs"},
           Row{Body(R"(,"guided_new":{})"), "guided_new"},
           Row{Body(R"(,"temperature":"hot")"), "temperature"},
           Row{Body(R"(,"metadata":{"user_id":1})"), "metadata.user_id"},
       }) {
    const ApiError error = Refused(row.body);
    CHECK(error.param == row.param);
    CHECK_FALSE(error.message.empty());
  }
}

TEST_CASE("messages: many of what is ignored stay a short header", "[gateway]") {
  std::string blocks;
  for (int i = 0; i < 3000; ++i) {
    blocks += std::string(i == 0 ? "" : ",") + R"({"type":"redacted_thinking","data":"z"})";
  }
  GenerationRequest request;
  Parse(WithMessages(R"([{"role":"user","content":"a"},{"role":"assistant","content":[)" + blocks +
                     "]}]"),
        &request);
  CHECK(request.ignored.size() == 32);
}

TEST_CASE("count_tokens renders the conversation with its tools", "[gateway]") {
  Gateway gateway;
  for (const char* path : {"/v1/messages/count_tokens", "/messages/count_tokens"}) {
    const HttpReply reply = gateway.Post(
        path, Body(std::string(R"(,"system":"s","thinking":{"type":"disabled"},"q":1)") + kTools));
    CHECK(reply.status == 200);
    CHECK(reply.body == R"({"input_tokens":2})");
    CHECK(reply.header("x-fastgen-ignored") == "q");
  }
  v1::RenderChatRequest call;
  std::vector<std::string> ignored;
  REQUIRE_FALSE(
      ParseCountTokensRequest(Body(std::string(R"(,"thinking":{"type":"disabled"})") + kTools),
                              &call, &ignored)
          .has_value());
  CHECK(call.chat().tools_json_size() == 2);
  CHECK(call.chat().chat_template_kwargs_json() == R"({"enable_thinking":false})");
}

TEST_CASE("a conversation needs a turn beside what stands in system", "[gateway]") {
  Gateway gateway;
  const HttpReply reply =
      gateway.Post("/messages", R"({"max_tokens":1,"system":"s","messages":[]})");
  CHECK(reply.status == 400);
  CHECK(At(Json(reply.body), "/error/message") == "messages must not be empty");
}

TEST_CASE("count_tokens answers errors in Anthropic's shape", "[gateway]") {
  Gateway gateway;
  HttpReply reply = gateway.Post("/messages/count_tokens", "{}", "X-Request-Id: abc\r\n");
  CHECK(reply.status == 400);
  CHECK(reply.body == R"({"type":"error","error":{"type":"invalid_request_error",)"
                      R"("message":"messages is missing"},"request_id":"abc"})");
  CHECK(reply.header("request-id") == "abc");
  gateway.daemon.unary_status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "no key");
  reply = gateway.Post("/messages/count_tokens", Body());
  CHECK(reply.status == 401);
  CHECK(At(Json(reply.body), "/error/type") == "authentication_error");
}

}  // namespace
}  // namespace fastgen::gateway
