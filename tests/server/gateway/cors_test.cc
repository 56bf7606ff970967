#include "server/gateway/cors.h"

#include <catch2/catch.hpp>

#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::Gateway;
using testing::HttpClient;
using testing::HttpReply;

HttpReply Ask(HttpClient& client, const std::string& line, const std::string& headers) {
  client.Send(line + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n");
  return client.Read();
}

bool HasCors(const HttpReply& reply) {
  for (const auto& [name, value] : reply.headers) {
    if (name.rfind("access-control-", 0) == 0 || name == "vary") return true;
  }
  return false;
}

TEST_CASE("without origins no answer speaks of CORS", "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  CHECK_FALSE(HasCors(Ask(client, "GET /version", "Origin: https://a.example\r\n")));
  const HttpReply preflight =
      Ask(client, "OPTIONS /v1/chat/completions",
          "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n");
  CHECK(preflight.status == 204);
  CHECK_FALSE(HasCors(preflight));
}

TEST_CASE("a page cannot start work with a body that browsers send unasked", "[gateway]") {
  Gateway gateway;
  const std::string body = R"({"prompt":"a"})";
  const auto post = [&](const std::string& headers) {
    HttpClient client(gateway.address());
    client.Send("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n" + headers + "\r\n" + body);
    return client.Read().status;
  };
  CHECK(post("Origin: http://localhost:3000\r\n") == 415);
  CHECK(post("Origin: http://localhost:3000\r\nContent-Type: text/plain\r\n") == 415);
  CHECK(post("Origin: http://localhost:3000\r\nContent-Type: application/json\r\n") == 200);
  CHECK(post("") == 200);  // no browser
  // A stranger's page whose name was made to lead here is of this origin for the browser.
  CHECK(post("Origin: http://evil.example:5678\r\nContent-Type: application/json\r\n") == 403);
}

TEST_CASE("a page of a named origin may ask, with its key", "[gateway]") {
  GatewayOptions options;
  options.cors_origins = {"https://a.example", "http://localhost:3000"};
  Gateway gateway(options);
  HttpClient client(gateway.address());
  const HttpReply preflight =
      Ask(client, "OPTIONS /v1/chat/completions",
          "Origin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n"
          "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n");
  CHECK(preflight.status == 204);
  CHECK(preflight.header("access-control-allow-origin") == "http://localhost:3000");
  CHECK(preflight.header("access-control-allow-headers") ==
        "authorization,content-type,x-stainless-os");
  CHECK(preflight.header("access-control-allow-methods").find("POST") != std::string::npos);
  CHECK(preflight.header("access-control-allow-credentials").empty());
  CHECK(preflight.header("vary") == "Origin");
  // Answers and errors alike, and streams.
  for (const char* path : {"GET /version", "GET /nowhere", "POST /completions"}) {
    const HttpReply reply = Ask(client, path, "Origin: https://a.example\r\nContent-Length: 0\r\n");
    CHECK(reply.header("access-control-allow-origin") == "https://a.example");
  }
  const HttpReply stream = client.Post("/completions", R"({"prompt":"x","stream":true})",
                                       "Origin: https://a.example\r\n");
  CHECK(stream.header("access-control-allow-origin") == "https://a.example");
}

TEST_CASE("other origins get nothing but Vary", "[gateway]") {
  GatewayOptions options;
  options.cors_origins = {"https://a.example"};
  Gateway gateway(options);
  HttpClient client(gateway.address());
  for (const char* origin :
       {"https://b.example", "https://a.example.evil", "http://a.example", "null", ""}) {
    INFO(origin);
    const HttpReply reply = Ask(client, "GET /version", std::string("Origin: ") + origin + "\r\n");
    CHECK(reply.header("access-control-allow-origin").empty());
    CHECK(reply.header("vary") == "Origin");
  }
  // The next answer on the connection does not inherit what the one before had.
  CHECK(Ask(client, "GET /version", "Origin: https://a.example\r\n")
            .header("access-control-allow-origin") == "https://a.example");
  CHECK(Ask(client, "GET /version", "").header("access-control-allow-origin").empty());
}

TEST_CASE("a star allows every page, without naming it", "[gateway]") {
  GatewayOptions options;
  options.cors_origins = {"*"};
  Gateway gateway(options);
  HttpClient client(gateway.address());
  const HttpReply reply = Ask(client, "GET /version", "Origin: https://any.example\r\n");
  CHECK(reply.header("access-control-allow-origin") == "*");
  CHECK(reply.header("vary").empty());
  // What is not a list of names is not sent back.
  const HttpReply preflight =
      Ask(client, "OPTIONS /version",
          "Origin: https://any.example\r\nAccess-Control-Request-Method: GET\r\n"
          "Access-Control-Request-Headers: a;b\r\n");
  CHECK(preflight.header("access-control-allow-headers").find("Authorization") == 0);
}

TEST_CASE("pages that were not named may not start work, unless they are this machine's",
          "[gateway]") {
  const std::vector<std::string> named = {"https://a.example"};
  for (const char* origin :
       {"", "null", "app://x", "http://localhost", "https://LOCALHOST:3000", "http://127.0.0.1:80",
        "http://127.9.8.7", "http://[::1]:5678", "http://[::1]", "https://a.example"}) {
    INFO(origin);
    CHECK(MayCall(named, origin));
  }
  for (const char* origin :
       {"http://a.example", "https://b.example", "HTTPS://b.example", "http://127.0.0.1.example",
        "http://localhost.example", "http://10.0.0.1", "http://[::2]", "http://", "https://:80"}) {
    INFO(origin);
    CHECK_FALSE(MayCall(named, origin));
    CHECK(MayCall({"*"}, origin));
  }
}

TEST_CASE("an origin is a scheme and a host", "[gateway]") {
  for (const char* good :
       {"*", "null", "https://a", "http://localhost:3000", "http://[::1]:80", "app://x"}) {
    CHECK(IsOrigin(good));
  }
  for (const char* bad : {"", "a.example", "https://", "://a", "https://a/", "https://a/b",
                          "https://a b", "https://a\r\nX: y", "https://a,https://b"}) {
    CHECK_FALSE(IsOrigin(bad));
  }
}

}  // namespace
}  // namespace fastgen::gateway
