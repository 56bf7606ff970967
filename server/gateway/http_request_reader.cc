#include "server/gateway/http_request_reader.h"

#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/strings.h"

namespace fastgen::gateway {
namespace http = boost::beast::http;

struct HttpRequestReader::Parser {
  http::request_parser<http::string_body> beast;
};

namespace {

constexpr const char* kForwardedHeaders[] = {"authorization", "x-api-key", "traceparent",
                                             "tracestate"};

std::string Field(const http::fields& fields, http::field name) {
  const auto value = fields[name];
  return std::string(value.data(), value.size());
}

std::string Field(const http::fields& fields, std::string_view name) {
  const auto value = fields[boost::beast::string_view(name.data(), name.size())];
  return std::string(value.data(), value.size());
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "/v1/models/a%2Fb?x=1" is "/v1/models/a/b"; nullopt for a bad escape.
std::optional<std::string> PathOf(std::string_view target) {
  for (std::string_view scheme : {"http://", "https://"}) {
    if (target.substr(0, scheme.size()) != scheme) continue;
    const size_t slash = target.find('/', scheme.size());
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  target = target.substr(0, target.find_first_of("?#"));
  std::string path;
  for (size_t i = 0; i < target.size(); ++i) {
    if (target[i] != '%') {
      path += target[i];
      continue;
    }
    if (i + 2 >= target.size()) return std::nullopt;
    const int high = HexDigit(target[i + 1]), low = HexDigit(target[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    path += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return path;
}

}  // namespace

HttpRequestReader::HttpRequestReader(int64_t max_head_bytes, int64_t max_body_bytes)
    : max_head_bytes_(max_head_bytes), max_body_bytes_(max_body_bytes) {
  Reset();
}

HttpRequestReader::~HttpRequestReader() = default;

void HttpRequestReader::Reset() {
  parser_ = std::make_unique<Parser>();
  request_ = {};
  parser_->beast.header_limit(static_cast<uint32_t>(max_head_bytes_));
  parser_->beast.body_limit(static_cast<uint64_t>(max_body_bytes_));
  parser_->beast.eager(
      false);  // the head alone at first, so that it is read before trailers join it
  state_ = State::kHead;
  continue_wish_ = false;
  num_blank_bytes_ = 0;
}

void HttpRequestReader::Fail(ApiError error) {
  state_ = State::kFailed;
  error_ = std::move(error);
}

size_t HttpRequestReader::Feed(std::string_view bytes) {
  CHECK(state_ == State::kHead || state_ == State::kBody);
  size_t consumed = 0;
  if (state_ == State::kHead) {
    // RFC 9112, 2.2: empty lines before a request line are passed over.
    while (consumed < bytes.size() && (bytes[consumed] == '\r' || bytes[consumed] == '\n'))
      ++consumed;
    num_blank_bytes_ += static_cast<int64_t>(consumed);
    if (num_blank_bytes_ > max_head_bytes_) {
      Fail({.status = 431,
            .message = absl::StrCat("more than ", max_head_bytes_, " bytes of empty lines"),
            .code = "head_too_large"});
      return consumed;
    }
  }
  while (consumed < bytes.size()) {
    boost::beast::error_code error;
    size_t used = 0;
    try {
      used = parser_->beast.put(
          boost::asio::const_buffer(bytes.data() + consumed, bytes.size() - consumed), error);
    } catch (const std::exception&) {  // string_body reserves what Content-Length announces
      Fail({.status = 413,
            .message = "the request body does not fit in memory",
            .code = "request_too_large"});
      return consumed;
    }
    consumed += used;
    if (error == http::error::need_more) error = {};
    if (error == http::error::body_limit) {
      Fail({.status = 413,
            .message = absl::StrCat("the request body is larger than ", max_body_bytes_, " bytes"),
            .code = "request_too_large"});
    } else if (error == http::error::header_limit) {
      Fail({.status = 431,
            .message = absl::StrCat("the request head is larger than ", max_head_bytes_, " bytes"),
            .code = "head_too_large"});
    } else if (error) {
      Fail({.status = 400,
            .message = absl::StrCat("malformed HTTP: ", error.message()),
            .code = "malformed_http"});
    } else {
      if (state_ == State::kHead && parser_->beast.is_header_done()) {
        state_ = State::kBody;
        const std::string_view taken = bytes.substr(consumed - used, used);
        CheckLines(taken.substr(0, taken.find("\r\n\r\n")));
        if (state_ == State::kBody) CheckHead();
        if (state_ == State::kBody) ReadHead();
        parser_->beast.eager(true);
      }
      if (state_ == State::kBody && parser_->beast.is_done()) state_ = State::kDone;
    }
    if (used == 0 || state_ == State::kDone || state_ == State::kFailed) break;
  }
  return consumed;
}

// `head`: request line and headers, without the empty line. Beast unfolds what is folded, and
// forgets it.
void HttpRequestReader::CheckLines(std::string_view head) {
  const auto refuse = [this](std::string_view what) {
    Fail({.message = absl::StrCat("malformed HTTP: ", ToAbsl(what)), .code = "malformed_http"});
  };
  for (size_t i = 0; i < head.size(); ++i) {
    const bool line_end = head[i] == '\r' && i + 1 < head.size() && head[i + 1] == '\n';
    if (!line_end && (head[i] == '\r' || head[i] == '\n' || head[i] == '\0')) {
      return refuse("a control character in the head");
    }
    if (!line_end) continue;
    const std::string_view next = head.substr(i + 2);
    if (!next.empty() && (next[0] == ' ' || next[0] == '\t')) return refuse("a folded header line");
    const size_t colon = next.find(':');
    if (colon != std::string_view::npos && colon > 0 &&
        (next[colon - 1] == ' ' || next[colon - 1] == '\t')) {
      return refuse("space before a colon");
    }
    ++i;
  }
}

void HttpRequestReader::CheckFraming() {
  const auto& head = parser_->beast.get();
  const auto refuse = [this](std::string_view what) {
    Fail({.message = absl::StrCat("malformed HTTP: ", ToAbsl(what)), .code = "malformed_http"});
  };
  if (head.count(http::field::host) > 1) return refuse("more than one Host");
  if (head.count(http::field::content_length) > 1) return refuse("more than one Content-Length");
  // Beast takes a list of equal ones.
  if (Field(head, http::field::content_length).find_first_not_of("0123456789") !=
      std::string::npos) {
    return refuse("the Content-Length is not a number");
  }
  const size_t num_encodings = head.count(http::field::transfer_encoding);
  if (num_encodings == 0) return;
  if (head.version() < 11) return refuse("Transfer-Encoding in HTTP/1.0");
  if (head.count(http::field::content_length) > 0) {
    return refuse("both Content-Length and Transfer-Encoding");
  }
  if (num_encodings > 1 ||
      !absl::EqualsIgnoreCase(Field(head, http::field::transfer_encoding), "chunked")) {
    return refuse("the only Transfer-Encoding is chunked");
  }
}

void HttpRequestReader::CheckHead() {
  const auto& head = parser_->beast.get();
  if (head.version() != 10 && head.version() != 11) {
    Fail({.message = "only HTTP/1.0 and HTTP/1.1 are spoken here", .code = "malformed_http"});
    return;
  }
  if (head.version() == 11 && head.find(http::field::host) == head.end()) {
    Fail({.message = "the Host header is missing", .code = "malformed_http"});
    return;
  }
  CheckFraming();
  if (state_ == State::kFailed) return;
  // Of two keys a proxy in between may have checked the other one.
  for (const char* name : {"authorization", "x-api-key"}) {
    if (head.count(name) <= 1) continue;
    Fail({.message = absl::StrCat(name, " is given more than once"), .code = "invalid_value"});
    return;
  }
  // These travel on as gRPC metadata, where gRPC aborts the process on any other byte.
  for (const char* name : kForwardedHeaders) {
    for (const char c : Field(head, std::string_view(name))) {
      if (c >= 0x20 && c <= 0x7e) continue;
      Fail({.message = absl::StrCat(name, " may hold only printable ASCII"),
            .code = "invalid_value"});
      return;
    }
  }
  const std::string expect = Field(head, http::field::expect);
  if (expect.empty() || head.version() == 10) return;
  if (!absl::EqualsIgnoreCase(expect, "100-continue")) {
    Fail({.status = 417,
          .message = "the only expectation met here is 100-continue",
          .code = "expectation_failed"});
    return;
  }
  continue_wish_ = !parser_->beast.is_done();
}

bool HttpRequestReader::TakeContinueWish() { return std::exchange(continue_wish_, false); }

std::string HttpRequestReader::path() const {
  const auto target = parser_->beast.get().target();
  return PathOf({target.data(), target.size()}).value_or("");
}

void HttpRequestReader::ReadHead() {
  const auto& head = parser_->beast.get();
  request_.method.assign(head.method_string().data(), head.method_string().size());
  // A path that cannot be decoded matches no route.
  request_.path = PathOf({head.target().data(), head.target().size()}).value_or("");
  request_.content_type = Field(head, http::field::content_type);
  request_.content_encoding = Field(head, http::field::content_encoding);
  request_.request_id = Field(head, "X-Request-Id");
  request_.resume_window = Field(head, "X-Fastgen-Resume-Window");
  request_.timeout = Field(head, "X-Fastgen-Timeout");
  request_.last_event_id = Field(head, "Last-Event-ID");
  request_.origin = Field(head, http::field::origin);
  request_.preflight_method = Field(head, http::field::access_control_request_method);
  request_.preflight_headers = Field(head, http::field::access_control_request_headers);
  for (const char* name : kForwardedHeaders) {
    std::string value = Field(head, std::string_view(name));
    if (!value.empty()) request_.metadata.emplace_back(name, std::move(value));
  }
  request_.keep_alive = head.keep_alive();
  request_.chunked_allowed = head.version() >= 11;
}

HttpRequest HttpRequestReader::TakeRequest() {
  CHECK(state_ == State::kDone);
  HttpRequest request = std::exchange(request_, {});
  request.body = std::move(parser_->beast.get().body());
  Reset();
  return request;
}

}  // namespace fastgen::gateway
