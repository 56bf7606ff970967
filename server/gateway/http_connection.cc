#include "server/gateway/http_connection.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/strings.h"
#include "server/gateway/cors.h"
#include "server/gateway/errors.h"
#include "server/gateway/request_id.h"
#include "server/gateway/sse.h"

namespace fastgen::gateway {
namespace asio = boost::asio;
using boost::system::error_code;

namespace {

// Read ahead of the request being answered. A client that pipelines more waits in its socket.
constexpr size_t kMaxReadAheadBytes = 64 << 10;
constexpr size_t kHeadReadBytes = 8 << 10;
constexpr size_t kBodyReadBytes = 64 << 10;
// A transfer may take one second more for each of these.
constexpr size_t kBytesPerSecond = 64 << 10;
// After an error the rest of the request is read and dropped for this long, so that the client sees
// the answer and not a reset.
constexpr std::chrono::seconds kLingerTime(2);
constexpr size_t kMaxLingerBytes = 64 << 20;
// A buffer that one large event has grown is given back at once, all of them by an idle connection.
constexpr size_t kMaxKeptBufferBytes = 256 << 10;

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    default:
      return "Status";
  }
}

void DropContent(std::string* buffer) {
  buffer->clear();
  if (buffer->capacity() > kMaxKeptBufferBytes) buffer->shrink_to_fit();
}

void Free(std::string* buffer) {
  if (buffer->empty()) std::string().swap(*buffer);
}

}  // namespace

HttpConnection::HttpConnection(std::unique_ptr<ByteStream> stream, const GatewayOptions& options,
                               Handler handler, const std::atomic<bool>& draining, OnEnd on_end)
    : work_(asio::make_work_guard(stream->executor())),
      stream_(std::move(stream)),
      timer_(stream_->executor()),
      options_(options),
      handler_(std::move(handler)),
      draining_(draining),
      on_end_(std::move(on_end)),
      reader_(options.max_head_bytes, options.max_body_bytes) {}

HttpConnection::~HttpConnection() { on_end_(this); }

void HttpConnection::Start() {
  asio::dispatch(stream_->executor(), [self = shared_from_this()] {
    if (self->phase_ == Phase::kClosed) return;
    // Accepted while the listener closed: nobody else would tell this connection.
    if (self->draining_.load(std::memory_order_relaxed)) {
      self->Shut();
      return;
    }
    if (!self->stream_->needs_handshake()) {
      self->BeIdle();
      return;
    }
    self->phase_ = Phase::kHandshake;
    self->SetDeadline(Clock::now() + absl::ToChronoNanoseconds(self->options_.handshake_timeout));
    self->stream_->Handshake(self);
  });
}

void HttpConnection::OnHandshake(const error_code& error) {
  if (phase_ != Phase::kHandshake) return;
  if (error) {
    Shut();
  } else {
    BeIdle();
  }
}

void HttpConnection::BeIdle() {
  phase_ = Phase::kIdle;
  num_blank_bytes_ = 0;
  for (std::string* buffer : {&input_, &head_, &pending_, &writing_, &frame_}) Free(buffer);
  SetDeadline(Clock::now() + absl::ToChronoNanoseconds(options_.idle_timeout));
  Advance();
}

void HttpConnection::Refuse() {
  asio::dispatch(stream_->executor(), [self = shared_from_this()] {
    if (self->phase_ == Phase::kClosed) return;
    if (self->stream_->needs_handshake()) {
      self->Shut();
      return;
    }
    self->RefuseInput({.status = 503,
                       .message = absl::StrCat("more than ", self->options_.max_connections,
                                               " connections are open"),
                       .code = "too_many_connections",
                       .retry_after_s = 1});
  });
}

void HttpConnection::Close() {
  asio::dispatch(stream_->executor(), [self = shared_from_this()] { self->Shut(); });
}

void HttpConnection::CloseWhenIdle() {
  asio::dispatch(stream_->executor(), [self = shared_from_this()] {
    if (self->phase_ == Phase::kIdle || self->phase_ == Phase::kHandshake) self->Shut();
    if (self->phase_ == Phase::kReading) self->SetDeadline(self->ReadDeadline());
  });
}

void HttpConnection::Post(std::function<void()> task) {
  asio::post(stream_->executor(), std::move(task));
}

// ---- reading

void HttpConnection::Read() {
  if (read_outstanding_ || phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kBusy && input_.size() >= kMaxReadAheadBytes) return;
  read_outstanding_ = true;
  stream_->WaitReadable(shared_from_this());
}

void HttpConnection::OnReadable(const error_code& waited) {
  read_outstanding_ = false;
  if (phase_ == Phase::kClosed) return;
  char bytes[kBodyReadBytes];  // not zeroed: only what was read is looked at
  const bool body =
      reader_.state() == HttpRequestReader::State::kBody || phase_ == Phase::kLingering;
  error_code error = waited;
  size_t num_bytes = 0;
  if (!error) num_bytes = stream_->ReadSome(bytes, body ? kBodyReadBytes : kHeadReadBytes, &error);
  if (error == asio::error::would_block) {
    Read();
  } else if (error) {
    Shut();
  } else {
    OnBytes({bytes, num_bytes});
  }
}

void HttpConnection::OnBytes(std::string_view bytes) {
  if (phase_ == Phase::kLingering) {
    num_bytes_in_ += bytes.size();
    if (num_bytes_in_ > kMaxLingerBytes) {
      Shut();
    } else {
      Read();
    }
    return;
  }
  input_ += bytes;
  if (phase_ == Phase::kBusy) {
    Read();
    return;
  }
  num_bytes_in_ += bytes.size();
  Advance();
}

// Some clients end a body with an empty line too many: that begins no request, and earns no time.
void HttpConnection::SkipBlankLines() {
  const size_t num_blank = std::min(input_.find_first_not_of("\r\n"), input_.size());
  num_blank_bytes_ += num_blank;
  input_.erase(0, num_blank);
}

// Answers what is no request, or not a whole one; the connection ends with it.
void HttpConnection::RefuseInput(const ApiError& error) {
  phase_ = Phase::kBusy;
  keep_alive_ = false;
  head_only_ = false;
  Respond(ErrorResponse(error, ErrorShapeOf(reader_.path()), ""));
}

void HttpConnection::Advance() {
  if (phase_ == Phase::kIdle) {
    SkipBlankLines();
    if (num_blank_bytes_ > static_cast<size_t>(options_.max_head_bytes)) {
      RefuseInput(
          {.status = 431,
           .message = absl::StrCat("more than ", options_.max_head_bytes, " bytes of empty lines"),
           .code = "head_too_large"});
      return;
    }
    if (!input_.empty()) {
      phase_ = Phase::kReading;
      request_start_ = Clock::now();
      num_bytes_in_ = input_.size();
    }
  }
  if (phase_ == Phase::kReading) {
    input_.erase(0, reader_.Feed(input_));
    if (reader_.state() == HttpRequestReader::State::kDone) {
      Dispatch();
      return;
    }
    if (reader_.state() == HttpRequestReader::State::kFailed) {
      RefuseInput(reader_.error());
      return;
    }
    // The parser takes body bytes as they come: what it leaves is an unfinished chunk head or
    // trailer, and it sets no bound on those.
    if (reader_.state() == HttpRequestReader::State::kBody &&
        input_.size() > static_cast<size_t>(options_.max_head_bytes)) {
      RefuseInput({.status = 431,
                   .message = "a chunk's head or trailer is too large",
                   .code = "head_too_large"});
      return;
    }
    if (reader_.TakeContinueWish()) {
      head_ = "HTTP/1.1 100 Continue\r\n\r\n";
      Write();
    }
    SetDeadline(ReadDeadline());
  }
  Read();
}

void HttpConnection::Dispatch() {
  phase_ = Phase::kBusy;
  timer_.cancel();
  HttpRequest request = reader_.TakeRequest();
  if (IsRequestId(request.request_id)) request_id_ = request.request_id;
  keep_alive_ = request.keep_alive;
  chunked_allowed_ = request.chunked_allowed;
  head_only_ = request.method == "HEAD";
  cors_headers_ = CorsHeaders(options_.cors_origins, request);
  Read();
  std::shared_ptr<Exchange> exchange = handler_(std::move(request), shared_from_this());
  if (phase_ == Phase::kBusy && !answer_ended_) exchange_ = std::move(exchange);
}

// ---- writing

void HttpConnection::AppendHead(int status, const Headers& headers, std::string* out) {
  if (draining_.load(std::memory_order_relaxed)) keep_alive_ = false;
  absl::StrAppend(
      out, "HTTP/1.1 ", status, " ", ToAbsl(ReasonPhrase(status)), "\r\nServer: fastgen\r\nDate: ",
      absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(), absl::UTCTimeZone()), "\r\n");
  bool named = false;
  for (const auto& [name, value] : headers) {
    if (name == "X-Request-Id") named = true;
    absl::StrAppend(out, name, ": ", value, "\r\n");
  }
  if (!named) {
    absl::StrAppend(out, "X-Request-Id: ", request_id_.empty() ? NewRequestId() : request_id_,
                    "\r\n");
  }
  out->append(cors_headers_);
  if (!keep_alive_) {
    out->append("Connection: close\r\n");
  } else if (!chunked_allowed_) {
    out->append("Connection: keep-alive\r\n");
  }
}

void HttpConnection::Respond(HttpResponse response) {
  if (phase_ != Phase::kBusy) return;
  CHECK(!answer_started_) << "one answer a request";
  answer_started_ = answer_ended_ = true;
  body_ = Body::kWhole;
  AppendHead(response.status, response.headers, &head_);
  if (response.status != 204) {
    absl::StrAppend(&head_, "Content-Type: ", response.content_type,
                    "\r\nContent-Length: ", response.body.size(), "\r\n");
  }
  head_ += "\r\n";
  if (!head_only_) pending_ = std::move(response.body);
  Write();
}

void HttpConnection::StartEvents(const Headers& headers) {
  if (phase_ != Phase::kBusy) return;
  CHECK(!answer_started_) << "one answer a request";
  answer_started_ = true;
  body_ = chunked_allowed_ ? Body::kChunked : Body::kUntilClose;
  if (body_ == Body::kUntilClose) keep_alive_ = false;
  AppendHead(200, headers, &head_);
  head_ +=
      "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: "
      "no-cache\r\nX-Accel-Buffering: no\r\n";
  head_ += body_ == Body::kChunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n";
}

void HttpConnection::FlushEvents() {
  if (phase_ == Phase::kBusy) Write();
}

void HttpConnection::EndEvents() {
  if (phase_ != Phase::kBusy) return;
  answer_ended_ = true;
  Write();
  if (!write_outstanding_) FinishAnswer();
}

void HttpConnection::WatchForSilence() {
  if (phase_ != Phase::kBusy) return;
  watch_for_silence_ = true;
  last_write_ = Clock::now();
  SetDeadline(last_write_ + absl::ToChronoNanoseconds(options_.keep_alive_interval));
}

void HttpConnection::HandOver(std::shared_ptr<Exchange> next) {
  if (phase_ == Phase::kBusy) {
    if (!answer_ended_) exchange_ = std::move(next);
  } else {
    next->OnDisconnect();
  }
}

void HttpConnection::Write() {
  if (write_outstanding_) return;
  const bool ending = answer_ended_ && body_ == Body::kChunked;
  if (head_.empty() && pending_.empty() && !ending) return;
  writing_.swap(pending_);
  frame_.swap(head_);
  head_.clear();
  std::string_view tail;
  if (body_ == Body::kChunked && answer_started_) {
    if (!writing_.empty()) {
      AppendChunkHead(writing_.size(), &frame_);
      writing_ += kChunkEnd;
    }
    if (ending) tail = kLastChunk;
  }
  if (ending) body_ = Body::kWhole;  // the last chunk is in this write
  write_outstanding_ = true;
  last_write_ = Clock::now();
  write_deadline_ = last_write_ + TransferTime(frame_.size() + writing_.size());
  if (phase_ == Phase::kBusy && !watch_for_silence_) SetDeadline(write_deadline_);
  const ByteStream::Pieces pieces = {asio::buffer(frame_), asio::buffer(writing_),
                                     asio::const_buffer(tail.data(), tail.size())};
  stream_->Write(pieces, shared_from_this());
}

void HttpConnection::OnWritten(const error_code& error) {
  write_outstanding_ = false;
  frame_.clear();
  DropContent(&writing_);
  if (phase_ == Phase::kClosed) return;
  if (error) {
    Shut();
    return;
  }
  Write();
  if (write_outstanding_ || phase_ != Phase::kBusy) return;
  if (answer_ended_) {
    FinishAnswer();
  } else if (exchange_ != nullptr) {
    if (!watch_for_silence_) timer_.cancel();
    exchange_->OnDrained();
  }
}

void HttpConnection::FinishAnswer() {
  exchange_.reset();
  request_id_.clear();
  cors_headers_.clear();
  answer_started_ = answer_ended_ = watch_for_silence_ = false;
  body_ = Body::kWhole;
  if (!keep_alive_ || draining_.load(std::memory_order_relaxed)) {
    Linger();
    return;
  }
  BeIdle();
}

// ---- the end

void HttpConnection::Linger() {
  stream_->EndSending();
  phase_ = Phase::kLingering;
  num_bytes_in_ = 0;
  input_.clear();
  SetDeadline(Clock::now() + kLingerTime);
  Read();
}

void HttpConnection::Shut() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  stream_->Close();
  timer_.cancel();
  if (std::shared_ptr<Exchange> exchange = std::move(exchange_)) exchange->OnDisconnect();
}

// ---- time

HttpConnection::Clock::duration HttpConnection::TransferTime(size_t num_bytes) const {
  return absl::ToChronoNanoseconds(options_.transfer_timeout) +
         std::chrono::milliseconds(num_bytes * 1000 / kBytesPerSecond);
}

// A large body gets the time that it needs, as long as nobody waits for the end; a head, or
// whatever else stands before a body, does not earn time by growing.
HttpConnection::Clock::time_point HttpConnection::ReadDeadline() const {
  const bool body = reader_.state() == HttpRequestReader::State::kBody;
  const bool patient = body && !draining_.load(std::memory_order_relaxed);
  return request_start_ + TransferTime(patient ? num_bytes_in_ : 0);
}

void HttpConnection::SetDeadline(Clock::time_point at) {
  timer_.expires_at(at);
  timer_.async_wait([self = shared_from_this()](const error_code& error) {
    // A wait that was replaced may already have been queued as expired: the newer one decides.
    if (!error && self->timer_.expiry() <= Clock::now()) self->OnTimer();
  });
}

void HttpConnection::OnTimer() {
  const Clock::time_point now = Clock::now();
  switch (phase_) {
    case Phase::kClosed:
      return;
    case Phase::kHandshake:
    case Phase::kIdle:
    case Phase::kLingering:
      Shut();
      return;
    case Phase::kReading:
      if (write_outstanding_) {
        Shut();
        return;
      }
      RefuseInput({.status = 408,
                   .message = "the request did not arrive in time",
                   .code = "request_timeout"});
      return;
    case Phase::kBusy:
      if (write_outstanding_ && now >= write_deadline_) {
        Shut();
        return;
      }
      if (!watch_for_silence_) return;
      if (write_outstanding_) {
        SetDeadline(write_deadline_);
        return;
      }
      const auto interval = absl::ToChronoNanoseconds(options_.keep_alive_interval);
      if (now - last_write_ >= interval) {
        if (const std::shared_ptr<Exchange> exchange = exchange_) exchange->OnSilence();
        if (phase_ != Phase::kBusy) return;
        last_write_ = std::max(last_write_, now);
      }
      SetDeadline(last_write_ + interval);
      return;
  }
}

}  // namespace fastgen::gateway
