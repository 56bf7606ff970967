// HttpConnection: one client's connection, plain or TLS; reads one request at a time, hands it to
// the router, writes the answer.
//
// One read is always outstanding, also while an answer is written: that is how a client that went
// away is noticed at once. Bytes read then are the next request's (pipelining) and wait, up to a
// bound, until this answer is complete. A connection that waits holds no buffer. Answers are
// double-buffered: events appended while a write is under way leave together with the next write.
// Invariants: 1. at most one read and one write outstanding; 2. an Exchange is told OnDisconnect at
// most once, and nothing after; 3. every phase but kBusy has a deadline, and so has each write; 4.
// an idle connection is closed by a drain at once, whatever blank lines it sends.
// Thread rule: its own strand, except Post, Close and CloseWhenIdle, which any thread may call.
// Tested by tests/server/gateway/http_server_test.cc.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "server/gateway/byte_stream.h"
#include "server/gateway/exchange.h"
#include "server/gateway/http_request_reader.h"
#include "server/gateway/http_server.h"

namespace fastgen::gateway {

class HttpConnection final : public ResponseWriter,
                             public ByteStream::User,
                             public std::enable_shared_from_this<HttpConnection> {
 public:
  using Clock = std::chrono::steady_clock;
  // Starts the answer to a request; nullptr when it was answered on the spot.
  using Handler =
      std::function<std::shared_ptr<Exchange>(HttpRequest, std::shared_ptr<ResponseWriter>)>;
  using OnEnd = std::function<void(HttpConnection*)>;

  // `draining`: answers carry "Connection: close". The stream's executor is this connection's
  // strand.
  HttpConnection(std::unique_ptr<ByteStream> stream, const GatewayOptions& options, Handler handler,
                 const std::atomic<bool>& draining, OnEnd on_end);
  ~HttpConnection() override;

  void Start();
  // Closes: there are too many connections. Says so with 503 where that costs no handshake.
  void Refuse();
  void Close();
  void CloseWhenIdle();

  void Respond(HttpResponse response) override;
  void StartEvents(const Headers& headers) override;
  std::string& events() override { return pending_; }
  void FlushEvents() override;
  void EndEvents() override;
  size_t num_unsent_bytes() const override { return pending_.size() + writing_.size(); }
  void WatchForSilence() override;
  void HandOver(std::shared_ptr<Exchange> next) override;
  void Post(std::function<void()> task) override;

 private:
  enum class Phase { kHandshake, kIdle, kReading, kBusy, kLingering, kClosed };
  enum class Body { kWhole, kChunked, kUntilClose };

  void Read();
  void OnHandshake(const boost::system::error_code& error) override;
  void OnReadable(const boost::system::error_code& error) override;
  void OnBytes(std::string_view bytes);
  void Advance();
  void BeIdle();
  void SkipBlankLines();
  void RefuseInput(const ApiError& error);
  void Dispatch();
  void AppendHead(int status, const Headers& headers, std::string* out);
  void Write();
  void OnWritten(const boost::system::error_code& error) override;
  void FinishAnswer();
  void Linger();
  void Shut();
  void SetDeadline(Clock::time_point at);
  void OnTimer();
  Clock::time_point ReadDeadline() const;
  Clock::duration TransferTime(size_t num_bytes) const;

  // First, so that the I/O context lives until all other members are gone.
  boost::asio::executor_work_guard<boost::asio::any_io_executor> work_;
  const std::unique_ptr<ByteStream> stream_;
  boost::asio::steady_timer timer_;
  const GatewayOptions& options_;
  const Handler handler_;
  const std::atomic<bool>& draining_;
  const OnEnd on_end_;

  Phase phase_ = Phase::kIdle;
  HttpRequestReader reader_;
  std::string input_;  // read and not yet consumed
  bool read_outstanding_ = false;
  Clock::time_point request_start_;
  size_t num_bytes_in_ = 0;     // of the request being read, or discarded while lingering
  size_t num_blank_bytes_ = 0;  // that came while idle

  std::shared_ptr<Exchange> exchange_;
  std::string request_id_;    // sent back unless the handler names one
  std::string cors_headers_;  // of this answer, whole lines
  bool keep_alive_ = true;
  bool chunked_allowed_ = true;
  bool head_only_ = false;
  Body body_ = Body::kWhole;
  bool answer_started_ = false;
  bool answer_ended_ = false;
  bool watch_for_silence_ = false;

  std::string head_;     // of the answer; leaves before the first body bytes
  std::string pending_;  // appended, not yet in a write
  std::string writing_;  // in the outstanding write
  std::string frame_;    // head and chunk size before `writing_`
  bool write_outstanding_ = false;
  Clock::time_point write_deadline_;
  Clock::time_point last_write_;
};

}  // namespace fastgen::gateway
