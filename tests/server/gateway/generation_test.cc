// What happens to an answer when the daemon fails, the client leaves or reads slowly.
#include <catch2/catch.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Gateway;
using testing::GenerateScript;
using testing::HttpClient;
using testing::HttpReply;
using testing::Json;

constexpr char kPrompt[] = R"({"prompt":"x"})";
constexpr char kStream[] = R"({"prompt":"x","stream":true})";

GenerateScript Endless(absl::Duration pause = absl::Milliseconds(1)) {
  GenerateScript script;
  script.events = {testing::AcceptedEvent(1), testing::DeltaEvent("a")};
  script.repeat_last = true;
  script.pause = pause;
  return script;
}

TEST_CASE("an error before the first event is an HTTP status", "[gateway]") {
  Gateway gateway;
  struct Row {
    grpc::StatusCode code;
    int status;
    std::string type;
  };
  const Row row = GENERATE(values<Row>({
      {grpc::StatusCode::INVALID_ARGUMENT, 400, "invalid_request_error"},
      {grpc::StatusCode::OUT_OF_RANGE, 400, "invalid_request_error"},
      {grpc::StatusCode::FAILED_PRECONDITION, 400, "invalid_request_error"},
      {grpc::StatusCode::ALREADY_EXISTS, 400, "invalid_request_error"},
      {grpc::StatusCode::UNAUTHENTICATED, 401, "authentication_error"},
      {grpc::StatusCode::PERMISSION_DENIED, 403, "permission_error"},
      {grpc::StatusCode::NOT_FOUND, 404, "not_found_error"},
      {grpc::StatusCode::DEADLINE_EXCEEDED, 408, "timeout_error"},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, 429, "rate_limit_error"},
      {grpc::StatusCode::UNIMPLEMENTED, 501, "not_supported_error"},
      {grpc::StatusCode::UNAVAILABLE, 503, "unavailable_error"},
      {grpc::StatusCode::INTERNAL, 500, "server_error"},
      {grpc::StatusCode::OK, 500, "server_error"},  // no answer and no error: the daemon's mistake
  }));
  gateway.daemon.on_generate = [&row](const v1::GenerateRequest&) {
    GenerateScript script;
    script.status = grpc::Status(row.code, "why");
    return script;
  };
  for (const char* body : {kPrompt, kStream}) {
    const HttpReply reply = gateway.Post("/v1/completions", body);
    CHECK(reply.status == row.status);
    CHECK(At(Json(reply.body), "/error/type") == row.type);
    CHECK(At(Json(reply.body), "/error/code") != "(null)");
    if (row.code != grpc::StatusCode::OK) CHECK(At(Json(reply.body), "/error/message") == "why");
    CHECK(reply.header("retry-after").empty() == (row.status != 429 && row.status != 503));
    CHECK_FALSE(reply.header("x-request-id").empty());
  }
}

TEST_CASE("the daemon's field violation and retry time reach the client", "[gateway]") {
  Gateway gateway;
  grpc::Status status = testing::FieldViolation("output.logprobs", "is 99; the limit is 20");
  gateway.daemon.on_generate = [&status](const v1::GenerateRequest&) {
    GenerateScript script;
    script.status = status;
    return script;
  };
  const std::string chat =
      R"({"messages":[{"role":"user","content":"x"}],"max_completion_tokens":4})";
  CHECK(At(Json(gateway.Post("/chat/completions", chat).body), "/error/param") == "top_logprobs");
  const auto refused = Json(gateway.Post("/completions", kPrompt).body);
  CHECK(At(refused, "/error/param") == "logprobs");
  CHECK(At(refused, "/error/message") == "logprobs: is 99; the limit is 20");
  status = testing::FieldViolation("stopping.max_tokens", "too long");
  CHECK(At(Json(gateway.Post("/chat/completions", chat).body), "/error/param") ==
        "max_completion_tokens");
  status = testing::RetryLater(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue full", 7);
  CHECK(gateway.Post("/completions", kPrompt).header("retry-after") == "7");
}

TEST_CASE("an error after the first event is an event, then the end", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(1), testing::DeltaEvent("a")};
    script.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "device lost");
    return script;
  };
  const HttpReply reply = gateway.Post("/v1/completions", kStream);
  CHECK(reply.status == 200);
  const auto events = reply.events();
  REQUIRE(events.size() == 3);
  CHECK(At(Json(events[1]), "/error/message") == "device lost");
  CHECK(events[2] == "[DONE]");
  CHECK(gateway.Post("/v1/completions", kPrompt).status == 503);
}

TEST_CASE("a choice that fails beside one that does not is part of the answer", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(1), testing::DeltaEvent("a", {}, 0),
                     testing::FinishedEvent(v1::DEADLINE, 1, 1, 0),
                     testing::DeltaEvent("b", {}, 1), testing::FinishedEvent(v1::STOP, 1, 1, 1)};
    return script;
  };
  const auto whole = Json(gateway.Post("/v1/completions", R"({"prompt":"x","n":2})").body);
  CHECK(At(whole, "/choices/0/finish_reason") == "abort");
  CHECK(At(whole, "/choices/0/text") == "a");
  CHECK(At(whole, "/choices/1/finish_reason") == "stop");
  const auto events = gateway.Post("/v1/completions", R"({"prompt":"x","n":2,"stream":true})").events();
  REQUIRE(events.size() == 5);
  CHECK(At(Json(events[2]), "/choices/0/finish_reason") == "stop");
  CHECK(At(Json(events[3]), "/choices/0/finish_reason") == "abort");
  CHECK(At(Json(events[3]), "/choices/0/index") == "0");
  CHECK(events[4] == "[DONE]");
}

TEST_CASE("a deadline of all choices is a timeout, before and after the first event", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(1), testing::DeltaEvent("a"),
                     testing::FinishedEvent(v1::DEADLINE, 1, 1)};
    script.status = grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "too late");
    return script;
  };
  const HttpReply whole = gateway.Post("/v1/completions", kPrompt);
  CHECK(whole.status == 408);
  CHECK(At(Json(whole.body), "/error/type") == "timeout_error");
  const auto events = gateway.Post("/v1/completions", kStream).events();
  REQUIRE(events.size() == 3);
  CHECK(At(Json(events[1]), "/error/code") == "deadline_exceeded");
}

TEST_CASE("the scores of a prompt may come in several deltas", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events.push_back(testing::AcceptedEvent(600));
    for (int done = 0; done < 600; done += 256) {
      v1::GenerateEvent event;
      for (int i = done; i < std::min(600, done + 256); ++i) {
        auto* score = event.mutable_delta()->add_prompt_logprobs();
        score->set_bytes("w");
        score->set_rank(i == 0 ? 0 : 1);
        event.mutable_delta()->mutable_text()->append("w");
      }
      script.events.push_back(event);
    }
    script.events.push_back(testing::FinishedEvent(v1::LENGTH, 600, 0));
    return script;
  };
  const auto json = Json(gateway.Post(
      "/v1/completions", R"({"prompt":"x","echo":true,"logprobs":0,"max_tokens":0})").body);
  CHECK(At(json, "/choices/0/logprobs/token_logprobs/0") == "(null)");
  CHECK(At(json, "/choices/0/logprobs/tokens/599") == "w");
  CHECK(At(json, "/choices/0/logprobs/tokens/600") == "(none)");
  CHECK(At(json, "/choices/0/logprobs/text_offset/599") == "599");
  CHECK(At(json, "/choices/0/text").size() == 600);
  const auto events = gateway.Post(
      "/v1/completions",
      R"({"prompt":"x","echo":true,"logprobs":0,"max_tokens":0,"stream":true})").events();
  REQUIRE(events.size() == 5);
  CHECK(At(Json(events[2]), "/choices/0/logprobs/text_offset/87") == "599");
}

TEST_CASE("a request cancelled by its id ends with what it had", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(1), testing::DeltaEvent("a"),
                     testing::FinishedEvent(v1::CANCELLED, 1, 1)};
    script.status = grpc::Status::CANCELLED;
    return script;
  };
  const HttpReply whole = gateway.Post("/v1/completions", kPrompt);
  CHECK(whole.status == 200);
  CHECK(At(Json(whole.body), "/choices/0/finish_reason") == "abort");
  CHECK(At(Json(whole.body), "/choices/0/text") == "a");
  const auto events = gateway.Post("/v1/completions", kStream).events();
  REQUIRE(events.size() == 3);
  CHECK(At(Json(events[1]), "/choices/0/finish_reason") == "abort");
}

TEST_CASE("cancelling one prompt's call ends the request's other prompts", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(1), testing::DeltaEvent(request.text())};
    if (request.text() == "a") {
      script.pause = absl::Milliseconds(50);  // after the other's delta
      script.events.push_back(testing::FinishedEvent(v1::CANCELLED, 1, 1));
      script.status = grpc::Status::CANCELLED;
    } else {
      script.hold_open = true;
    }
    return script;
  };
  const HttpReply whole = gateway.Post("/v1/completions", R"({"prompt":["a","b"]})");
  CHECK(whole.status == 200);
  CHECK(At(Json(whole.body), "/choices/0/finish_reason") == "abort");
  CHECK(At(Json(whole.body), "/choices/1/finish_reason") == "abort");
  CHECK(At(Json(whole.body), "/choices/1/text") == "b");
  const auto events =
      gateway.Post("/v1/completions", R"({"prompt":["a","b"],"stream":true})").events();
  REQUIRE(events.size() == 5);
  CHECK(At(Json(events[3]), "/choices/0/index") == "1");
  CHECK(At(Json(events[3]), "/choices/0/finish_reason") == "abort");
  CHECK(events[4] == "[DONE]");
  CHECK(gateway.daemon.WaitForCancelled(2, absl::Seconds(5)));
}

TEST_CASE("a client that leaves mid-stream cancels its call", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) { return Endless(); };
  HttpClient client(gateway.address());
  client.Send(HttpClient::PostText("/v1/completions", kStream));
  REQUIRE(client.ReadUntil("data: "));
  client.Close();
  CHECK(gateway.daemon.WaitForCancelled(1, absl::Seconds(5)));
}

TEST_CASE("a client that leaves while nothing is written cancels its call", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(1)};
    script.hold_open = true;
    return script;
  };
  const std::string body =
      GENERATE(as<std::string>(), kPrompt, kStream, R"({"prompt":["a","b","c"]})");
  const int num_calls = body == kPrompt || body == kStream ? 1 : 3;
  HttpClient client(gateway.address());
  client.Send(HttpClient::PostText("/v1/completions", body));
  while (gateway.daemon.num_live() < num_calls) std::this_thread::yield();
  client.Close();
  CHECK(gateway.daemon.WaitForCancelled(num_calls, absl::Seconds(5)));
}

TEST_CASE("a client that leaves early does not disturb a pipelined neighbour's bytes",
          "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  client.Send(HttpClient::PostText("/v1/completions", kStream) +
              HttpClient::PostText("/v1/completions", kPrompt) +
              "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(client.Read().events().size() == 4);
  CHECK(At(Json(client.Read().body), "/choices/0/text") == "Hello world");
  CHECK(client.Read().body == R"({"status":"ok"})");
}

TEST_CASE("a slow reader slows its own call and no other", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    if (request.text() != "slow") return testing::AnswerScript({"b"});
    GenerateScript script = Endless(absl::ZeroDuration());
    script.events[1] = testing::DeltaEvent(std::string(4096, 'a'));
    return script;
  };
  HttpClient slow(gateway.address(), 4096);
  slow.Send(HttpClient::PostText("/v1/completions", R"({"prompt":"slow","stream":true})"));
  REQUIRE(slow.ReadUntil("data: "));
  // The daemon's writes stop once the socket, the gateway and gRPC hold all they may.
  int64_t before = -1;
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (before != gateway.daemon.num_events_written() && absl::Now() < deadline) {
    before = gateway.daemon.num_events_written();
    absl::SleepFor(absl::Milliseconds(200));
  }
  CHECK(before == gateway.daemon.num_events_written());
  CHECK(before * 4096 < 32 << 20);
  CHECK(gateway.Post("/v1/completions", kPrompt).status == 200);
  // Reading again sets it going again.
  REQUIRE(slow.ReadUntil(std::string(1, 'z'), absl::Milliseconds(300)) == false);
  CHECK(gateway.daemon.num_events_written() > before);
  slow.Close();
  CHECK(gateway.daemon.WaitForCancelled(1, absl::Seconds(5)));
}

TEST_CASE("a client that stops reading is dropped in the end", "[gateway]") {
  GatewayOptions options;
  options.transfer_timeout = absl::Milliseconds(300);
  options.keep_alive_interval = absl::Milliseconds(200);
  Gateway gateway(options);
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script = Endless(absl::ZeroDuration());
    script.events[1] = testing::DeltaEvent(std::string(4096, 'a'));
    return script;
  };
  HttpClient client(gateway.address(), 4096);
  client.Send(HttpClient::PostText("/v1/completions", kStream));
  CHECK(gateway.daemon.WaitForCancelled(1, absl::Seconds(20)));
}

TEST_CASE("a silent stream is kept alive by comments", "[gateway]") {
  GatewayOptions options;
  options.keep_alive_interval = absl::Milliseconds(50);
  Gateway gateway(options);
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    GenerateScript script;
    if (request.text() == "accepted") script.events = {testing::AcceptedEvent(1)};
    script.hold_open = true;
    return script;
  };
  // Also while the daemon has not accepted yet: a proxy does not care why it hears nothing.
  for (const char* prompt : {"accepted", "queued"}) {
    HttpClient client(gateway.address());
    client.Send(HttpClient::PostText("/v1/completions",
                                     absl::StrCat(R"({"stream":true,"prompt":")", prompt, "\"}")));
    CHECK(client.ReadUntil(": keep-alive\n\n\r\ne\r\n: keep-alive\n\n", absl::Seconds(5)));
  }
}

TEST_CASE("32 streams at once each get their own answer", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    std::vector<std::string> pieces;
    for (int i = 0; i < 50; ++i) pieces.push_back(absl::StrCat(request.text(), ":", i, " "));
    return testing::AnswerScript(pieces);
  };
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 32; ++i) {
    clients.push_back(std::make_unique<HttpClient>(gateway.address()));
    clients.back()->Send(HttpClient::PostText(
        "/v1/completions", absl::StrCat(R"({"stream":true,"prompt":"p)", i, "\"}")));
  }
  for (int i = 0; i < 32; ++i) {
    const auto events = clients[static_cast<size_t>(i)]->Read().events();
    REQUIRE(events.size() == 52);
    for (int k = 0; k < 50; ++k) {
      REQUIRE(At(Json(events[static_cast<size_t>(k)]), "/choices/0/text") ==
              absl::StrCat("p", i, ":", k, " "));
    }
  }
  // The daemon's side of a call ends a moment after the client's.
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (gateway.daemon.num_live() > 0 && absl::Now() < deadline)
    absl::SleepFor(absl::Milliseconds(1));
  CHECK(gateway.daemon.num_live() == 0);
}

}  // namespace
}  // namespace fastgen::gateway
