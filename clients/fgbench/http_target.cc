#include "clients/fgbench/http_target.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "clients/fgbench/completion_events.h"
#include "clients/fgbench/sse_reader.h"

namespace fastgen {
namespace {

constexpr long kProbeTimeoutMs = 10'000;
constexpr size_t kMaxErrorBody = 64 << 10;

void StartCurlOnce() {
  static const bool started = [] {
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    return true;
  }();
  static_cast<void>(started);
}

// Without a last '/' and a last "/v1".
std::string BaseOf(std::string url) {
  while (!url.empty() && url.back() == '/') url.pop_back();
  if (absl::EndsWith(url, "/v1")) url.resize(url.size() - 3);
  return url;
}

size_t AppendBody(char* bytes, size_t size, size_t count, void* body) {
  auto* text = static_cast<std::string*>(body);
  if (text->size() + size * count > kMaxErrorBody * 16) return 0;
  text->append(bytes, size * count);
  return size * count;
}

void SetCommon(CURL* handle, const curl_slist* headers) {
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
  // Through a proxy, the proxy would be measured.
  curl_easy_setopt(handle, CURLOPT_NOPROXY, "*");
}

}  // namespace

// One request and what has come of its answer.
class HttpTarget::Call {
 public:
  Call(std::string body, Done done) : body_(std::move(body)), done_(std::move(done)) {}

  void Attach(CURL* handle) {
    handle_ = handle;
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, body_.data());
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body_.size()));
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &Call::OnBytes);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, this);
    result_.begin = BenchClock::now();
  }

  void Finish(CURLcode code) {
    result_.end = BenchClock::now();
    long status = 0;
    if (handle_ != nullptr) curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
    if (result_.error.empty() && status != 200 && status != 0) {
      result_.error = absl::StrCat("HTTP ", status, ": ", ErrorMessageOf(error_body_));
    } else if (result_.error.empty() && code != CURLE_OK) {
      result_.error = curl_easy_strerror(code);
    } else if (result_.error.empty() && !is_done_) {
      result_.error = "the stream ended without [DONE]";
    }
    if (!has_usage_) result_.output_tokens = static_cast<int32_t>(result_.arrivals.size());
    done_(std::move(result_));
  }
  void FinishCancelled() {
    result_.end = BenchClock::now();
    result_.cancelled = true;
    result_.error = "cancelled";
    done_(std::move(result_));
  }

 private:
  static size_t OnBytes(char* bytes, size_t size, size_t count, void* self) {
    return static_cast<Call*>(self)->Take({bytes, size * count}) ? size * count : 0;
  }

  // False ends the transfer.
  bool Take(std::string_view bytes) {
    if (!is_stream_.has_value()) {
      long status = 0;
      curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
      is_stream_ = status == 200;
    }
    if (!*is_stream_) {
      error_body_.append(
          bytes.substr(0, kMaxErrorBody - std::min(kMaxErrorBody, error_body_.size())));
      return true;
    }
    // What came together arrived together.
    const BenchClock::time_point now = BenchClock::now();
    const bool whole = reader_.Feed(bytes, [&](std::string_view data) { TakeEvent(data, now); });
    if (!whole && result_.error.empty()) result_.error = "an event of the stream is too large";
    return whole;
  }

  void TakeEvent(std::string_view data, BenchClock::time_point now) {
    CompletionEvent event = ReadCompletionEvent(data);
    is_done_ = is_done_ || event.done;
    if (event.has_text) result_.arrivals.push_back(now);
    if (event.prompt_tokens.has_value()) result_.prompt_tokens = *event.prompt_tokens;
    if (event.output_tokens.has_value()) result_.output_tokens = *event.output_tokens;
    has_usage_ = has_usage_ || event.output_tokens.has_value();
    if (result_.error.empty()) result_.error = std::move(event.error);
  }

  const std::string body_;
  const Done done_;
  CURL* handle_ = nullptr;
  std::optional<bool> is_stream_;
  SseReader reader_;
  std::string error_body_;
  bool is_done_ = false;
  bool has_usage_ = false;
  RequestResult result_;
};

HttpTarget::HttpTarget(const std::string& url, const std::string& model, const RequestShape& shape)
    : url_(BaseOf(url)), shape_(shape), model_(model) {
  StartCurlOnce();
  headers_ = curl_slist_append(headers_, "Content-Type: application/json");
  headers_ = curl_slist_append(headers_, "Expect:");
  if (!shape_.api_key.empty()) {
    headers_ =
        curl_slist_append(headers_, absl::StrCat("Authorization: Bearer ", shape_.api_key).c_str());
  }
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  CHECK(epoll_ >= 0 && wake_ >= 0);
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.fd = wake_;
  CHECK_EQ(epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event), 0);
  multi_ = curl_multi_init();
  CHECK(multi_ != nullptr);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &HttpTarget::OnSocket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &HttpTarget::OnTimer);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  thread_ = std::thread([this] { Run(); });
}

HttpTarget::~HttpTarget() {
  {
    MutexLock lock(&mutex_);
    cancel_ = stopping_ = true;
  }
  Wake();
  thread_.join();
  for (CURL* handle : spare_handles_) curl_easy_cleanup(handle);
  curl_multi_cleanup(multi_);
  curl_slist_free_all(headers_);
  close(wake_);
  close(epoll_);
}

absl::StatusOr<std::string> HttpTarget::Probe() {
  CURL* handle = curl_easy_init();
  CHECK(handle != nullptr);
  std::string body;
  SetCommon(handle, headers_);
  const std::string address = absl::StrCat(url_, "/v1/models");
  curl_easy_setopt(handle, CURLOPT_URL, address.c_str());
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, kProbeTimeoutMs);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &AppendBody);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &body);
  std::array<char, CURL_ERROR_SIZE> reason = {};
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, reason.data());
  const CURLcode code = curl_easy_perform(handle);
  long status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_cleanup(handle);
  if (code != CURLE_OK) {
    return absl::UnavailableError(absl::StrCat(
        "http ", url_, ": ", reason[0] != 0 ? reason.data() : curl_easy_strerror(code)));
  }
  if (status != 200) {
    return absl::UnavailableError(
        absl::StrCat("http ", address, ": HTTP ", status, ": ", ErrorMessageOf(body)));
  }
  if (model_.empty()) model_ = FirstModelOf(body);
  if (model_.empty()) {
    return absl::UnavailableError(
        absl::StrCat("http ", address, ": lists no model; name one with --model"));
  }
  return model_;
}

void HttpTarget::Start(const std::string& prompt, Done done) {
  auto call = std::make_unique<Call>(
      CompletionRequest(model_, prompt, shape_.output_tokens, shape_.temperature), std::move(done));
  {
    MutexLock lock(&mutex_);
    to_begin_.push_back(std::move(call));
  }
  if (std::this_thread::get_id() != thread_.get_id()) Wake();
}

void HttpTarget::CancelAll() {
  {
    MutexLock lock(&mutex_);
    cancel_ = true;
  }
  Wake();
}

void HttpTarget::Wake() {
  const uint64_t one = 1;
  CHECK_EQ(write(wake_, &one, sizeof one), static_cast<ssize_t>(sizeof one));
}

int HttpTarget::OnSocket(CURL*, curl_socket_t socket, int what, void* self, void* known) {
  auto* target = static_cast<HttpTarget*>(self);
  if (what == CURL_POLL_REMOVE) {
    epoll_ctl(target->epoll_, EPOLL_CTL_DEL, socket, nullptr);
    return 0;
  }
  epoll_event event = {};
  event.data.fd = socket;
  if (what & CURL_POLL_IN) event.events |= EPOLLIN;
  if (what & CURL_POLL_OUT) event.events |= EPOLLOUT;
  epoll_ctl(target->epoll_, known != nullptr ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket, &event);
  // Any pointer that is not null says that the socket is known from now on.
  if (known == nullptr) curl_multi_assign(target->multi_, socket, target);
  return 0;
}

int HttpTarget::OnTimer(CURLM*, long timeout_ms, void* self) {
  auto* target = static_cast<HttpTarget*>(self);
  target->timer_ = timeout_ms < 0 ? BenchClock::time_point::max()
                                  : BenchClock::now() + std::chrono::milliseconds(timeout_ms);
  return 0;
}

void HttpTarget::Run() {
  std::array<epoll_event, 64> events;
  while (true) {
    TakeOrders();
    FinishDone();
    {
      MutexLock lock(&mutex_);
      if (stopping_ && calls_.empty() && to_begin_.empty()) return;
      if (!to_begin_.empty()) continue;
    }
    int timeout_ms = -1;
    if (timer_ != BenchClock::time_point::max()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(timer_ - BenchClock::now());
      timeout_ms = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 60'000));
    }
    const int num_events =
        epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout_ms);
    int running = 0;
    for (int i = 0; i < num_events; ++i) {
      if (events[i].data.fd == wake_) {
        uint64_t count = 0;
        CHECK_EQ(read(wake_, &count, sizeof count), static_cast<ssize_t>(sizeof count));
        continue;
      }
      int what = 0;
      if (events[i].events & EPOLLIN) what |= CURL_CSELECT_IN;
      if (events[i].events & EPOLLOUT) what |= CURL_CSELECT_OUT;
      if (events[i].events & (EPOLLERR | EPOLLHUP)) what |= CURL_CSELECT_ERR;
      curl_multi_socket_action(multi_, events[i].data.fd, what, &running);
    }
    if (BenchClock::now() >= timer_) {
      timer_ = BenchClock::time_point::max();
      curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
    }
  }
}

void HttpTarget::TakeOrders() {
  std::vector<std::unique_ptr<Call>> to_begin;
  bool cancel = false;
  {
    MutexLock lock(&mutex_);
    to_begin.swap(to_begin_);
    cancel = std::exchange(cancel_, stopping_);
  }
  if (cancel) {
    for (auto& [handle, call] : std::exchange(calls_, {})) {
      curl_multi_remove_handle(multi_, handle);
      spare_handles_.push_back(handle);
      call->FinishCancelled();
    }
    for (const auto& call : to_begin) call->FinishCancelled();
    return;
  }
  for (auto& call : to_begin) Begin(std::move(call));
}

CURL* HttpTarget::TakeHandle() {
  CURL* handle = nullptr;
  if (spare_handles_.empty()) {
    handle = curl_easy_init();
    CHECK(handle != nullptr);
  } else {
    handle = spare_handles_.back();
    spare_handles_.pop_back();
    curl_easy_reset(handle);
  }
  SetCommon(handle, headers_);
  curl_easy_setopt(handle, CURLOPT_URL, absl::StrCat(url_, "/v1/completions").c_str());
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS,
                   static_cast<long>(std::chrono::milliseconds(shape_.timeout).count()));
  return handle;
}

void HttpTarget::Begin(std::unique_ptr<Call> call) {
  CURL* handle = TakeHandle();
  call->Attach(handle);
  calls_.emplace(handle, std::move(call));
  CHECK(curl_multi_add_handle(multi_, handle) == CURLM_OK);
}

void HttpTarget::FinishDone() {
  int num_left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &num_left)) {
    if (message->msg == CURLMSG_DONE) End(message->easy_handle, message->data.result);
  }
}

void HttpTarget::End(CURL* handle, CURLcode code) {
  auto node = calls_.extract(handle);
  CHECK(!node.empty());
  curl_multi_remove_handle(multi_, handle);
  node.mapped()->Finish(code);
  spare_handles_.push_back(handle);
}

}  // namespace fastgen
