#include "server/gateway/http_request_reader.h"

#include <catch2/catch.hpp>

namespace fastgen::gateway {
namespace {

using State = HttpRequestReader::State;

// Feeds `text` in pieces of `step` bytes the way the connection does: what was not consumed comes
// again.
size_t FeedAll(HttpRequestReader& reader, const std::string& text, size_t step) {
  std::string input;
  size_t sent = 0;
  while (sent < text.size() && (reader.state() == State::kHead || reader.state() == State::kBody)) {
    input += text.substr(sent, step);
    sent += std::min(step, text.size() - sent);
    input.erase(0, reader.Feed(input));
  }
  return sent - input.size();
}

TEST_CASE("a request reads the same however it is cut", "[gateway]") {
  const std::string text = GENERATE(as<std::string>(),
                                    "\r\n\r\nPOST /v1/a%20b?q HTTP/1.1\r\nHost: x\r\nContent-Type: "
                                    "t\r\nX-REQUEST-ID: 7\r\nContent-Length: 5\r\n\r\nhello",
                                    "POST /v1/a%20b?q HTTP/1.1\r\nHost: x\r\nContent-Type: "
                                    "t\r\nX-Request-Id: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
                                    "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
  const size_t step = GENERATE(1, 2, 3, 7, 50, 1000);
  HttpRequestReader reader(4096, 4096);
  CHECK(FeedAll(reader, text, step) == text.size());
  REQUIRE(reader.state() == State::kDone);
  const HttpRequest request = reader.TakeRequest();
  CHECK(request.method == "POST");
  CHECK(request.path == "/v1/a b");
  CHECK(request.content_type == "t");
  CHECK(request.request_id == "7");
  CHECK(request.body == "hello");
  CHECK(reader.state() == State::kHead);
}

TEST_CASE("bytes of the next request are left alone", "[gateway]") {
  const std::string first = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
  HttpRequestReader reader(4096, 4096);
  CHECK(reader.Feed(first + "GET /b") == first.size());
  CHECK(reader.state() == State::kDone);
}

TEST_CASE("a head without end is bounded in size", "[gateway]") {
  HttpRequestReader reader(1024, 4096);
  FeedAll(reader, "GET / HTTP/1.1\r\n" + std::string(4096, 'a'), 64);
  REQUIRE(reader.state() == State::kFailed);
  CHECK(reader.error().status == 431);
}

TEST_CASE("an absurd Content-Length is too large, not an allocation", "[gateway]") {
  HttpRequestReader reader(1024, 4096);
  FeedAll(reader, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\n\r\n",
          1000);
  REQUIRE(reader.state() == State::kFailed);
  CHECK(reader.error().status == 413);
}

TEST_CASE("both lengths at once are refused", "[gateway]") {
  HttpRequestReader reader(1024, 4096);
  FeedAll(reader,
          "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
          1000);
  REQUIRE(reader.state() == State::kFailed);
  CHECK(reader.error().status == 400);
}

}  // namespace
}  // namespace fastgen::gateway
