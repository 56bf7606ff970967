// Tool calls and reasoning over POST /chat/completions, in OpenAI's exact shapes.
#include <catch2/catch.hpp>

#include "server/gateway/openai_chat.h"
#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Gateway;
using testing::GenerateScript;
using testing::Json;

constexpr char kTools[] =
    R"(,"tools":[{"type":"function","function":{"name":"f","parameters":{}}}])";

std::string Body(const std::string& more) {
  return R"({"messages":[{"role":"user","content":"hi"}])" + more + "}";
}

v1::GenerateEvent ReasoningEvent(const std::string& reasoning) {
  v1::GenerateEvent event = testing::DeltaEvent("", {7});
  event.mutable_delta()->set_reasoning(reasoning);
  return event;
}

v1::GenerateEvent CallEvent(int index, const std::string& id, const std::string& name,
                            const std::string& arguments) {
  v1::GenerateEvent event = testing::DeltaEvent("", {8});
  v1::ToolCallDelta* call = event.mutable_delta()->add_tool_calls();
  call->set_index(index);
  call->set_id(id);
  call->set_name(name);
  call->set_arguments(arguments);
  return event;
}

// Reasons, says a word, makes two calls in pieces.
GenerateScript TwoCalls(const v1::GenerateRequest&) {
  GenerateScript script;
  script.events = {testing::AcceptedEvent(5),
                   ReasoningEvent("Hm"),
                   ReasoningEvent(" \"so\"."),
                   testing::DeltaEvent("Wait."),
                   CallEvent(0, "call_a", "f", "{\"x\""),
                   CallEvent(0, "", "", ": 1}"),
                   CallEvent(1, "call_b", "g", "{}"),
                   testing::FinishedEvent(v1::STOP, 5, 9)};
  v1::Finished* finished = script.events.back().mutable_finished();
  finished->set_num_tool_calls(2);
  finished->mutable_usage()->set_reasoning_tokens(4);
  return script;
}

TEST_CASE("tools are parsed unless tool_choice is none, reasoning is split unless refused",
          "[gateway]") {
  struct Row {
    std::string fields;
    bool tool_calls;
    bool reasoning;
  };
  const std::string tools = kTools;
  for (const Row& row : {Row{"", false, true}, Row{tools, true, true},
                         Row{tools + R"(,"tool_choice":"auto")", true, true},
                         Row{tools + R"(,"tool_choice":"none")", false, true},
                         Row{tools + R"(,"separate_reasoning":false)", true, false},
                         Row{R"(,"include_reasoning":false)", false, true}}) {
    INFO(row.fields);
    GenerationRequest request;
    REQUIRE_FALSE(ParseChatRequest(Body(row.fields), &request).has_value());
    CHECK(request.calls[0].output().tool_calls() == row.tool_calls);
    CHECK(request.calls[0].output().reasoning() == row.reasoning);
    CHECK(request.ignored.empty());
  }
}

TEST_CASE("a whole answer holds its tool calls and its reasoning", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = TwoCalls;
  const auto json = Json(gateway.Post("/v1/chat/completions", Body(kTools)).body);
  CHECK(At(json, "/choices/0/message") ==
        R"({"role":"assistant","content":"Wait.","refusal":null,)"
        R"("reasoning_content":"Hm \"so\".","reasoning":"Hm \"so\".","tool_calls":[)"
        R"({"id":"call_a","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}},)"
        R"({"id":"call_b","type":"function","function":{"name":"g","arguments":"{}"}}]})");
  CHECK(At(json, "/choices/0/finish_reason") == "tool_calls");
  CHECK(At(json, "/usage/completion_tokens_details") == R"({"reasoning_tokens":4})");
}

TEST_CASE("an answer of calls alone has no content", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(5), CallEvent(0, "call_a", "f", "{}"),
                     testing::FinishedEvent(v1::STOP, 5, 2)};
    script.events.back().mutable_finished()->set_num_tool_calls(1);
    return script;
  };
  const auto json = Json(gateway.Post("/v1/chat/completions", Body(kTools)).body);
  CHECK(At(json, "/choices/0/message") ==
        R"({"role":"assistant","content":null,"refusal":null,"tool_calls":[)"
        R"({"id":"call_a","type":"function","function":{"name":"f","arguments":"{}"}}]})");
  CHECK(At(json, "/usage/completion_tokens_details") == "(none)");
}

TEST_CASE("a stream brings reasoning, content and calls piece by piece", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = TwoCalls;
  const auto events =
      gateway
          .Post("/v1/chat/completions",
                Body(std::string(kTools) +
                     R"(,"stream":true,"stream_options":{"include_usage":true})"))
          .events();
  const std::vector<std::string> deltas = {
      R"({"role":"assistant","content":null})",
      R"({"reasoning_content":"Hm","reasoning":"Hm"})",
      R"({"reasoning_content":" \"so\".","reasoning":" \"so\"."})",
      R"({"content":"Wait."})",
      R"({"tool_calls":[{"index":0,"id":"call_a","type":"function",)"
      R"("function":{"name":"f","arguments":"{\"x\""}}]})",
      R"({"tool_calls":[{"index":0,"function":{"arguments":": 1}"}}]})",
      R"({"tool_calls":[{"index":1,"id":"call_b","type":"function",)"
      R"("function":{"name":"g","arguments":"{}"}}]})",
      "{}"};
  REQUIRE(events.size() == deltas.size() + 2);
  for (size_t i = 0; i < deltas.size(); ++i) {
    CHECK(At(Json(events[i]), "/choices/0/delta") == deltas[i]);
    CHECK(At(Json(events[i]), "/choices/0/finish_reason") ==
          (i + 1 < deltas.size() ? "(null)" : "tool_calls"));
  }
  const auto usage = Json(events[deltas.size()]);
  CHECK(At(usage, "/usage/completion_tokens_details/reasoning_tokens") == "4");
  CHECK(events.back() == "[DONE]");
}

TEST_CASE("parallel_tool_calls false shows the first call alone", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = TwoCalls;
  const std::string more = std::string(kTools) + R"(,"parallel_tool_calls":false)";
  const auto json = Json(gateway.Post("/v1/chat/completions", Body(more)).body);
  CHECK(At(json, "/choices/0/message/tool_calls/0/id") == "call_a");
  CHECK(At(json, "/choices/0/message/tool_calls/1") == "(none)");
  const auto events =
      gateway.Post("/v1/chat/completions", Body(more + R"(,"stream":true)")).events();
  for (const std::string& event : events) CHECK(event.find("call_b") == std::string::npos);
}

TEST_CASE("include_reasoning false leaves the reasoning out, but counts it", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = TwoCalls;
  const std::string more = R"(,"include_reasoning":false)";
  const auto reply = gateway.Post("/v1/chat/completions", Body(more));
  CHECK(reply.body.find("Hm") == std::string::npos);
  CHECK(At(Json(reply.body), "/usage/completion_tokens_details/reasoning_tokens") == "4");
  for (const std::string& event :
       gateway.Post("/v1/chat/completions", Body(more + R"(,"stream":true)")).events()) {
    CHECK(event.find("reasoning\"") == std::string::npos);
  }
}

TEST_CASE("calls that were cut by length end with length", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    GenerateScript script = TwoCalls(request);
    script.events.back().mutable_finished()->set_reason(v1::LENGTH);
    return script;
  };
  const auto json = Json(gateway.Post("/v1/chat/completions", Body(kTools)).body);
  CHECK(At(json, "/choices/0/finish_reason") == "length");
}

TEST_CASE("a model whose calls nobody can parse refuses tools by that name", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.status = testing::FieldViolation("output.tool_calls", "no parser is known");
    return script;
  };
  const auto reply = gateway.Post("/v1/chat/completions", Body(kTools));
  CHECK(reply.status == 400);
  CHECK(At(Json(reply.body), "/error/param") == "tools");
}

TEST_CASE("a named tool that was called ends with stop, a required one with tool_calls",
          "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = TwoCalls;
  const std::string named = R"(,"tool_choice":{"type":"function","function":{"name":"f"}})";
  for (const bool stream : {false, true}) {
    for (const auto& [choice, want] : {std::pair<std::string, std::string>{named, "stop"},
                                       {R"(,"tool_choice":"required")", "tool_calls"}}) {
      const auto reply = gateway.Post(
          "/v1/chat/completions", Body(kTools + choice + (stream ? R"(,"stream":true)" : "")));
      REQUIRE(reply.status == 200);
      const auto events = reply.events();
      const auto last = Json(stream ? events[events.size() - 2] : reply.body);
      CHECK(At(last, "/choices/0/finish_reason") == want);
    }
  }
}

}  // namespace
}  // namespace fastgen::gateway
