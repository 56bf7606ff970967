// Where one request ends and the next begins: whatever a proxy might read differently is refused,
// and a refused request is the connection's last.
#include <catch2/catch.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::Gateway;
using testing::HttpClient;
using testing::HttpReply;

// A request that must never be answered, because it is hidden in another one's body.
constexpr char kHidden[] = "GET /models/hidden HTTP/1.1\r\nHost: x\r\n\r\n";

struct Row {
  const char* what;
  std::string bytes;
  int status;    // of the first answer
  bool goes_on;  // the connection then serves another request
};

std::string Post(const std::string& headers, const std::string& body) {
  return absl::StrCat("POST /completions HTTP/1.1\r\nHost: x\r\n", headers, "\r\n", body);
}

std::string Get(const std::string& line, const std::string& headers = "Host: x\r\n") {
  return absl::StrCat(line, "\r\n", headers, "\r\n");
}

const Row kRows[] = {
    {"both lengths, chunked last",
     Post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
          absl::StrCat("0\r\n\r\n", kHidden)),
     400, false},
    {"both lengths, chunked first",
     Post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
          absl::StrCat("0\r\n\r\n", kHidden)),
     400, false},
    {"two different lengths", Post("Content-Length: 0\r\nContent-Length: 40\r\n", kHidden), 400,
     false},
    {"two equal lengths", Post("Content-Length: 14\r\nContent-Length: 14\r\n", R"({"prompt":"x"})"),
     400, false},
    {"a list of lengths", Post("Content-Length: 14, 14\r\n", R"({"prompt":"x"})"), 400, false},
    {"a length with a sign", Post("Content-Length: +14\r\n", R"({"prompt":"x"})"), 400, false},
    {"a length in hex", Post("Content-Length: 0xe\r\n", R"({"prompt":"x"})"), 400, false},
    {"an empty length", Post("Content-Length: \r\n", kHidden), 400, false},
    {"a length that overflows", Post("Content-Length: 18446744073709551630\r\n", kHidden), 400,
     false},
    {"Transfer-Encoding: identity", Post("Transfer-Encoding: identity\r\n", kHidden), 400, false},
    {"Transfer-Encoding: identity with a length",
     Post("Transfer-Encoding: identity\r\nContent-Length: 14\r\n", R"({"prompt":"x"})"), 400,
     false},
    {"Transfer-Encoding: gzip, chunked",
     Post("Transfer-Encoding: gzip, chunked\r\n", absl::StrCat("0\r\n\r\n", kHidden)), 400, false},
    {"Transfer-Encoding: chunked, identity",
     Post("Transfer-Encoding: chunked, identity\r\n", absl::StrCat("0\r\n\r\n", kHidden)), 400,
     false},
    {"chunked twice",
     Post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
          absl::StrCat("0\r\n\r\n", kHidden)),
     400, false},
    {"an encoding like chunked", Post("Transfer-Encoding: xchunked\r\n", kHidden), 400, false},
    {"a vertical tab before chunked",
     Post("Transfer-Encoding: \vchunked\r\n", absl::StrCat("0\r\n\r\n", kHidden)), 400, false},
    {"space before the colon of an encoding",
     Post("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n",
          absl::StrCat("0\r\n\r\n", kHidden)),
     400, false},
    {"chunked in HTTP/1.0",
     "POST /completions HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
     false},
    {"a folded header", Post("X-A: b\r\n Content-Length: 14\r\n", R"({"prompt":"x"})"), 400, false},
    {"a header folded by a tab", Post("X-A: b\r\n\tc\r\nContent-Length: 0\r\n", ""), 400, false},
    {"space before the first header", "GET /version HTTP/1.1\r\n Host: x\r\n\r\n", 400, false},
    {"lines that end in LF", "GET /version HTTP/1.1\nHost: x\n\n", 400, false},
    {"one line that ends in LF", "GET /version HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n", 400, false},
    {"a bare CR in a value", "GET /version HTTP/1.1\r\nHost: x\r\nX-A: b\rc\r\n\r\n", 400, false},
    {"a NUL in a value", std::string("GET /version HTTP/1.1\r\nHost: x\r\nX-A: b\0c\r\n\r\n", 44),
     400, false},
    {"a name without a colon", "GET /version HTTP/1.1\r\nHost: x\r\nX-A\r\n\r\n", 400, false},
    {"an empty name", "GET /version HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400, false},
    {"two hosts", Get("GET /version HTTP/1.1", "Host: x\r\nHost: y\r\n"), 400, false},
    {"no host", Get("GET /version HTTP/1.1", ""), 400, false},
    {"no host in HTTP/1.0", Get("GET /version HTTP/1.0", ""), 200, false},
    {"HTTP/1.0 that asks to be kept", Get("GET /version HTTP/1.0", "Connection: keep-alive\r\n"),
     200, true},
    {"HTTP/0.9", "GET /version\r\n\r\n", 400, false},
    {"HTTP/1.2", Get("GET /version HTTP/1.2"), 400, false},
    {"HTTP/2 without an upgrade", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, false},
    {"an upgrade to h2c is passed over",
     Get("GET /version HTTP/1.1",
         "Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
         "AAMAAABkAAQ\r\n"),
     200, true},
    {"an upgrade to a web socket is passed over",
     Get("GET /version HTTP/1.1", "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"), 200,
     true},
    {"an absolute target", Get("GET http://elsewhere/v1/version HTTP/1.1"), 200, true},
    {"an absolute target without a path", Get("GET http://elsewhere HTTP/1.1"), 404, true},
    {"a target of another scheme", Get("GET ftp://elsewhere/version HTTP/1.1"), 404, true},
    {"an authority as target", Get("CONNECT elsewhere:443 HTTP/1.1"), 404, true},
    {"OPTIONS *", Get("OPTIONS * HTTP/1.1"), 204, true},
    {"TRACE", Get("TRACE /version HTTP/1.1"), 405, true},
    {"two slashes before v1", Get("GET //v1/version HTTP/1.1"), 404, true},
    {"two slashes after v1", Get("GET /v1//version HTTP/1.1"), 404, true},
    {"v1 twice", Get("GET /v1/v1/version HTTP/1.1"), 404, true},
    {"dots are no folders", Get("GET /v1/x/../version HTTP/1.1"), 404, true},
    {"an escaped slash is a slash", Get("GET /v1%2Fversion HTTP/1.1"), 200, true},
    {"an escaped NUL matches nothing", Get("GET /version%00 HTTP/1.1"), 404, true},
    {"an escape cut short", Get("GET /version%2 HTTP/1.1"), 404, true},
    {"a space in the target", Get("GET /ver sion HTTP/1.1"), 400, false},
    {"chunk extensions are passed over",
     Post("Transfer-Encoding: chunked\r\n",
          "e;a=b;c=\"d;\\\"\"\r\n{\"prompt\":\"x\"}\r\n0;e\r\n\r\n"),
     200, true},
    {"trailers are passed over",
     Post("Transfer-Encoding: chunked\r\n",
          "e\r\n{\"prompt\":\"x\"}\r\n0\r\nX-Sum: 99\r\nHost: y\r\n\r\n"),
     200, true},
    {"a length among the trailers",
     Post("Transfer-Encoding: chunked\r\n",
          "e\r\n{\"prompt\":\"x\"}\r\n0\r\nContent-Length: 99\r\n\r\n"),
     400, false},
    {"an extension that hides an LF",
     Post("Transfer-Encoding: chunked\r\n", "e;a\nb\r\n{\"prompt\":\"x\"}\r\n0\r\n\r\n"), 400,
     false},
    {"a chunk's size in capitals and with zeros",
     Post("Transfer-Encoding: CHUNKED\r\n", "000E\r\n{\"prompt\":\"x\"}\r\n0\r\n\r\n"), 200, true},
    {"a chunk's size with a sign",
     Post("Transfer-Encoding: chunked\r\n", "+e\r\n{\"prompt\":\"x\"}\r\n0\r\n\r\n"), 400, false},
    {"a chunk's size with 0x",
     Post("Transfer-Encoding: chunked\r\n", "0xe\r\n{\"prompt\":\"x\"}\r\n0\r\n\r\n"), 400, false},
    {"a chunk's size that overflows",
     Post("Transfer-Encoding: chunked\r\n", "1000000000000000e\r\n{\"prompt\":\"x\"}\r\n0\r\n\r\n"),
     400, false},
    {"a chunk longer than its size",
     Post("Transfer-Encoding: chunked\r\n", "2\r\n{\"prompt\":\"x\"}\r\n0\r\n\r\n"), 400, false},
    {"a chunk that ends in LF",
     Post("Transfer-Encoding: chunked\r\n", "e\n{\"prompt\":\"x\"}\r\n0\r\n\r\n"), 400, false},
    {"Expect with nothing more than its body",
     Post("Expect: 100-continue\r\nContent-Length: 14\r\n", R"({"prompt":"x"})"), 200, true},
    {"Expect of something else",
     Post("Expect: 200-ok\r\nContent-Length: 14\r\n", R"({"prompt":"x"})"), 417, false},
    {"a body where none is expected",
     absl::StrCat("GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: ", sizeof(kHidden) - 1,
                  "\r\n\r\n", kHidden),
     200, true},
};

TEST_CASE("trailers are no headers", "[gateway]") {
  Gateway gateway;
  HttpClient client(gateway.address());
  // Taken as a header, the byte that gRPC's metadata forbids would end the process.
  for (const char* trailers : {"Authorization: Bearer k\r\nTraceparent: 00-1-2-01\r\n",
                               "Authorization: \xff\r\nX-Request-Id: t\r\nConnection: close\r\n"}) {
    client.Send(Post("X-Api-Key: a\r\nTransfer-Encoding: chunked\r\n",
                     absl::StrCat("e\r\n{\"prompt\":\"x\"}\r\n0\r\n", trailers, "\r\n")));
    const HttpReply reply = client.Read();
    CHECK(reply.status == 200);
    CHECK(reply.header("x-request-id") != "t");
    const auto metadata = gateway.daemon.last_metadata();
    CHECK(metadata.count("authorization") == 0);
    CHECK(metadata.count("traceparent") == 0);
    CHECK(metadata.count("x-api-key") == 1);
  }
}

TEST_CASE("a request whose borders are in doubt is refused, and what it hides is never served",
          "[gateway]") {
  Gateway gateway;
  const Row& row = GENERATE(from_range(std::begin(kRows), std::end(kRows)));
  INFO(row.what);
  HttpClient client(gateway.address());
  client.Send(row.bytes);
  CHECK(client.Read(absl::Seconds(5)).status == row.status);
  if (row.goes_on) {
    const HttpReply next = client.Get("/models/next");
    CHECK(next.status == 404);
    CHECK(next.body.find("'next'") != std::string::npos);
  } else {
    // No second answer: the connection ends.
    CHECK_FALSE(client.ReadUntil("HTTP/1.1", absl::Seconds(5)));
    CHECK(client.ReadToEnd(absl::Seconds(5)));
  }
}

}  // namespace
}  // namespace fastgen::gateway
