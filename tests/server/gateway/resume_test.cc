// Streams that are taken up again: X-Fastgen-Resume-Window, event ids, GET /streams/{id}.
#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "server/gateway/resumable_streams.h"
#include "server/gateway/stream_position.h"
#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Gateway;
using testing::GenerateScript;
using testing::HttpClient;
using testing::HttpReply;
using testing::Json;

constexpr char kWindow[] = "X-Fastgen-Resume-Window: 30\r\nX-Request-Id: r1\r\n";
constexpr char kChat[] = R"({"messages":[{"role":"user","content":"hi"}],"stream":true)";

v1::GenerateEvent TextEvent(const std::string& text, int num_tokens, int index = 0) {
  v1::GenerateEvent event = testing::DeltaEvent(text, {1}, index);
  event.mutable_delta()->set_num_tokens(num_tokens);
  return event;
}

// Scores of the prompt, deltas of several tokens and of none, one that shows nothing, two choices
// when asked.
std::vector<v1::GenerateEvent> Events(int num_choices) {
  std::vector<v1::GenerateEvent> events = {testing::AcceptedEvent(5, 2)};
  for (int i = 0; i < num_choices; ++i) {
    v1::GenerateEvent scores = TextEvent("prompt ", 0, i);
    *scores.mutable_delta()->add_prompt_logprobs() = testing::LogprobOf("prompt ", -1);
    events.push_back(scores);
  }
  for (int i = 0; i < num_choices; ++i) {
    v1::GenerateEvent scored = TextEvent("a", 1, i);
    *scored.mutable_delta()->add_logprobs() = testing::LogprobOf("a", -1);
    events.push_back(scored);
  }
  for (int i = 0; i < num_choices; ++i) {
    events.push_back(TextEvent("", 2, i));
    events.push_back(TextEvent("bcd", 3, i));
    events.push_back(TextEvent("e", 0, i));
    events.push_back(TextEvent("f", 0, i));
    events.push_back(testing::FinishedEvent(v1::STOP, 5, 6, i));
  }
  return events;
}

// As the daemon does: everything from the position on, and accepted before it.
GenerateScript From(const std::vector<v1::GenerateEvent>& events, int from_token) {
  GenerateScript script;
  script.events.push_back(events[0]);
  script.events[0].mutable_accepted()->set_from_token(from_token);
  int position = 0;
  for (size_t i = 1; i < events.size(); ++i) {
    if (position >= from_token) script.events.push_back(events[i]);
    if (events[i].has_delta()) position += events[i].delta().num_tokens();
  }
  return script;
}

struct SseEvent {
  std::string id;
  std::string data;
};

std::vector<SseEvent> SseEvents(const std::string& body) {
  std::vector<SseEvent> events;
  for (size_t start = 0; start < body.size();) {
    const size_t end = body.find("\n\n", start);
    REQUIRE(end != std::string::npos);
    std::string event = body.substr(start, end - start);
    SseEvent parsed;
    if (event.rfind("id: ", 0) == 0) {
      parsed.id = event.substr(4, event.find('\n') - 4);
      event.erase(0, event.find('\n') + 1);
    }
    REQUIRE(event.rfind("data: ", 0) == 0);
    parsed.data = event.substr(6);
    events.push_back(parsed);
    start = end + 2;
  }
  return events;
}

TEST_CASE("a stream goes on after any of its events as if nothing had happened", "[gateway]") {
  struct Row {
    std::string path;
    std::string body;
    int num_choices;
  };
  const Row row = GENERATE(values<Row>({
      {"/v1/chat/completions", std::string(kChat) + "}", 1},
      {"/v1/chat/completions",
       std::string(kChat) +
           R"(,"logprobs":true,"return_token_ids":true,"stream_options":{"include_usage":true,)"
           R"("continuous_usage_stats":true}})",
       1},
      {"/v1/chat/completions",
       std::string(kChat) + R"(,"n":2,"stream_options":{"include_usage":true}})", 2},
      {"/v1/completions",
       R"({"prompt":"x","stream":true,"echo":true,"logprobs":1,)"
       R"("stream_options":{"include_usage":true}})",
       1},
      {"/v1/completions", R"({"prompt":"x","stream":true,"echo":true,"logprobs":1,"n":2})", 2},
  }));
  INFO(row.path << " " << row.body);
  Gateway gateway;
  const auto all = Events(row.num_choices);
  gateway.daemon.on_generate = [&](const v1::GenerateRequest& request) {
    GenerateScript script;
    script.events = all;
    return script;
  };
  gateway.daemon.on_attach = [&](const v1::AttachRequest& request) {
    return From(all, request.from_token());
  };
  const HttpReply whole = gateway.Post(row.path, row.body, kWindow);
  REQUIRE(whole.status == 200);
  CHECK(gateway.daemon.requests()[0].resume_window().seconds() == 30);
  const auto events = SseEvents(whole.body);
  REQUIRE(events.size() >= 6);
  CHECK(events.back().id.empty());
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    INFO("after " << events[i].id << " " << events[i].data);
    HttpClient client(gateway.address());
    client.Send("GET /v1/streams/r1 HTTP/1.1\r\nHost: x\r\nLast-Event-ID: " + events[i].id +
                "\r\n\r\n");
    const HttpReply rest = client.Read();
    REQUIRE(rest.status == 200);
    CHECK(rest.header("x-request-id") == "r1");
    const auto got = SseEvents(rest.body);
    REQUIRE(got.size() == events.size() - i - 1);
    for (size_t k = 0; k < got.size(); ++k) {
      CHECK(got[k].data == events[i + 1 + k].data);
      CHECK(got[k].id == events[i + 1 + k].id);
    }
  }
  // Without an id: from the start.
  const HttpReply again = gateway.Get("/streams/r1");
  CHECK(again.body == whole.body);
}

TEST_CASE("a whole answer can be fetched after its connection broke", "[gateway]") {
  Gateway gateway;
  const auto all = Events(1);
  gateway.daemon.on_generate = [&](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = all;
    return script;
  };
  gateway.daemon.on_attach = [&](const v1::AttachRequest& request) {
    CHECK(request.request_id() == "r1");
    return From(all, request.from_token());
  };
  const auto first =
      gateway.Post("/v1/completions", R"({"prompt":"x","echo":true,"logprobs":1})", kWindow);
  REQUIRE(first.status == 200);
  const auto second = gateway.Get("/v1/streams/r1");
  CHECK(second.status == 200);
  CHECK(second.header("content-type") == "application/json");
  CHECK(second.body == first.body);
}

TEST_CASE("streams have no ids, and are not kept, without a window", "[gateway]") {
  Gateway gateway;
  const auto reply =
      gateway.Post("/v1/chat/completions", std::string(kChat) + "}", "X-Request-Id: r1\r\n");
  CHECK(reply.body.find("id: ") == std::string::npos);
  CHECK(gateway.Get("/v1/streams/r1").status == 404);
}

TEST_CASE("what cannot be taken up is refused by name", "[gateway]") {
  Gateway gateway;
  const auto get = [&](const std::string& path, const std::string& id) {
    HttpClient client(gateway.address());
    client.Send("GET " + path + " HTTP/1.1\r\nHost: x\r\n" +
                (id.empty() ? "" : "Last-Event-ID: " + id + "\r\n") + "\r\n");
    const HttpReply reply = client.Read();
    return std::to_string(reply.status) + " " + At(Json(reply.body), "/error/param") + " " +
           At(Json(reply.body), "/error/code");
  };
  CHECK(get("/v1/streams/never", "") == "404 request_id stream_not_found");
  REQUIRE(gateway.Post("/v1/chat/completions", std::string(kChat) + "}", kWindow).status == 200);
  // The daemon has forgotten it.
  CHECK(get("/v1/streams/r1", "") == "404 (null) stream_not_found");
  for (const char* id : {"x", "1", "1.0.0", "1.0.0.0.0", "-1.0.0.0", "99999999999.0.0.0", "1..0.0",
                         "1.0.0.0x", "+1.0.0.0"}) {
    INFO(id);
    CHECK(get("/v1/streams/r1", id) == "400 Last-Event-ID invalid_value");
  }
  gateway.daemon.on_attach = [](const v1::AttachRequest& request) {
    // Within a delta: the daemon goes back to its beginning.
    GenerateScript script;
    script.events = {testing::AcceptedEvent(5)};
    script.events[0].mutable_accepted()->set_from_token(request.from_token() - 1);
    script.hold_open = true;
    return script;
  };
  CHECK(get("/v1/streams/r1", "3.0.0.0") == "400 Last-Event-ID invalid_value");
  gateway.daemon.on_attach = [](const v1::AttachRequest&) {
    GenerateScript script;
    script.status = grpc::Status(grpc::StatusCode::OUT_OF_RANGE, "from_token 3 is gone");
    return script;
  };
  CHECK(get("/v1/streams/r1", "3.0.0.0") == "400 (null) out_of_range");
  CHECK(gateway.Post("/v1/streams/r1", "{}").status == 405);
  const auto two = gateway.Post("/v1/completions", R"({"prompt":["a","b"]})", kWindow);
  CHECK(two.status == 400);
  CHECK(At(Json(two.body), "/error/param") == "X-Fastgen-Resume-Window");
  const auto post =
      gateway.Post("/v1/chat/completions", std::string(kChat) + "}", "Last-Event-ID: 1.0.0.0\r\n");
  CHECK(post.status == 400);
  // Ids of a stream of several choices stay at its start.
  REQUIRE(gateway
              .Post("/v1/chat/completions", std::string(kChat) + R"(,"n":2})",
                    "X-Fastgen-Resume-Window: 9\r\nX-Request-Id: r2\r\n")
              .status == 200);
  CHECK(get("/v1/streams/r2", "3.0.0.0") == "400 Last-Event-ID invalid_value");
}

TEST_CASE("a request that reuses an id does not change how the first one is written", "[gateway]") {
  ResumableStreams streams;
  ResumableStream first, second;
  first.options.model = "first";
  second.options.model = "second";
  streams.Add("a", first);
  streams.Add("a", second);
  CHECK(streams.Find("a")->options.model == "first");
  streams.Set("a", second);
  CHECK(streams.Find("a")->options.model == "second");
}

TEST_CASE("the table of streams is bounded, the oldest goes first", "[gateway]") {
  ResumableStreams streams;
  for (size_t i = 0; i <= ResumableStreams::kMaxStreams; ++i) {
    streams.Add(std::to_string(i), {});
  }
  CHECK_FALSE(streams.Find("0").has_value());
  CHECK(streams.Find("1").has_value());
  CHECK(streams.Find(std::to_string(ResumableStreams::kMaxStreams)).has_value());
}

TEST_CASE("a position is what its text says", "[gateway]") {
  const StreamPosition position = {12, 3, 4, 50};
  CHECK(position.ToString() == "12.3.4.50");
  const auto parsed = StreamPosition::Parse("12.3.4.50");
  REQUIRE(parsed.has_value());
  CHECK((parsed->tokens == 12 && parsed->passed == 3 && parsed->sent == 4 && parsed->offset == 50));
}

}  // namespace
}  // namespace fastgen::gateway
