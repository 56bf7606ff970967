#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/server/gateway/gateway_fixture.h"
#include "tests/testing/certificates.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Gateway;
using testing::GenerateScript;
using testing::HttpClient;
using testing::HttpReply;
using testing::Json;

constexpr char kPrompt[] = R"({"prompt":"x"})";

TEST_CASE("routes answer with and without /v1", "[gateway]") {
  Gateway gateway;
  for (const char* prefix : {"", "/v1"}) {
    CHECK(gateway.Get(absl::StrCat(prefix, "/models")).status == 200);
    CHECK(gateway.Get(absl::StrCat(prefix, "/models/")).status == 200);
    CHECK(gateway.Get(absl::StrCat(prefix, "/health?verbose=1")).status == 200);
    CHECK(gateway.Get(absl::StrCat(prefix, "/version")).status == 200);
    CHECK(gateway.Post(absl::StrCat(prefix, "/completions"), kPrompt).status == 200);
  }
  CHECK(gateway.Get("http://somewhere/v1/models").status == 200);
}

TEST_CASE("unknown routes, methods and what is not built answer in OpenAI's shape", "[gateway]") {
  Gateway gateway;
  HttpReply reply = gateway.Get("/v2/models");
  CHECK(reply.status == 404);
  CHECK(At(Json(reply.body), "/error/type") == "not_found_error");
  CHECK(gateway.Get("/").status == 404);
  CHECK(gateway.Get("/%zz").status == 404);
  reply = gateway.Get("/v1/completions");
  CHECK(reply.status == 405);
  CHECK(reply.header("allow") == "POST, OPTIONS");
  CHECK(At(Json(reply.body), "/error/code") == "method_not_allowed");
  reply = gateway.Post("/health", "{}");
  CHECK(reply.status == 405);
  CHECK(reply.header("allow") == "GET, HEAD, OPTIONS");
  for (const char* path : {"/embeddings", "/start_profile", "/stop_profile", "/sleep",
                           "/v1/wake_up", "/update_weights"}) {
    CHECK(gateway.Post(path, "{}").status == 501);
  }
}

TEST_CASE("the client's request id comes back with every answer, and with its own only",
          "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  CHECK(client.Post("/completions", "{", "X-Request-Id: a-1\r\n").header("x-request-id") == "a-1");
  CHECK(client.Post("/nowhere", "", "X-Request-Id: a-2\r\n").header("x-request-id") == "a-2");
  CHECK(client.Post("/completions", kPrompt, "X-Request-Id: a-3\r\n").header("x-request-id") ==
        "a-3");
  // One that is none does not.
  CHECK(client.Post("/completions", "{", "X-Request-Id: a b\r\n").header("x-request-id").size() ==
        32);
  CHECK(client.Post("/completions", R"({"prompt":"x","request_id":"a-4"})", "X-Request-Id: a b\r\n")
            .status == 400);
  const std::string drawn = client.Get("/version").header("x-request-id");
  CHECK(drawn.size() == 32);
  CHECK(client.Get("/nowhere").header("x-request-id") != drawn);
}

TEST_CASE("HEAD is GET without the body and OPTIONS names the methods", "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  client.Send("HEAD /version HTTP/1.1\r\nHost: x\r\n\r\n");
  const HttpReply head = client.ReadHeadOnly();
  CHECK(head.status == 200);
  CHECK(head.header("content-length") == std::to_string(client.Get("/version").body.size()));
  client.Send("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n");
  const HttpReply options = client.Read();
  CHECK(options.status == 204);
  CHECK(options.header("allow") == "POST, OPTIONS");
  client.Send("HEAD /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(client.ReadHeadOnly().status == 405);
}

TEST_CASE("content types other than JSON are refused", "[gateway]") {
  Gateway gateway;
  const auto status = [&](const std::string& headers) {
    HttpClient client(gateway.address());
    client.Send(absl::StrCat("POST /completions HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n",
                             headers, "\r\n", kPrompt));
    return client.Read().status;
  };
  CHECK(status("") == 200);
  CHECK(status("Content-Type: application/json; charset=utf-8\r\n") == 200);
  CHECK(status("Content-Type: Application/JSON\r\n") == 200);
  CHECK(status("Content-Type: text/plain\r\n") == 415);
  CHECK(status("Content-Type: application/x-www-form-urlencoded\r\n") == 415);
  CHECK(status("Content-Encoding: gzip\r\n") == 415);
}

TEST_CASE("one connection serves many requests, whole and streamed", "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  for (int i = 0; i < 20; ++i) {
    CHECK(client.Post("/completions", kPrompt).status == 200);
    CHECK(client.Post("/completions", R"({"prompt":"x","stream":true})").events().size() == 4);
    CHECK(client.Post("/completions", "{").status == 400);
    CHECK(client.Get("/nowhere").status == 404);
  }
}

TEST_CASE("pipelined requests are answered in their order", "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  std::string burst;
  for (int i = 0; i < 500; ++i)
    burst += absl::StrCat("GET /models/m", i, " HTTP/1.1\r\nHost: x\r\n\r\n");
  std::thread sender([&] { client.Send(burst); });
  int in_order = 0;
  for (int i = 0; i < 500; ++i) {
    in_order += client.Read().body.find(absl::StrCat("'m", i, "'")) != std::string::npos;
  }
  sender.join();
  CHECK(in_order == 500);
}

TEST_CASE("Connection: close and HTTP/1.0 end the connection after the answer", "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  client.Send("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const HttpReply reply = client.Read();
  CHECK(reply.status == 200);
  CHECK(reply.header("connection") == "close");
  CHECK(client.ReadToEnd(absl::Seconds(5)));

  HttpClient old(gateway.address());
  const std::string body = R"({"prompt":"x","stream":true})";
  old.Send(absl::StrCat("POST /completions HTTP/1.0\r\nContent-Length: ", body.size(), "\r\n\r\n",
                        body));
  const HttpReply stream = old.Read();
  CHECK(stream.header("transfer-encoding").empty());
  CHECK(stream.events().size() == 4);
}

TEST_CASE("bodies arrive in chunks and with 100-continue", "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  client.Send("POST /completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  client.Send("5\r\n{\"pro\r\n9\r\nmpt\":\"x\"}\r\n0\r\n\r\n");
  CHECK(client.Read().status == 200);
  client.Send(
      "POST /completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
      "14\r\n\r\n");
  CHECK(client.Read().status == 100);
  client.Send(kPrompt);
  CHECK(client.Read().status == 200);
  client.Send(
      "POST /completions HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nContent-Length: 14\r\n\r\n");
  CHECK(client.Read().status == 417);
}

TEST_CASE("a request byte by byte is still a request", "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  for (char c : "\r\n" + HttpClient::PostText("/completions", kPrompt))
    client.Send(std::string(1, c));
  CHECK(client.Read().status == 200);
}

TEST_CASE("too large bodies and heads are refused, and the connection ends", "[gateway]") {
  GatewayOptions options;
  options.max_body_bytes = 1000;
  options.max_head_bytes = 4096;
  Gateway gateway(options);
  HttpClient announced(gateway.address());
  announced.Send("POST /completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
  const HttpReply reply = announced.Read();
  CHECK(reply.status == 413);
  CHECK(At(Json(reply.body), "/error/code") == "request_too_large");
  CHECK(announced.ReadToEnd(absl::Seconds(5)));

  HttpClient chunked(gateway.address());
  chunked.Send(
      "POST /completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" +
      std::string(2000, ' ') + "\r\n");
  CHECK(chunked.Read().status == 413);

  // The answer arrives although the client goes on sending.
  HttpClient stubborn(gateway.address());
  stubborn.Send(HttpClient::PostText("/completions", std::string(2 << 20, ' ')));
  CHECK(stubborn.Read().status == 413);

  HttpClient head(gateway.address());
  head.Send("GET /version HTTP/1.1\r\nHost: x\r\nX-Long: " + std::string(5000, 'a') + "\r\n\r\n");
  CHECK(head.Read().status == 431);
  HttpClient endless(gateway.address());
  endless.Send("GET /" + std::string(5000, 'a'));
  CHECK(endless.Read().status == 431);
}

TEST_CASE("malformed HTTP is 400", "[gateway]") {
  Gateway gateway;
  const std::string bytes = GENERATE(
      as<std::string>(), "nonsense\r\n\r\n", "GET /version HTTP/1.1\r\n\r\n",
      "GET /version HTTP/3.0\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      "GET /version HTTP/1.1\r\nHost x\r\n\r\n",
      "POST /completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
      "POST /completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
      "POST /completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "\x16\x03\x01\x02\r\n\r\n");
  INFO(bytes);
  HttpClient client(gateway.address());
  client.Send(bytes);
  CHECK(client.Read().status == 400);
  CHECK(client.ReadToEnd(absl::Seconds(5)));
}

TEST_CASE("a request that dribbles in is given up", "[gateway]") {
  GatewayOptions options;
  options.transfer_timeout = absl::Milliseconds(300);
  Gateway gateway(options);
  HttpClient head(gateway.address());
  HttpClient body(gateway.address());
  const absl::Time start = absl::Now();
  std::thread dribble([&] {
    const std::string text = HttpClient::PostText("/completions", std::string(100, ' '));
    for (size_t i = 0; i < 40; ++i) {
      head.Send(text.substr(i, 1));
      absl::SleepFor(absl::Milliseconds(20));
    }
  });
  body.Send("POST /completions HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{");
  CHECK(body.Read().status == 408);
  dribble.join();
  CHECK(head.Read().status == 408);
  CHECK(absl::Now() - start < absl::Seconds(5));
}

TEST_CASE("empty lines are no way to stay connected", "[gateway]") {
  GatewayOptions options;
  options.idle_timeout = absl::Milliseconds(300);
  options.max_head_bytes = 8 << 10;
  Gateway gateway(options);
  // Fast enough to earn time, if they counted as a transfer.
  HttpClient fast(gateway.address());
  HttpClient slow(gateway.address());
  const absl::Time start = absl::Now();
  std::thread sender([&] {
    for (int i = 0; i < 40; ++i) {
      fast.Send(std::string(2048, '\n'));
      slow.Send("\r\n");
      absl::SleepFor(absl::Milliseconds(20));
    }
  });
  CHECK(slow.Read().status == 0);  // they begin no request that could be answered
  sender.join();
  CHECK(fast.Read().status == 431);
  CHECK(absl::Now() - start < absl::Seconds(5));
}

TEST_CASE("empty lines hold up no drain, and are passed over between requests", "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  for (int i = 0; i < 3; ++i) {
    client.Send("\r\n\r\n");
    CHECK(client.Get("/version").status == 200);
    client.Send("\r\n");
  }
  gateway.server->StopAccepting();
  CHECK(client.ReadToEnd(absl::Seconds(5)));
  CHECK(gateway.server->WaitIdle(absl::Seconds(5)));
}

TEST_CASE("a body that trickles in does not hold up a drain", "[gateway]") {
  GatewayOptions options;
  options.transfer_timeout = absl::Milliseconds(300);
  Gateway gateway(options);
  HttpClient client(gateway.address());
  client.Send(
      "POST /completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: 8000000\r\n\r\n");
  // Without a drain these would earn eight seconds more.
  client.Send(std::string(512 << 10, ' '));
  absl::SleepFor(absl::Milliseconds(50));
  const absl::Time start = absl::Now();
  gateway.server->StopAccepting();
  CHECK(gateway.server->WaitIdle(absl::Seconds(20)));
  CHECK(absl::Now() - start < absl::Seconds(5));
}

TEST_CASE("an idle connection is closed after its time", "[gateway]") {
  GatewayOptions options;
  options.idle_timeout = absl::Milliseconds(200);
  Gateway gateway(options);
  HttpClient silent(gateway.address());
  HttpClient client(gateway.address());
  CHECK(client.Get("/version").status == 200);
  CHECK(client.ReadToEnd(absl::Seconds(5)));
  CHECK(silent.ReadToEnd(absl::Seconds(5)));
}

TEST_CASE("connections beyond the limit are told so", "[gateway]") {
  GatewayOptions options;
  options.max_connections = 2;
  Gateway gateway(options);
  HttpClient first(gateway.address()), second(gateway.address());
  CHECK(first.Get("/version").status == 200);
  CHECK(second.Get("/version").status == 200);
  HttpClient third(gateway.address());
  const HttpReply reply = third.Read();
  CHECK(reply.status == 503);
  CHECK(reply.header("retry-after") == "1");
  CHECK(first.Get("/version").status == 200);
  // A crowd of them is not even told.
  std::vector<std::unique_ptr<HttpClient>> crowd;
  for (int i = 0; i < 200; ++i) crowd.push_back(std::make_unique<HttpClient>(gateway.address()));
  for (const auto& client : crowd) CHECK(client->ReadToEnd(absl::Seconds(20)));
  CHECK(first.Get("/version").status == 200);
}

TEST_CASE("a socket file serves HTTP, for its owner and group", "[gateway]") {
  const testing::PemFolder folder;
  const std::string path = folder.path() + "/http";
  GatewayOptions options;
  options.listen = {"unix:" + path, "127.0.0.1:0"};
  {
    Gateway gateway(options);
    CHECK(gateway.address() == "unix:" + path);
    struct stat made = {};
    REQUIRE(stat(path.c_str(), &made) == 0);
    CHECK(S_ISSOCK(made.st_mode));
    CHECK((made.st_mode & 0777) == 0660);
    HttpClient client(gateway.address());
    CHECK(client.Get("/version").status == 200);
    CHECK(client.Post("/completions", R"({"prompt":"x","stream":true})").events().size() == 4);
    // A second server does not take it away.
    options.listen = {"unix:" + path};
    const absl::Status taken = HttpServer::Start(options, gateway.daemon.channel()).status();
    CHECK(taken.code() == absl::StatusCode::kUnavailable);
    CHECK(client.Get("/version").status == 200);
  }
  CHECK_FALSE(std::filesystem::exists(path));
  std::ofstream(path) << "mine";
  Gateway other;
  CHECK_FALSE(HttpServer::Start(options, other.daemon.channel()).ok());
  CHECK(std::filesystem::is_regular_file(path));
}

TEST_CASE("keys and trace context travel as metadata", "[gateway]") {
  Gateway gateway;
  gateway.Post(
      "/completions", kPrompt,
      "Authorization: Bearer k\r\nX-Api-Key: a\r\ntraceparent: 00-1-2-01\r\nX-Other: no\r\n"
      "X-Fastgen-Resume-Window: 1.5\r\n");
  const auto metadata = gateway.daemon.last_metadata();
  CHECK(metadata.find("authorization")->second == "Bearer k");
  CHECK(metadata.find("x-api-key")->second == "a");
  CHECK(metadata.find("traceparent")->second == "00-1-2-01");
  CHECK(metadata.count("x-other") == 0);
  CHECK(gateway.daemon.requests()[0].resume_window().seconds() == 1);
  CHECK(gateway.daemon.requests()[0].resume_window().nanos() == 500'000'000);
  CHECK(gateway.Post("/completions", kPrompt, "X-Fastgen-Resume-Window: soon\r\n").status == 400);
  CHECK(gateway.Post("/completions", kPrompt, "X-Request-Id: a b\r\n").status == 400);
}

TEST_CASE("strict model names refuse every other name", "[gateway]") {
  GatewayOptions options;
  options.strict_model = true;
  Gateway gateway(options);
  const HttpReply reply = gateway.Post("/completions", R"({"prompt":"x","model":"gpt-4o-mini"})");
  CHECK(reply.status == 404);
  CHECK(At(Json(reply.body), "/error/code") == "model_not_found");
  CHECK(gateway.Post("/completions", R"({"prompt":"x","model":"tiny/model"})").status == 200);
  CHECK(gateway.Post("/completions", R"({"prompt":"x","model":"tiny/model","stream":true})")
            .events()
            .size() == 4);
}

TEST_CASE("bad and taken addresses are named", "[gateway]") {
  Gateway gateway;
  const auto start = [&](const std::string& address) {
    GatewayOptions options;
    options.listen = {address};
    return HttpServer::Start(options, gateway.daemon.channel()).status();
  };
  for (const char* bad : {"", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000",
                          ":5", "::1:5", "unix:"}) {
    INFO(bad);
    CHECK(start(bad).code() == absl::StatusCode::kInvalidArgument);
  }
  const absl::Status taken = start(gateway.address());
  CHECK(taken.code() == absl::StatusCode::kUnavailable);
  CHECK_THAT(std::string(taken.message()), Catch::Matchers::Contains(gateway.address()));
}

TEST_CASE("draining finishes answers and closes the rest", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script = testing::AnswerScript({"a", "b", "c"});
    script.pause = absl::Milliseconds(100);
    return script;
  };
  HttpClient idle(gateway.address()), busy(gateway.address());
  CHECK(idle.Get("/version").status == 200);
  busy.Send(HttpClient::PostText("/completions", R"({"prompt":"x","stream":true})"));
  REQUIRE(busy.ReadUntil("data: "));
  gateway.server->StopAccepting();
  CHECK(idle.ReadToEnd(absl::Seconds(5)));
  CHECK(busy.ReadUntil("data: [DONE]"));
  CHECK(busy.ReadToEnd(absl::Seconds(5)));
  CHECK(gateway.server->WaitIdle(absl::Seconds(5)));
  CHECK_FALSE(HttpClient(gateway.address()).connected());
}

TEST_CASE("Stop cancels what is under way and returns", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(1), testing::DeltaEvent("a")};
    script.hold_open = request.text() == "hold";
    script.repeat_last = !script.hold_open;
    return script;
  };
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<HttpClient>(gateway.address()));
    clients.back()->Send(HttpClient::PostText(
        "/completions", i % 2 == 0 ? R"({"prompt":"hold"})" : R"({"prompt":"go","stream":true})"));
  }
  while (gateway.daemon.num_live() < 8) std::this_thread::yield();
  gateway.server->Stop();
  CHECK(gateway.daemon.WaitForCancelled(8, absl::Seconds(5)));
  CHECK(clients[0]->ReadToEnd(absl::Seconds(5)));
  gateway.server->Stop();  // again: nothing
}

TEST_CASE("several I/O threads serve alike", "[gateway]") {
  GatewayOptions options;
  options.num_threads = 3;
  Gateway gateway(options);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 16; ++i) {
    clients.push_back(std::make_unique<HttpClient>(gateway.address()));
    clients.back()->Send(HttpClient::PostText("/completions", R"({"prompt":"go","stream":true})"));
  }
  for (const auto& client : clients) CHECK(client->Read().events().size() == 4);
}

}  // namespace
}  // namespace fastgen::gateway
