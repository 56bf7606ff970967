// API keys as the gateway handles them: it asks before it looks at a request, passes them on, and keeps none.
#include <catch2/catch.hpp>
#include <string>

#include "server/gateway/exchange.h"
#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Gateway;
using testing::HttpClient;
using testing::HttpReply;
using testing::Json;

constexpr char kChat[] = R"({"messages":[{"role":"user","content":"hi"}]})";

GatewayOptions AskingForKeys() {
  GatewayOptions options;
  options.check_key = [](const Headers& headers) {
    for (const auto& [name, value] : headers) {
      if (value == "Bearer good") return grpc::Status::OK;
    }
    return grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "who are you?");
  };
  return options;
}

HttpReply Send(const Gateway& gateway, const std::string& method, const std::string& path,
               const std::string& headers, const std::string& body) {
  HttpClient client(gateway.address());
  client.Send(method + " " + path + " HTTP/1.1\r\nHost: x\r\n" + headers +
              "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  return client.Read();
}

TEST_CASE("a stranger's request is not looked at", "[gateway]") {
  Gateway gateway(AskingForKeys());
  for (const std::string headers : {"", "Authorization: Bearer bad\r\n", "x-api-key: bad\r\n"}) {
    for (const std::string body : {kChat, "{", "[1]", ""}) {
      const HttpReply reply = Send(gateway, "POST", "/v1/chat/completions", headers, body);
      CHECK(reply.status == 401);
      CHECK(reply.header("www-authenticate") == "Bearer");
      CHECK(At(Json(reply.body), "/error/message") == "who are you?");
      CHECK(At(Json(reply.body), "/error/type") == "authentication_error");
      CHECK(At(Json(reply.body), "/error/code") == "invalid_api_key");
    }
    for (const std::string path : {"/v1/models", "/metrics", "/v1/streams/r1"}) {
      CHECK(Send(gateway, "GET", path, headers, "").status == 401);
    }
    CHECK(Send(gateway, "GET", "/health", headers, "").status == 200);
    CHECK(Send(gateway, "GET", "/version", headers, "").status == 200);
    CHECK(Send(gateway, "GET", "/nothing", headers, "").status == 404);
    CHECK(Send(gateway, "PUT", "/v1/models", headers, "").status == 405);
  }
  CHECK(gateway.daemon.requests().empty());
  CHECK(Send(gateway, "POST", "/v1/chat/completions", "Authorization: Bearer good\r\n", kChat).status == 200);
  CHECK(Send(gateway, "POST", "/v1/chat/completions", "Authorization: Bearer good\r\n", "{").status == 400);
}

TEST_CASE("two keys in one request are refused", "[gateway]") {
  Gateway gateway(AskingForKeys());
  for (const std::string name : {"Authorization", "x-api-key"}) {
    const HttpReply reply = Send(gateway, "POST", "/v1/chat/completions",
                                 name + ": Bearer good\r\n" + name + ": Bearer good\r\n", kChat);
    CHECK(reply.status == 400);
    CHECK(At(Json(reply.body), "/error/message").find(" is given more than once") != std::string::npos);
  }
  CHECK(gateway.daemon.requests().empty());
}

TEST_CASE("what the daemon says of a key is 401, 403 or 429", "[gateway]") {
  Gateway gateway;
  const auto reply_to = [&](grpc::Status status) {
    gateway.daemon.on_generate = [status](const v1::GenerateRequest&) {
      testing::GenerateScript script;
      script.status = status;
      return script;
    };
    return gateway.Post("/v1/chat/completions", kChat);
  };
  const HttpReply unknown = reply_to({grpc::StatusCode::UNAUTHENTICATED, "this API key is not known here"});
  CHECK(unknown.status == 401);
  CHECK(unknown.header("www-authenticate") == "Bearer");
  const HttpReply denied = reply_to({grpc::StatusCode::PERMISSION_DENIED, "the API key a lacks the scope infer"});
  CHECK(denied.status == 403);
  CHECK(denied.header("www-authenticate").empty());
  CHECK(At(Json(denied.body), "/error/type") == "permission_error");
  const HttpReply limited = reply_to(testing::RetryLater(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many", 7));
  CHECK(limited.status == 429);
  CHECK(limited.header("retry-after") == "7");
}

TEST_CASE("health needs no key, whatever the daemon asks for", "[gateway]") {
  for (const auto health : {testing::FakeDaemon::Health::kOff, testing::FakeDaemon::Health::kServing}) {
    Gateway gateway({}, health);
    gateway.daemon.unary_status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "an API key is needed");
    CHECK(gateway.Get("/health").status == 200);
    CHECK(gateway.Get("/v1/models").status == 401);
  }
  Gateway gateway({}, testing::FakeDaemon::Health::kNotServing);
  gateway.daemon.unary_status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "an API key is needed");
  const HttpReply reply = gateway.Get("/health");
  CHECK(reply.status == 503);
  CHECK(At(Json(reply.body), "/error/message") == "not serving: the daemon is loading, draining or stalled");
}

TEST_CASE("a stream is taken up again with the key that began it", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_attach = [](const v1::AttachRequest&) { return testing::AnswerScript({"hi"}); };
  const std::string window = "X-Fastgen-Resume-Window: 30\r\nX-Request-Id: r1\r\nContent-Type: application/json\r\n";
  const std::string body = R"({"messages":[{"role":"user","content":"hi"}],"stream":true,"model":"of-alice"})";
  REQUIRE(Send(gateway, "POST", "/v1/chat/completions", window + "Authorization: Bearer alice\r\n", body).status == 200);
  const HttpReply stranger = Send(gateway, "GET", "/v1/streams/r1", "Authorization: Bearer bob\r\n", "");
  CHECK(stranger.status == 404);
  CHECK(At(Json(stranger.body), "/error/message") == "there is no request 'r1' whose resume window is open");
  CHECK(Send(gateway, "GET", "/v1/streams/r1", "x-api-key: alice\r\n", "").status == 404);
  const HttpReply owner = Send(gateway, "GET", "/v1/streams/r1", "Authorization: Bearer alice\r\n", "");
  CHECK(owner.status == 200);
  CHECK(owner.body.find("of-alice") != std::string::npos);
}

}  // namespace
}  // namespace fastgen::gateway
