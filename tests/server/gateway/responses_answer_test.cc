// Answers over POST /responses, in OpenAI's exact shapes.
#include "server/gateway/responses_answer.h"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include "tests/server/gateway/answer_scripts.h"
#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

namespace json = boost::json;
using testing::At;
using testing::Gateway;
using testing::GenerateScript;
using testing::HttpReply;
using testing::Json;

constexpr char kTools[] =
    R"(,"tools":[{"type":"function","name":"f","parameters":{}},{"type":"function","name":"g","parameters":{}}])";
constexpr char kId[] = "X-Request-Id: 7\r\n";
constexpr char kItems[] =
    R"([{"id":"rs_7_0","status":"completed","type":"reasoning","summary":[],"content":[)"
    R"({"type":"reasoning_text","text":"Hm \"so\"."}]},)"
    R"({"id":"msg_7_1","status":"completed","type":"message","role":"assistant","content":[)"
    R"({"type":"output_text","annotations":[],"logprobs":[],"text":"Wait."}]},)"
    R"({"id":"fc_7_2","status":"completed","type":"function_call","call_id":"call_a","name":"f",)"
    R"("arguments":"{\"x\": 1}"},)"
    R"({"id":"fc_7_3","status":"completed","type":"function_call","call_id":"call_b","name":"g",)"
    R"("arguments":"{}"}])";

std::string Body(const std::string& more = "") {
  return R"({"model":"m","input":"hi")" + more + "}";
}

TEST_CASE("responses: a whole answer has its items in the model's order", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = testing::TwoCalls;
  for (const char* path : {"/v1/responses", "/responses"}) {
    const HttpReply reply = gateway.Post(path, Body(kTools), kId);
    CHECK(reply.status == 200);
    CHECK(reply.header("x-request-id") == "7");
    const auto response = Json(reply.body);
    CHECK(At(response, "/id") == "resp_7");
    CHECK(At(response, "/object") == "response");
    CHECK(At(response, "/status") == "completed");
    CHECK(At(response, "/error") == "(null)");
    CHECK(At(response, "/incomplete_details") == "(null)");
    CHECK(At(response, "/output") == kItems);
    CHECK(At(response, "/usage") ==
          R"({"input_tokens":5,"input_tokens_details":{"cached_tokens":2,"cache_write_tokens":0},)"
          R"("output_tokens":9,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":14})");
    CHECK(At(response, "/tools/1/name") == "g");
  }
}

TEST_CASE("responses: a stream has its named events in order", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = testing::TwoCalls;
  const auto events =
      gateway.Post("/v1/responses", Body(std::string(kTools) + R"(,"stream":true)"), kId)
          .named_events();
  const std::vector<std::pair<std::string, std::string>> want = {
      {"response.created", ""},
      {"response.in_progress", ""},
      {"response.output_item.added",
       R"("output_index":0,"item":{"id":"rs_7_0","status":"in_progress","type":"reasoning",)"
       R"("summary":[],"content":[]})"},
      {"response.content_part.added",
       R"("output_index":0,"item_id":"rs_7_0","content_index":0,"part":)"
       R"({"type":"reasoning_text","text":""})"},
      {"response.reasoning_text.delta",
       R"("output_index":0,"item_id":"rs_7_0","content_index":0,"delta":"Hm")"},
      {"response.reasoning_text.delta",
       R"("output_index":0,"item_id":"rs_7_0","content_index":0,"delta":" \"so\".")"},
      {"response.reasoning_text.done",
       R"("output_index":0,"item_id":"rs_7_0","content_index":0,"text":"Hm \"so\".")"},
      {"response.content_part.done",
       R"("output_index":0,"item_id":"rs_7_0","content_index":0,"part":)"
       R"({"type":"reasoning_text","text":"Hm \"so\"."})"},
      {"response.output_item.done",
       R"("output_index":0,"item":{"id":"rs_7_0","status":"completed","type":"reasoning",)"
       R"("summary":[],"content":[{"type":"reasoning_text","text":"Hm \"so\"."}]})"},
      {"response.output_item.added",
       R"("output_index":1,"item":{"id":"msg_7_1","status":"in_progress","type":"message",)"
       R"("role":"assistant","content":[]})"},
      {"response.content_part.added",
       R"("output_index":1,"item_id":"msg_7_1","content_index":0,"part":)"
       R"({"type":"output_text","annotations":[],"logprobs":[],"text":""})"},
      {"response.output_text.delta",
       R"("output_index":1,"item_id":"msg_7_1","content_index":0,"delta":"Wait.","logprobs":[])"},
      {"response.output_text.done",
       R"("output_index":1,"item_id":"msg_7_1","content_index":0,"text":"Wait.","logprobs":[])"},
      {"response.content_part.done",
       R"("output_index":1,"item_id":"msg_7_1","content_index":0,"part":)"
       R"({"type":"output_text","annotations":[],"logprobs":[],"text":"Wait."})"},
      {"response.output_item.done",
       R"("output_index":1,"item":{"id":"msg_7_1","status":"completed","type":"message",)"
       R"("role":"assistant","content":[)"
       R"({"type":"output_text","annotations":[],"logprobs":[],"text":"Wait."}]})"},
      {"response.output_item.added",
       R"("output_index":2,"item":{"id":"fc_7_2","status":"in_progress","type":"function_call",)"
       R"("call_id":"call_a","name":"f","arguments":""})"},
      {"response.function_call_arguments.delta",
       R"("output_index":2,"item_id":"fc_7_2","delta":"{\"x\"")"},
      {"response.function_call_arguments.delta",
       R"("output_index":2,"item_id":"fc_7_2","delta":": 1}")"},
      {"response.function_call_arguments.done",
       R"("output_index":2,"item_id":"fc_7_2","name":"f","arguments":"{\"x\": 1}")"},
      {"response.output_item.done",
       R"("output_index":2,"item":{"id":"fc_7_2","status":"completed","type":"function_call",)"
       R"("call_id":"call_a","name":"f","arguments":"{\"x\": 1}"})"},
      {"response.output_item.added",
       R"("output_index":3,"item":{"id":"fc_7_3","status":"in_progress","type":"function_call",)"
       R"("call_id":"call_b","name":"g","arguments":""})"},
      {"response.function_call_arguments.delta",
       R"("output_index":3,"item_id":"fc_7_3","delta":"{}")"},
      {"response.function_call_arguments.done",
       R"("output_index":3,"item_id":"fc_7_3","name":"g","arguments":"{}")"},
      {"response.output_item.done",
       R"("output_index":3,"item":{"id":"fc_7_3","status":"completed","type":"function_call",)"
       R"("call_id":"call_b","name":"g","arguments":"{}"})"},
      {"response.completed", ""}};
  REQUIRE(events.size() == want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    CHECK(events[i].first == want[i].first);
    if (want[i].second.empty()) continue;
    CHECK(events[i].second == "{\"type\":\"" + want[i].first + "\",\"sequence_number\":" +
                                  std::to_string(i) + "," + want[i].second + "}");
  }
  for (size_t i : {size_t{0}, size_t{1}, events.size() - 1}) {
    const auto event = Json(events[i].second);
    CHECK(At(event, "/type") == events[i].first);
    CHECK(At(event, "/sequence_number") == std::to_string(i));
    CHECK(At(event, "/response/id") == "resp_7");
    CHECK(At(event, "/response/status") == (i < 2 ? "in_progress" : "completed"));
    CHECK(At(event, "/response/output") == (i < 2 ? "[]" : kItems));
  }
  CHECK(At(Json(events[0].second), "/response/usage") == "(null)");
}

// The items that the events between the first and the last add up to.
json::array Rebuilt(const std::vector<std::pair<std::string, std::string>>& events) {
  json::array output;
  for (size_t i = 0; i < events.size(); ++i) {
    const auto& [name, data] = events[i];
    const json::object event = Json(data).as_object();
    REQUIRE(event.at("type").as_string() == name.c_str());
    REQUIRE(event.at("sequence_number").as_int64() == static_cast<int64_t>(i));
    if (!event.contains("output_index")) continue;
    const size_t index = static_cast<size_t>(event.at("output_index").as_int64());
    if (name == "response.output_item.added") {
      REQUIRE(index == output.size());
      output.push_back(event.at("item"));
      continue;
    }
    REQUIRE(index + 1 == output.size());
    json::object& item = output[index].as_object();
    const auto part = [&]() -> json::object& { return item["content"].as_array()[0].as_object(); };
    if (name == "response.content_part.added") {
      item["content"].as_array().push_back(event.at("part"));
    } else if (event.contains("delta")) {
      const auto& piece = event.at("delta").as_string();
      json::value& text = item.contains("arguments") ? item["arguments"] : part()["text"];
      text.as_string().append(json::string_view(piece.data(), piece.size()));
      if (!event.contains("logprobs")) continue;
      for (const json::value& logprob : event.at("logprobs").as_array())
        part()["logprobs"].as_array().push_back(logprob);
    } else if (name == "response.content_part.done") {
      CHECK(json::serialize(part()) == json::serialize(event.at("part")));
    } else if (name == "response.output_text.done") {
      CHECK(json::serialize(part()["logprobs"]) == json::serialize(event.at("logprobs")));
      CHECK(part()["text"].as_string() == event.at("text").as_string());
    } else if (name == "response.output_item.done") {
      item["status"] = event.at("item").as_object().at("status");
      CHECK(json::serialize(item) == json::serialize(event.at("item")));
    }
  }
  return output;
}

TEST_CASE("responses: any stream adds up to its whole twin", "[gateway]") {
  Gateway gateway;
  uint32_t seed = 0;
  gateway.daemon.on_generate = [&](const v1::GenerateRequest& request) {
    GenerateScript script = testing::RandomAnswer(seed);
    for (auto& event : script.events) {
      if (!event.has_delta() || !request.output().has_logprobs()) continue;
      *event.mutable_delta()->add_logprobs() = testing::LogprobOf("\xC3", -1.5f);
    }
    return script;
  };
  for (seed = 0; seed < 120; ++seed) {
    INFO(seed);
    for (const std::string& more : {std::string(), std::string(R"(,"parallel_tool_calls":false)"),
                                    std::string(R"(,"top_logprobs":1)")}) {
      const std::string tools = kTools + more;
      const HttpReply reply = gateway.Post("/responses", Body(tools), kId);
      REQUIRE(reply.status == 200);
      const json::object whole = Json(reply.body).as_object();
      const auto events =
          gateway.Post("/responses", Body(tools + R"(,"stream":true)"), kId).named_events();
      CHECK(json::serialize(Rebuilt(events)) == json::serialize(whole.at("output")));
      json::object last = Json(events.back().second).as_object().at("response").as_object();
      CHECK(events.back().first ==
            "response." + std::string(whole.at("status").as_string().c_str()));
      last["created_at"] = whole.at("created_at");
      CHECK(json::serialize(last) == json::serialize(whole));
    }
  }
}

TEST_CASE("responses: an answer cut by length is incomplete, and so is its last item",
          "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    GenerateScript script = testing::TwoCalls(request);
    script.events.back().mutable_finished()->set_reason(v1::LENGTH);
    return script;
  };
  const auto whole = Json(gateway.Post("/responses", Body(kTools)).body);
  CHECK(At(whole, "/status") == "incomplete");
  CHECK(At(whole, "/incomplete_details") == R"({"reason":"max_output_tokens"})");
  CHECK(At(whole, "/output/2/status") == "completed");
  CHECK(At(whole, "/output/3/status") == "incomplete");
  const auto events =
      gateway.Post("/responses", Body(std::string(kTools) + R"(,"stream":true)")).named_events();
  CHECK(events.back().first == "response.incomplete");
  CHECK(At(Json(events[events.size() - 2].second), "/item/status") == "incomplete");
}

TEST_CASE("responses: logprobs are those of the text", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script = testing::AnswerScript({"a", "b"});
    for (auto& event : script.events) {
      if (event.has_delta()) *event.mutable_delta()->add_logprobs() = testing::LogprobOf("a", -1);
    }
    script.events.insert(script.events.begin() + 1, testing::ReasoningEvent("r"));
    *script.events[1].mutable_delta()->add_logprobs() = testing::LogprobOf("r", -2);
    return script;
  };
  const auto whole = Json(gateway.Post("/responses", Body(R"(,"top_logprobs":1)")).body);
  const std::string first = At(whole, "/output/1/content/0/logprobs/0");
  CHECK(first.rfind(R"({"token":"a","logprob":-1)", 0) == 0);
  CHECK(At(whole, "/output/1/content/0/logprobs/1/bytes") == "[97]");
  CHECK(At(whole, "/output/1/content/0/logprobs/2") == "(none)");
}

TEST_CASE("responses: an error before the stream is an HTTP status, one within it two events",
          "[gateway]") {
  struct Row {
    grpc::Status status;
    int http;
    std::string code;
  };
  for (const Row& row :
       {Row{testing::RetryLater(grpc::StatusCode::RESOURCE_EXHAUSTED, "m", 7), 429,
            "rate_limit_exceeded"},
        Row{{grpc::StatusCode::INTERNAL, "m"}, 500, "server_error"},
        Row{{grpc::StatusCode::DEADLINE_EXCEEDED, "m"}, 408, "server_error"},
        Row{testing::FieldViolation("chat.messages[1]", "m"), 400, "invalid_prompt"}}) {
    Gateway gateway;
    gateway.daemon.on_generate = [&](const v1::GenerateRequest&) {
      GenerateScript script;
      script.status = row.status;
      return script;
    };
    const std::string stream = Body(R"(,"stream":true)");
    const HttpReply reply = gateway.Post("/responses", stream);
    CHECK(reply.status == row.http);
    CHECK(reply.header("retry-after") == (row.http == 429 ? "7" : ""));
    const std::string message = At(Json(reply.body), "/error/message");
    CHECK(message == (row.http == 400 ? "input: m" : "m"));
    gateway.daemon.on_generate = [&](const v1::GenerateRequest&) {
      GenerateScript script;
      script.events = {testing::AcceptedEvent(3), testing::DeltaEvent("a")};
      script.status = row.status;
      return script;
    };
    const auto events = gateway.Post("/responses", stream).named_events();
    REQUIRE(events.size() > 2);
    const auto error = Json(events[events.size() - 2].second);
    CHECK(At(error, "/type") == "error");
    CHECK(At(error, "/message") == message);
    CHECK(At(error, "/sequence_number") == std::to_string(events.size() - 2));
    CHECK(events.back().first == "response.failed");
    const auto failed = Json(events.back().second);
    CHECK(At(failed, "/response/status") == "failed");
    CHECK(At(failed, "/response/error/code") == row.code);
    CHECK(At(failed, "/response/error/message") == message);
    CHECK(At(failed, "/response/output/0/status") == "incomplete");
    CHECK(At(failed, "/response/output/0/content/0/text") == "a");
  }
}

TEST_CASE("responses: a silent stream is kept open with comments", "[gateway]") {
  GatewayOptions options;
  options.keep_alive_interval = absl::Milliseconds(20);
  Gateway gateway(options);
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script = testing::AnswerScript({"a"});
    script.pause = absl::Milliseconds(200);
    return script;
  };
  const HttpReply reply = gateway.Post("/responses", Body(R"(,"stream":true)"));
  CHECK(reply.body.rfind(": keep-alive\n\n", 0) == 0);
  const auto events = reply.named_events();
  CHECK(events.front().first == "response.created");
  CHECK(events.back().first == "response.completed");
}

TEST_CASE("responses: a request cancelled by its id is cancelled", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script = testing::AnswerScript({"a"});
    script.events.back().mutable_finished()->set_reason(v1::CANCELLED);
    script.status = grpc::Status(grpc::StatusCode::CANCELLED, "by its id");
    return script;
  };
  const auto whole = Json(gateway.Post("/responses", Body()).body);
  CHECK(At(whole, "/status") == "cancelled");
  CHECK(At(whole, "/output/0/content/0/text") == "a");
  const auto events = gateway.Post("/responses", Body(R"(,"stream":true)")).named_events();
  CHECK(events.back().first == "response.incomplete");
  CHECK(At(Json(events.back().second), "/response/status") == "cancelled");
}

TEST_CASE("responses: unknown fields are named, and refused under strict_fields", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    return testing::AnswerScript({"a"});
  };
  CHECK(gateway.Post("/responses", Body(R"(,"odd":1)")).header("x-fastgen-ignored") == "odd");
  GatewayOptions options;
  options.strict_fields = true;
  Gateway strict(options);
  const HttpReply reply = strict.Post("/responses", Body(R"(,"odd":1)"));
  CHECK(reply.status == 400);
  CHECK(At(Json(reply.body), "/error/param") == "odd");
}

}  // namespace
}  // namespace fastgen::gateway
