// HttpRequestReader: bytes to HttpRequest, with bounds. The only user of Beast's HTTP parser.
//
// Feed takes bytes as they come and says how many it consumed; what is left belongs to the next
// request (pipelining). While the head is incomplete nothing is consumed: the caller keeps the
// bytes and feeds them again with more, which the head's limit bounds.
// Where a proxy before this server might see other borders between requests than Beast does, the
// request is refused: folded lines, bare CR or LF, space before a colon, two Hosts or lengths, a
// Transfer-Encoding that is not exactly "chunked" (RFC 9112, 2.2, 5.1, 5.2, 6).
// Invariants: 1. never throws, whatever the bytes; 2. after kFailed, only the error may be asked
// for.
// Thread rule: one thread at a time.
// Tested by tests/server/gateway/http_request_reader_test.cc and tests/fuzz/http_request_fuzzer.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "server/gateway/errors.h"
#include "server/gateway/exchange.h"

namespace fastgen::gateway {

class HttpRequestReader {
 public:
  enum class State { kHead, kBody, kDone, kFailed };

  HttpRequestReader(int64_t max_head_bytes, int64_t max_body_bytes);
  ~HttpRequestReader();

  // Number of bytes consumed. REQUIRES: state is kHead or kBody.
  size_t Feed(std::string_view bytes);
  State state() const { return state_; }
  // The client waits for "100 Continue" before it sends the body. True once.
  bool TakeContinueWish();
  // REQUIRES: kDone. The reader is then ready for the next request.
  HttpRequest TakeRequest();
  // REQUIRES: kFailed.
  const ApiError& error() const { return error_; }
  // Of the request being read, as far as it is known; "" before that.
  std::string path() const;

 private:
  struct Parser;
  void Fail(ApiError error);
  void CheckLines(std::string_view head);
  void CheckHead();
  void CheckFraming();
  // Before the body: Beast puts a chunked body's trailers among the headers, which they must not become.
  void ReadHead();
  void Reset();

  const int64_t max_head_bytes_;
  const int64_t max_body_bytes_;
  State state_ = State::kHead;
  bool continue_wish_ = false;
  int64_t num_blank_bytes_ = 0;  // empty lines before the request line
  ApiError error_;
  HttpRequest request_;  // all but the body, once the head is there
  std::unique_ptr<Parser> parser_;
};

}  // namespace fastgen::gateway
