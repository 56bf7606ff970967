// One HTTP request and its answer, as the handlers see them: no socket, no Beast.
//
// A handler gets an HttpRequest and a ResponseWriter (the connection). It answers either once with
// Respond, or with StartEvents, events + FlushEvents any number of times, EndEvents. What outlives
// the handler call is an Exchange, which the connection keeps until the answer is complete and
// tells when the client is gone.
// Thread rule: everything on the connection's strand, except ResponseWriter::Post, which any thread
// may call.
// Tested by tests/server/gateway/*_test.cc.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fastgen::gateway {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;
  std::string path;  // percent-decoded, without query
  std::string body;
  std::string content_type;       // "" when absent
  std::string content_encoding;   // "" when absent
  std::string request_id;         // X-Request-Id
  std::string resume_window;      // X-Fastgen-Resume-Window
  std::string timeout;            // X-Fastgen-Timeout
  std::string last_event_id;      // Last-Event-ID
  std::string origin;             // Origin: the web page that asks
  std::string preflight_method;   // Access-Control-Request-Method
  std::string preflight_headers;  // Access-Control-Request-Headers
  Headers metadata;               // what travels on as gRPC metadata: keys and trace context
  bool keep_alive = true;
  bool chunked_allowed = true;  // false for HTTP/1.0
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  Headers headers;
};

// Something that goes on after its handler returned: a gRPC call whose result is the answer.
class Exchange {
 public:
  virtual ~Exchange() = default;
  // The client is gone; nothing may be written any more. Last call.
  virtual void OnDisconnect() = 0;
  // All events written so far have left.
  virtual void OnDrained() {}
  // Nothing was written for a keep-alive interval (only after WatchForSilence).
  virtual void OnSilence() {}
};

class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;
  virtual void Respond(HttpResponse response) = 0;

  virtual void StartEvents(const Headers& headers) = 0;
  // Complete SSE events are appended here and leave with FlushEvents.
  virtual std::string& events() = 0;
  virtual void FlushEvents() = 0;
  virtual void EndEvents() = 0;
  // Bytes appended that have not left yet.
  virtual size_t num_unsent_bytes() const = 0;
  virtual void WatchForSilence() = 0;
  // `next` goes on with the answer that another Exchange began.
  virtual void HandOver(std::shared_ptr<Exchange> next) = 0;

  // Runs `task` on the connection's strand, in order of posting.
  virtual void Post(std::function<void()> task) = 0;
};

}  // namespace fastgen::gateway
