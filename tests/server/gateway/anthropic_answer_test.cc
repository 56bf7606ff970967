// Answers and errors over POST /messages, in Anthropic's exact shapes.
#include "server/gateway/anthropic_answer.h"

#include <boost/json/parse.hpp>
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
using testing::HttpClient;
using testing::HttpReply;
using testing::Json;

constexpr char kTools[] =
    R"(,"tools":[{"name":"f","input_schema":{}},{"name":"g","input_schema":{}}])";
constexpr char kId[] = "X-Request-Id: 7\r\n";

std::string Body(const std::string& more = "") {
  return R"({"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}])" + more + "}";
}

TEST_CASE("messages: a whole answer has its blocks in the model's order", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = testing::TwoCalls;
  for (const char* path : {"/v1/messages", "/messages"}) {
    const HttpReply reply =
        gateway.Post(path, Body(kTools), std::string(kId) + "anthropic-version: 2023-06-01\r\n");
    CHECK(reply.status == 200);
    CHECK(reply.header("request-id") == "7");
    CHECK(
        reply.body ==
        R"({"id":"msg_7","type":"message","role":"assistant","model":"m","content":[)"
        R"({"type":"thinking","thinking":"Hm \"so\".","signature":""},)"
        R"({"type":"text","text":"Wait."},)"
        R"({"type":"tool_use","id":"call_a","name":"f","input":{"x": 1}},)"
        R"({"type":"tool_use","id":"call_b","name":"g","input":{}}],)"
        R"("stop_reason":"tool_use","stop_sequence":null,)"
        R"("usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,)"
        R"("output_tokens":9,"output_tokens_details":{"thinking_tokens":4}}})");
  }
}

TEST_CASE("messages: a stream has its named events in order", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = testing::TwoCalls;
  const HttpReply reply =
      gateway.Post("/v1/messages", Body(std::string(kTools) + R"(,"stream":true)"), kId);
  CHECK(reply.header("content-type") == "text/event-stream; charset=utf-8");
  CHECK(reply.header("request-id") == "7");
  const std::vector<std::pair<std::string, std::string>> want = {
      {"message_start",
       R"({"type":"message_start","message":{"id":"msg_7","type":"message","role":"assistant",)"
       R"("model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":)"
       R"({"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,)"
       R"("output_tokens":0}}})"},
      {"content_block_start", R"({"type":"content_block_start","index":0,"content_block":)"
                              R"({"type":"thinking","thinking":"","signature":""}})"},
      {"content_block_delta",
       R"({"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}})"},
      {"content_block_delta", R"({"type":"content_block_delta","index":0,"delta":)"
                              R"({"type":"thinking_delta","thinking":" \"so\"."}})"},
      {"content_block_stop", R"({"type":"content_block_stop","index":0})"},
      {"content_block_start",
       R"({"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}})"},
      {"content_block_delta",
       R"({"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Wait."}})"},
      {"content_block_stop", R"({"type":"content_block_stop","index":1})"},
      {"content_block_start", R"({"type":"content_block_start","index":2,"content_block":)"
                              R"({"type":"tool_use","id":"call_a","name":"f","input":{}}})"},
      {"content_block_delta", R"({"type":"content_block_delta","index":2,"delta":)"
                              R"({"type":"input_json_delta","partial_json":"{\"x\""}})"},
      {"content_block_delta", R"({"type":"content_block_delta","index":2,"delta":)"
                              R"({"type":"input_json_delta","partial_json":": 1}"}})"},
      {"content_block_stop", R"({"type":"content_block_stop","index":2})"},
      {"content_block_start", R"({"type":"content_block_start","index":3,"content_block":)"
                              R"({"type":"tool_use","id":"call_b","name":"g","input":{}}})"},
      {"content_block_delta", R"({"type":"content_block_delta","index":3,"delta":)"
                              R"({"type":"input_json_delta","partial_json":"{}"}})"},
      {"content_block_stop", R"({"type":"content_block_stop","index":3})"},
      {"message_delta",
       R"({"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":)"
       R"({"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,)"
       R"("output_tokens":9,"output_tokens_details":{"thinking_tokens":4}}})"},
      {"message_stop", R"({"type":"message_stop"})"}};
  const auto events = reply.named_events();
  REQUIRE(events.size() == want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    CHECK(events[i].first == want[i].first);
    CHECK(events[i].second == want[i].second);
  }
}

// What a client makes of a stream; an empty object's text for a call whose JSON is cut.
std::string Rebuilt(const HttpReply& reply) {
  json::object message;
  std::vector<std::string> inputs;
  for (const auto& [name, data] : reply.named_events()) {
    const json::object event = Json(data).as_object();
    REQUIRE(event.at("type").as_string() == name.c_str());
    if (name == "message_start") {
      message = event.at("message").as_object();
    } else if (name == "content_block_start") {
      json::array& content = message["content"].as_array();
      REQUIRE(event.at("index").as_int64() == static_cast<int64_t>(content.size()));
      content.push_back(event.at("content_block"));
      inputs.emplace_back();
    } else if (name == "content_block_delta") {
      const size_t index = static_cast<size_t>(event.at("index").as_int64());
      REQUIRE(index + 1 == inputs.size());
      json::object& block = message["content"].as_array()[index].as_object();
      const json::object& delta = event.at("delta").as_object();
      for (const char* member : {"text", "thinking"}) {
        if (!delta.contains(member)) continue;
        const auto& piece = delta.at(member).as_string();
        block[member].as_string().append(json::string_view(piece.data(), piece.size()));
      }
      if (delta.contains("partial_json"))
        inputs[index] += delta.at("partial_json").as_string().c_str();
    } else if (name == "message_delta") {
      for (const auto& member : event.at("delta").as_object())
        message[member.key()] = member.value();
      message["usage"] = event.at("usage");
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const json::value input = Json(inputs[i]);
    if (input.is_object()) message["content"].as_array()[i].as_object()["input"] = input;
  }
  return json::serialize(message);
}

TEST_CASE("messages: any stream adds up to its whole twin", "[gateway]") {
  Gateway gateway;
  uint32_t seed = 0;
  gateway.daemon.on_generate = [&](const v1::GenerateRequest&) {
    return testing::RandomAnswer(seed);
  };
  for (seed = 0; seed < 120; ++seed) {
    INFO(seed);
    for (const std::string& more :
         {std::string(),
          std::string(R"(,"tool_choice":{"type":"auto","disable_parallel_tool_use":true})"),
          std::string(R"(,"thinking":{"type":"adaptive","display":"omitted"})")}) {
      const std::string tools = kTools + more;
      const HttpReply whole = gateway.Post("/messages", Body(tools), kId);
      const HttpReply stream = gateway.Post("/messages", Body(tools + R"(,"stream":true)"), kId);
      REQUIRE(whole.status == 200);
      CHECK(Rebuilt(stream) == json::serialize(Json(whole.body)));
    }
  }
}

TEST_CASE("messages: why an answer ended", "[gateway]") {
  struct Row {
    v1::FinishReason reason;
    std::string matched;
    std::string stop_reason;
    std::string stop_sequence;
  };
  for (const Row& row :
       {Row{v1::STOP, "", "end_turn", "(null)"}, Row{v1::STOP, "END", "stop_sequence", "END"},
        Row{v1::LENGTH, "", "max_tokens", "(null)"}}) {
    Gateway gateway;
    gateway.daemon.on_generate = [&](const v1::GenerateRequest&) {
      GenerateScript script = testing::AnswerScript({"a"});
      v1::Finished* finished = script.events.back().mutable_finished();
      finished->set_reason(row.reason);
      if (!row.matched.empty()) finished->set_matched_stop(row.matched);
      return script;
    };
    const auto whole = Json(gateway.Post("/messages", Body()).body);
    CHECK(At(whole, "/stop_reason") == row.stop_reason);
    CHECK(At(whole, "/stop_sequence") == row.stop_sequence);
    const auto events = gateway.Post("/messages", Body(R"(,"stream":true)")).named_events();
    REQUIRE(events.size() > 2);
    const auto last = Json(events[events.size() - 2].second);
    CHECK(At(last, "/delta/stop_reason") == row.stop_reason);
    CHECK(At(last, "/delta/stop_sequence") == row.stop_sequence);
  }
}

TEST_CASE("messages: a call that was cut has an empty input in a whole answer", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(5), testing::CallEvent(0, "c", "f", "{\"x\": \"un"),
                     testing::FinishedEvent(v1::LENGTH, 5, 9)};
    return script;
  };
  const auto whole = Json(gateway.Post("/messages", Body(kTools)).body);
  CHECK(At(whole, "/content/0") == R"({"type":"tool_use","id":"c","name":"f","input":{}})");
  CHECK(At(whole, "/stop_reason") == "max_tokens");
}

TEST_CASE("messages: every error is in Anthropic's shape", "[gateway]") {
  struct Row {
    grpc::Status status;
    int http;
    std::string type;
  };
  for (const Row& row : {
           Row{{grpc::StatusCode::INVALID_ARGUMENT, "m"}, 400, "invalid_request_error"},
           Row{{grpc::StatusCode::UNAUTHENTICATED, "m"}, 401, "authentication_error"},
           Row{{grpc::StatusCode::PERMISSION_DENIED, "m"}, 403, "permission_error"},
           Row{{grpc::StatusCode::NOT_FOUND, "m"}, 404, "not_found_error"},
           Row{{grpc::StatusCode::DEADLINE_EXCEEDED, "m"}, 408, "timeout_error"},
           Row{testing::RetryLater(grpc::StatusCode::RESOURCE_EXHAUSTED, "m", 7), 429,
               "rate_limit_error"},
           Row{{grpc::StatusCode::INTERNAL, "m"}, 500, "api_error"},
           Row{{grpc::StatusCode::UNIMPLEMENTED, "m"}, 501, "api_error"},
           Row{testing::RetryLater(grpc::StatusCode::UNAVAILABLE, "m", 3), 503, "overloaded_error"},
       }) {
    Gateway gateway;
    gateway.daemon.on_generate = [&](const v1::GenerateRequest&) {
      GenerateScript script;
      script.status = row.status;
      return script;
    };
    const HttpReply reply = gateway.Post("/messages", Body(), kId);
    CHECK(reply.status == row.http);
    CHECK(reply.body == R"({"type":"error","error":{"type":")" + row.type +
                            R"(","message":"m"},"request_id":"7"})");
    CHECK(reply.header("request-id") == "7");
    CHECK(reply.header("retry-after") == (row.http == 429 ? "7" : row.http == 503 ? "3" : ""));
    // The same within a stream that has begun.
    gateway.daemon.on_generate = [&](const v1::GenerateRequest&) {
      GenerateScript script;
      script.events = {testing::AcceptedEvent(3), testing::DeltaEvent("a")};
      script.status = row.status;
      return script;
    };
    const auto events = gateway.Post("/messages", Body(R"(,"stream":true)"), kId).named_events();
    REQUIRE(events.size() == 4);
    CHECK(events[0].first == "message_start");
    CHECK(events[3].first == "error");
    CHECK(events[3].second == reply.body);
  }
}

TEST_CASE("messages: what the router and the connection refuse has that shape too", "[gateway]") {
  GatewayOptions options;
  options.max_body_bytes = 1000;
  options.strict_fields = true;
  Gateway gateway(options);
  const auto type_of = [](const HttpReply& reply) { return At(Json(reply.body), "/error/type"); };
  for (const char* path : {"/v1/messages", "/messages", "/v1/messages/count_tokens"}) {
    INFO(path);
    HttpReply reply = gateway.Get(path);
    CHECK(reply.status == 405);
    CHECK(reply.header("allow") == "POST, OPTIONS");
    CHECK(At(Json(reply.body), "/type") == "error");
    CHECK(type_of(reply) == "invalid_request_error");
    reply = gateway.Post(path, std::string(1001, ' '));
    CHECK(reply.status == 413);
    CHECK(type_of(reply) == "request_too_large");
    HttpClient client(gateway.address());
    client.Send("POST " + std::string(path) +
                " HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}");
    reply = client.Read();
    CHECK(reply.status == 415);
    CHECK(type_of(reply) == "invalid_request_error");
    reply = gateway.Post(path, Body(R"(,"odd":1)"));
    CHECK(reply.status == 400);
    CHECK(At(Json(reply.body), "/error/message").find("odd is not a field") == 0);
    // Refused before it had an id: it gets one, the same in the body and both headers.
    const std::string id = At(Json(reply.body), "/request_id");
    CHECK(id.size() > 20);
    CHECK(reply.header("request-id") == id);
    CHECK(reply.header("x-request-id") == id);
  }
  HttpReply reply = gateway.Get("/v1/messages/batches");
  CHECK(reply.status == 404);
  CHECK(type_of(reply) == "not_found_error");
  CHECK(At(Json(gateway.Get("/v1/messagesx").body), "/type") == "(none)");
}

TEST_CASE("messages: an unknown model is Anthropic's not_found_error under strict_model",
          "[gateway]") {
  GatewayOptions options;
  options.strict_model = true;
  Gateway gateway(options);
  HttpReply reply = gateway.Post("/messages", Body(), kId);
  CHECK(reply.status == 404);
  CHECK(At(Json(reply.body), "/error/type") == "not_found_error");
  CHECK(At(Json(reply.body), "/request_id") == "7");
  gateway.daemon.unary_status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "loading");
  Gateway loading(options);
  loading.daemon.unary_status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "loading");
  reply = loading.Post("/messages", Body(), kId);
  CHECK(reply.status == 503);
  CHECK(At(Json(reply.body), "/error/type") == "overloaded_error");
}

TEST_CASE("messages: the daemon's field violations are told in Anthropic's names", "[gateway]") {
  struct Row {
    std::string field;
    std::string name;
  };
  for (const Row& row :
       {Row{"stopping.stop[2]", "stop_sequences"}, Row{"chat.messages[3].role", "messages"},
        Row{"prompt", "messages"}, Row{"output.tool_calls", "tools"},
        Row{"stopping.max_tokens", "max_tokens"}}) {
    Gateway gateway;
    gateway.daemon.on_generate = [&](const v1::GenerateRequest&) {
      GenerateScript script;
      script.status = testing::FieldViolation(row.field, "is wrong");
      return script;
    };
    CHECK(At(Json(gateway.Post("/messages", Body()).body), "/error/message") ==
          row.name + ": is wrong");
  }
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.status = testing::FieldViolation("constraint", "is wrong");
    return script;
  };
  const std::string format =
      R"(,"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}})";
  CHECK(At(Json(gateway.Post("/messages", Body(format)).body), "/error/message") ==
        "output_config.format: is wrong");
  const std::string forced = std::string(kTools) + R"(,"tool_choice":{"type":"any"})";
  CHECK(At(Json(gateway.Post("/messages", Body(forced)).body), "/error/message") ==
        "tool_choice: is wrong");
}

TEST_CASE("messages: a silent stream is kept open, with ping once it has begun", "[gateway]") {
  GatewayOptions options;
  options.keep_alive_interval = absl::Milliseconds(20);
  Gateway gateway(options);
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script = testing::AnswerScript({"a"});
    script.pause = absl::Milliseconds(200);
    return script;
  };
  const HttpReply reply = gateway.Post("/messages", Body(R"(,"stream":true)"));
  CHECK(reply.body.rfind(": keep-alive\n\n", 0) == 0);
  const size_t start = reply.body.find("event: message_start");
  CHECK(reply.body.find("event: ping\ndata: {\"type\":\"ping\"}\n\n") > start);
  CHECK(reply.body.rfind(": keep-alive") < start);
}

TEST_CASE("messages: a request cancelled by its id ends without a reason", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script = testing::AnswerScript({"a"});
    script.events.back().mutable_finished()->set_reason(v1::CANCELLED);
    script.status = grpc::Status(grpc::StatusCode::CANCELLED, "by its id");
    return script;
  };
  const auto whole = Json(gateway.Post("/messages", Body()).body);
  CHECK(At(whole, "/content/0/text") == "a");
  CHECK(At(whole, "/stop_reason") == "(null)");
  const auto events = gateway.Post("/messages", Body(R"(,"stream":true)")).named_events();
  CHECK(events.back().first == "message_stop");
}

TEST_CASE("messages: the key travels as metadata", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    return testing::AnswerScript({"a"});
  };
  gateway.Post("/messages", Body(), "x-api-key: secret\r\nanthropic-beta: x\r\n");
  const auto metadata = gateway.daemon.last_metadata();
  const auto key = metadata.find("x-api-key");
  REQUIRE(key != metadata.end());
  CHECK(key->second == "secret");
}

}  // namespace
}  // namespace fastgen::gateway
