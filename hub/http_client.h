// HttpClient: HTTP requests through libcurl, several at once on one thread, over kept connections.
//
//   HttpClient client(limits);
//   auto answer = client.Run({.url = url, .token = token}, kMaxListingBytes);  // one, whole
//   auto transfer = client.Start({.url = url}, on_bytes);  // or many, then Wait for their ends
// The token goes to the host of `url` alone: libcurl drops the header when a redirect leads to
// another scheme, host or port. A GET follows redirects (kMaxRedirects; from https only to https),
// a HEAD tells where it leads. A transfer that stands still for limits.stall ends. Nothing is
// retried here. No header or URL is logged.
// Thread rule: one thread; HttpTransfers end before their client.
// Tested by tests/hub/download_test.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace fastgen {

struct HttpLimits {
  absl::Duration connect = absl::Seconds(10);
  absl::Duration stall = absl::Seconds(30);  // without 1 KiB/s
  std::string ca_file;                       // or folder; "": the system's certificates
};

enum class HttpMethod { kGet, kHead };

struct HttpRequest {
  HttpMethod method = HttpMethod::kGet;
  std::string url;
  std::string token;  // "": none
  // Bytes [range_begin, range_end) of the body; -1: all of it.
  int64_t range_begin = -1;
  int64_t range_end = -1;
  absl::Duration timeout = absl::InfiniteDuration();  // of the whole exchange
};

struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string> headers;  // of the last answer of a chain; names in lower case
  std::string redirect_url;                    // absolute; of a redirect that was not followed
  absl::Duration retry_after;                  // 0: not told
  std::string body;                            // Run only
};

// Takes the next bytes of a body; false ends the transfer.
using HttpSink = std::function<bool(const HttpAnswer& answer, std::string_view bytes)>;

struct CurlTransfer;

class HttpTransfer {
 public:
  // Ends it if still under way.
  ~HttpTransfer();
  HttpTransfer(const HttpTransfer&) = delete;
  HttpTransfer& operator=(const HttpTransfer&) = delete;

  bool has_ended() const;
  // After the end. UNAVAILABLE when there was no whole answer (no connection, cut off, stalled),
  // FAILED_PRECONDITION when there will be none at another attempt either (a redirect to a protocol
  // that is not allowed, too many of them, a malformed address, certificates); else OK, whatever
  // the answer's status.
  const absl::Status& status() const;
  const HttpAnswer& answer() const;

 private:
  friend class HttpClient;
  explicit HttpTransfer(std::unique_ptr<CurlTransfer> curl);
  std::unique_ptr<CurlTransfer> curl_;
};

class HttpClient {
 public:
  explicit HttpClient(const HttpLimits& limits);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  std::unique_ptr<HttpTransfer> Start(const HttpRequest& request, HttpSink sink);
  // Moves all transfers on, waiting for the network or for `timeout` when there is nothing to do.
  void Wait(absl::Duration timeout);
  // One exchange. DATA_LOSS when the body has more than `max_body_bytes`.
  absl::StatusOr<HttpAnswer> Run(const HttpRequest& request, int64_t max_body_bytes);

 private:
  const HttpLimits limits_;
  void* const multi_;
};

// `text` as part of a URL: what is not a letter, digit or one of -._~ is escaped; '/' too unless
// `keep_slash`.
enum class Slash { kKeep, kEscape };
std::string UrlEscape(std::string_view text, Slash slash);

// "huggingface.co" of "https://huggingface.co/x".
std::string HostOf(const std::string& url);
// "https://host/x" of "https://user:password@host/x", to be shown.
std::string WithoutUserinfo(const std::string& url);

}  // namespace fastgen
