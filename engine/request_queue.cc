#include "engine/request_queue.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {

RequestQueue::RequestQueue(int32_t max_queued) : max_queued_(max_queued) {}

absl::Status RequestQueue::CheckAcceptingLocked() const {
  if (!health_.ok()) return health_;
  if (draining_ || closed_) {
    return absl::UnavailableError("the engine is draining and takes no new requests");
  }
  return absl::OkStatus();
}

absl::Status RequestQueue::CheckAccepting() const {
  MutexLock lock(&mutex_);
  return CheckAcceptingLocked();
}

absl::Status RequestQueue::Push(std::string_view request_id, NewSequence sequence,
                                absl::FunctionRef<void()> on_accept) {
  MutexLock lock(&mutex_);
  RETURN_IF_ERROR(CheckAcceptingLocked());
  if (live_.contains(ToAbsl(request_id))) {
    return absl::AlreadyExistsError(
        absl::StrCat("request_id: \"", ToAbsl(request_id), "\" is in use by a live request"));
  }
  if (num_queued_ >= max_queued_) {
    return absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", num_queued_,
                                                     " requests wait, the limit is ", max_queued_));
  }
  live_.emplace(std::string(request_id), Live{sequence.id});
  ++num_queued_;
  ++num_undelivered_;
  on_accept();
  commands_.emplace_back(std::in_place_type<AddCommand>, AddCommand{std::move(sequence)});
  has_commands_.Signal();
  return absl::OkStatus();
}

bool RequestQueue::Cancel(std::string_view request_id) {
  MutexLock lock(&mutex_);
  const auto it = live_.find(ToAbsl(request_id));
  if (it == live_.end()) return false;
  if (!std::exchange(it->second.cancelled, true)) {
    commands_.emplace_back(std::in_place_type<CancelCommand>, CancelCommand{it->second.id});
    has_commands_.Signal();
  }
  return true;
}

void RequestQueue::CancelAll() {
  MutexLock lock(&mutex_);
  for (auto& [request_id, live] : live_) {
    if (std::exchange(live.cancelled, true)) continue;
    commands_.emplace_back(std::in_place_type<CancelCommand>, CancelCommand{live.id});
  }
  has_commands_.Signal();
}

void RequestQueue::FinishAt(SequenceId id, int32_t num_output_tokens) {
  MutexLock lock(&mutex_);
  commands_.emplace_back(std::in_place_type<FinishAtCommand>,
                         FinishAtCommand{id, num_output_tokens});
  has_commands_.Signal();
}

void RequestQueue::StartDrain() {
  MutexLock lock(&mutex_);
  draining_ = true;
}

void RequestQueue::Fail(std::string_view message) {
  MutexLock lock(&mutex_);
  if (health_.ok()) health_ = absl::UnavailableError(ToAbsl(message));
}

absl::Status RequestQueue::health() const {
  MutexLock lock(&mutex_);
  return health_;
}

bool RequestQueue::WaitIdle(absl::Duration timeout) {
  // Waits are bounded to an hour each, so that an infinite timeout does not overflow the clock.
  constexpr auto kLongestWait = std::chrono::nanoseconds(std::chrono::hours(1));
  const auto start = std::chrono::steady_clock::now();
  const auto limit = absl::ToChronoNanoseconds(std::max(timeout, absl::ZeroDuration()));
  MutexLock lock(&mutex_);
  while (num_undelivered_ > 0) {
    const auto elapsed = std::chrono::steady_clock::now() - start;
    if (elapsed >= limit) return false;
    idle_.WaitFor(&mutex_, std::min<std::chrono::nanoseconds>(limit - elapsed, kLongestWait));
  }
  return true;
}

void RequestQueue::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
  has_commands_.Signal();
}

void RequestQueue::Take(std::vector<EngineCommand>* commands) {
  CHECK(commands->empty());
  MutexLock lock(&mutex_);
  commands->swap(commands_);
}

bool RequestQueue::Wait() {
  MutexLock lock(&mutex_);
  while (commands_.empty() && !closed_) has_commands_.Wait(&mutex_);
  return !commands_.empty();
}

void RequestQueue::Started(int32_t num_sequences) {
  MutexLock lock(&mutex_);
  num_queued_ -= num_sequences;
  CHECK_GE(num_queued_, 0);
}

void RequestQueue::Retire(std::string_view request_id) {
  MutexLock lock(&mutex_);
  CHECK_EQ(live_.erase(ToAbsl(request_id)), 1u);
}

void RequestQueue::Delivered() {
  MutexLock lock(&mutex_);
  CHECK_GT(num_undelivered_, 0);
  if (--num_undelivered_ == 0) idle_.SignalAll();
}

int32_t RequestQueue::num_queued() const {
  MutexLock lock(&mutex_);
  return num_queued_;
}

}  // namespace fastgen
