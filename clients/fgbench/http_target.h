// HttpTarget: /v1/completions of an OpenAI-compatible server, streamed.
//
// One thread drives all connections through libcurl's socket interface and epoll, so that a wakeup
// costs what the sockets that woke it cost, not all of them; connections are kept alive between
// requests. Each event's JSON is read in full. Output tokens are the usage's that the stream ends
// with; of a server that sends none, events with text are counted instead. Thread rule: Target's;
// the handles are the thread's own. Tested by tests/e2e/test_fgbench.py.
#pragma once

#include <curl/curl.h>

#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "clients/fgbench/target.h"

namespace fastgen {

class HttpTarget final : public Target {
 public:
  // `url`: http://host:port, with or without a path before /v1. `model`: what requests ask for;
  // empty: the first one that the server lists.
  HttpTarget(const std::string& url, const std::string& model, const RequestShape& shape);
  ~HttpTarget() override;

  absl::StatusOr<std::string> Probe() override;
  void Start(const std::string& prompt, Done done) override;
  void CancelAll() override;

 private:
  class Call;

  // libcurl's callbacks: what to watch, and when to call again.
  static int OnSocket(CURL* handle, curl_socket_t socket, int what, void* self, void* known);
  static int OnTimer(CURLM* multi, long timeout_ms, void* self);

  void Run();
  void TakeOrders();
  void Begin(std::unique_ptr<Call> call);
  void FinishDone();
  void End(CURL* handle, CURLcode code);
  void Wake();
  CURL* TakeHandle();

  const std::string url_;
  const RequestShape shape_;
  std::string model_;  // set before the first Start
  curl_slist* headers_ = nullptr;
  int epoll_ = -1;
  int wake_ = -1;  // eventfd: there are orders

  // The thread's own.
  CURLM* multi_ = nullptr;
  BenchClock::time_point timer_ = BenchClock::time_point::max();
  std::unordered_map<CURL*, std::unique_ptr<Call>> calls_;
  std::vector<CURL*> spare_handles_;

  Mutex mutex_;
  std::vector<std::unique_ptr<Call>> to_begin_ ABSL_GUARDED_BY(mutex_);
  bool cancel_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fastgen
