#include "hub/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/strings.h"

namespace fastgen {
namespace {

constexpr long kMaxRedirects = 8;
constexpr long kSlowestBytesPerSecond = 1024;
constexpr size_t kMaxHeaderBytes = 64 << 10;
constexpr long kReceiveBytes = 256 << 10;
constexpr absl::Duration kRunWait = absl::Seconds(1);

}  // namespace

struct CurlTransfer {
  CURLM* multi = nullptr;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  HttpSink sink;
  HttpAnswer answer;
  size_t header_bytes = 0;
  bool sink_refused = false;
  bool has_ended = false;
  absl::Status status;
  std::string host;
  char error_text[CURL_ERROR_SIZE] = "";

  ~CurlTransfer() {
    if (!has_ended) curl_multi_remove_handle(multi, easy);
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
  }
};

namespace {

size_t OnHeader(char* data, size_t size, size_t count, void* user) {
  CurlTransfer* transfer = static_cast<CurlTransfer*>(user);
  const size_t num_bytes = size * count;
  transfer->header_bytes += num_bytes;
  if (transfer->header_bytes > kMaxHeaderBytes) return 0;
  const absl::string_view line = absl::StripAsciiWhitespace(absl::string_view(data, num_bytes));
  if (absl::StartsWith(line,
                       "HTTP/")) {  // the first line of an answer, of which a chain has several
    transfer->answer.headers.clear();
    return num_bytes;
  }
  const size_t colon = line.find(':');
  if (colon != absl::string_view::npos) {
    transfer->answer.headers[absl::AsciiStrToLower(line.substr(0, colon))] =
        std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return num_bytes;
}

void ReadInfo(CurlTransfer* transfer) {
  long status = 0;
  curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
  transfer->answer.status = static_cast<int>(status);
  curl_off_t retry_after = 0;
  curl_easy_getinfo(transfer->easy, CURLINFO_RETRY_AFTER, &retry_after);
  transfer->answer.retry_after = absl::Seconds(std::max<curl_off_t>(retry_after, 0));
  const char* url = nullptr;
  curl_easy_getinfo(transfer->easy, CURLINFO_REDIRECT_URL, &url);
  transfer->answer.redirect_url = url != nullptr ? url : "";
}

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  CurlTransfer* transfer = static_cast<CurlTransfer*>(user);
  ReadInfo(transfer);
  if (transfer->sink(transfer->answer, std::string_view(data, size * count))) return size * count;
  transfer->sink_refused = true;
  return 0;
}

void SetTarget(CurlTransfer* transfer, const HttpRequest& request) {
  CURL* easy = transfer->easy;
  curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(easy, CURLOPT_NOBODY, request.method == HttpMethod::kHead ? 1L : 0L);
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, request.method == HttpMethod::kGet ? 1L : 0L);
  curl_easy_setopt(easy, CURLOPT_MAXREDIRS, kMaxRedirects);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR,
                   absl::StartsWith(request.url, "https:") ? "https" : "http,https");
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "fastgen");
  if (request.range_begin >= 0) {
    const std::string range = absl::StrCat(request.range_begin, "-", request.range_end - 1);
    curl_easy_setopt(easy, CURLOPT_RANGE, range.c_str());
  }
  if (request.token.empty()) return;
  transfer->headers =
      curl_slist_append(nullptr, absl::StrCat("Authorization: Bearer ", request.token).c_str());
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
}

void SetAuthorities(CURL* easy, const std::string& path) {
  std::error_code error;
  if (path.empty()) return;
  if (!std::filesystem::is_directory(path, error)) {
    curl_easy_setopt(easy, CURLOPT_CAINFO, path.c_str());
    return;
  }
  curl_easy_setopt(easy, CURLOPT_CAINFO, nullptr);  // these instead of the system's
  curl_easy_setopt(easy, CURLOPT_CAPATH, path.c_str());
}

void SetLimits(CurlTransfer* transfer, const HttpRequest& request, const HttpLimits& limits) {
  CURL* easy = transfer->easy;
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(absl::ToInt64Milliseconds(limits.connect)));
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, kSlowestBytesPerSecond);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME,
                   static_cast<long>(std::max<int64_t>(absl::ToInt64Seconds(limits.stall), 1)));
  if (request.timeout != absl::InfiniteDuration()) {
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                     static_cast<long>(absl::ToInt64Milliseconds(request.timeout)));
  }
  SetAuthorities(easy, limits.ca_file);
}

void SetCallbacks(CurlTransfer* transfer) {
  CURL* easy = transfer->easy;
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error_text);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, OnHeader);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kReceiveBytes);
  curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
}

// Whether another attempt would end alike.
bool IsPermanent(CURLcode code) {
  return code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT ||
         code == CURLE_TOO_MANY_REDIRECTS || code == CURLE_PEER_FAILED_VERIFICATION ||
         code == CURLE_SSL_CACERT_BADFILE;
}

// What the user can do something about is said in words; the rest in libcurl's.
std::string Reason(CURLcode code, const CurlTransfer& transfer) {
  if (transfer.header_bytes > kMaxHeaderBytes)
    return absl::StrCat("more than ", kMaxHeaderBytes, " bytes of headers");
  const std::string text =
      transfer.error_text[0] != '\0' ? transfer.error_text : curl_easy_strerror(code);
  switch (code) {
    case CURLE_TOO_MANY_REDIRECTS:
      return absl::StrCat("more than ", kMaxRedirects, " redirects");
    case CURLE_UNSUPPORTED_PROTOCOL:
      return absl::StrCat("leads to a protocol that is not allowed: ", text);
    case CURLE_URL_MALFORMAT:
      return absl::StrCat("malformed address: ", text);
    case CURLE_PEER_FAILED_VERIFICATION:
      return absl::StrCat("the server's certificate is not trusted: ", text,
                          "; REQUESTS_CA_BUNDLE may name other authorities");
    case CURLE_SSL_CACERT_BADFILE:
      return absl::StrCat(
          "the certificates that REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE names, or the "
          "system's, cannot be read: ",
          text);
    default:
      return text;
  }
}

void End(CurlTransfer* transfer, CURLcode code) {
  ReadInfo(transfer);
  curl_multi_remove_handle(transfer->multi, transfer->easy);
  transfer->has_ended = true;
  // A sink that wants no more has its own reason.
  if (code == CURLE_OK || transfer->sink_refused) return;
  const absl::StatusCode status =
      IsPermanent(code) ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kUnavailable;
  transfer->status = absl::Status(
      status,
      absl::StrCat(transfer->host, transfer->host.empty() ? "" : ": ", Reason(code, *transfer)));
}

}  // namespace

HttpTransfer::HttpTransfer(std::unique_ptr<CurlTransfer> curl) : curl_(std::move(curl)) {}
HttpTransfer::~HttpTransfer() = default;
bool HttpTransfer::has_ended() const { return curl_->has_ended; }
const absl::Status& HttpTransfer::status() const { return curl_->status; }
const HttpAnswer& HttpTransfer::answer() const { return curl_->answer; }

HttpClient::HttpClient(const HttpLimits& limits)
    : limits_(limits), multi_([] {
        static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
        CHECK(initialized == CURLE_OK) << "libcurl";
        return curl_multi_init();
      }()) {
  CHECK(multi_ != nullptr) << "libcurl";
}

HttpClient::~HttpClient() { curl_multi_cleanup(multi_); }

std::unique_ptr<HttpTransfer> HttpClient::Start(const HttpRequest& request, HttpSink sink) {
  auto transfer = std::make_unique<CurlTransfer>();
  transfer->multi = multi_;
  transfer->easy = curl_easy_init();
  CHECK(transfer->easy != nullptr) << "libcurl";
  transfer->sink = std::move(sink);
  transfer->host = HostOf(request.url);
  SetTarget(transfer.get(), request);
  SetLimits(transfer.get(), request, limits_);
  SetCallbacks(transfer.get());
  CHECK(curl_multi_add_handle(multi_, transfer->easy) == CURLM_OK) << "libcurl";
  return std::unique_ptr<HttpTransfer>(new HttpTransfer(std::move(transfer)));
}

void HttpClient::Wait(absl::Duration timeout) {
  int num_running = 0;
  curl_multi_perform(multi_, &num_running);
  int num_messages = 0;
  bool any_ended = false;
  while (CURLMsg* message = curl_multi_info_read(multi_, &num_messages)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    char* transfer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
    End(reinterpret_cast<CurlTransfer*>(transfer), code);
    any_ended = true;
  }
  if (any_ended) return;
  const int64_t wait_ms = std::clamp<int64_t>(absl::ToInt64Milliseconds(timeout), 0, 60'000);
  curl_multi_poll(multi_, nullptr, 0, static_cast<int>(wait_ms), nullptr);
}

absl::StatusOr<HttpAnswer> HttpClient::Run(const HttpRequest& request, int64_t max_body_bytes) {
  std::string body;
  const auto transfer = Start(request, [&](const HttpAnswer&, std::string_view bytes) {
    if (static_cast<int64_t>(body.size() + bytes.size()) > max_body_bytes) return false;
    body.append(bytes);
    return true;
  });
  while (!transfer->has_ended()) Wait(kRunWait);
  if (!transfer->status().ok()) return transfer->status();
  if (transfer->curl_->sink_refused) {
    return absl::DataLossError(
        absl::StrCat(HostOf(request.url), ": an answer of more than ", max_body_bytes, " bytes"));
  }
  HttpAnswer answer = transfer->answer();
  answer.body = std::move(body);
  return answer;
}

std::string UrlEscape(std::string_view text, Slash slash) {
  std::string escaped;
  for (const unsigned char c : text) {
    const bool is_plain = absl::ascii_isalnum(c) || std::strchr("-._~", c) != nullptr;
    if ((is_plain && c != '\0') || (c == '/' && slash == Slash::kKeep)) {
      escaped.push_back(static_cast<char>(c));
    } else {
      constexpr char kHex[] = "0123456789ABCDEF";
      escaped += {'%', kHex[c >> 4], kHex[c & 15]};
    }
  }
  return escaped;
}

std::string HostOf(const std::string& url) {
  std::string host;
  CURLU* parts = curl_url();
  char* text = nullptr;
  if (curl_url_set(parts, CURLUPART_URL, url.c_str(), 0) == CURLUE_OK &&
      curl_url_get(parts, CURLUPART_HOST, &text, 0) == CURLUE_OK) {
    host = text;
    curl_free(text);
  }
  curl_url_cleanup(parts);
  return host;
}

std::string WithoutUserinfo(const std::string& url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string::npos) return url;
  const size_t begin = scheme + 3;
  const size_t at = url.substr(0, url.find_first_of("/?#", begin)).rfind('@');
  if (at == std::string::npos || at < begin) return url;
  return url.substr(0, begin) + url.substr(at + 1);
}

}  // namespace fastgen
