#include "engine/request_queue.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {
namespace {

// Waits are bounded to an hour each, so that an infinite timeout does not overflow the clock.
constexpr std::chrono::nanoseconds kLongestWait = std::chrono::hours(1);

std::chrono::nanoseconds Bounded(absl::Duration timeout) {
  return std::clamp(absl::ToChronoNanoseconds(timeout), std::chrono::nanoseconds(0), kLongestWait);
}

}  // namespace

RequestQueue::RequestQueue(const QueueLimits& limits) : limits_(limits) {}

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

absl::Status RequestQueue::CheckPush(std::string_view request_id, const QueuePlace& place) const {
  MutexLock lock(&mutex_);
  return CheckPushLocked(request_id, place);
}

absl::Status RequestQueue::CheckPushLocked(std::string_view request_id,
                                           const QueuePlace& place) const {
  RETURN_IF_ERROR(CheckAcceptingLocked());
  if (live_.contains(ToAbsl(request_id))) {
    return absl::AlreadyExistsError(
        absl::StrCat("request_id: \"", ToAbsl(request_id), "\" is in use by a live request"));
  }
  const bool is_over_tokens =
      num_queued_ > 0 && num_queued_tokens_ + place.num_tokens() > limits_.max_tokens;
  if (num_sequences_ > 0 && num_sequences_ + place.num_choices > limits_.max_sequences) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the engine is full: ", num_sequences_, " choices are live, ", place.num_choices,
        " more were asked for; the limit is ", limits_.max_sequences));
  }
  if (num_queued_ < limits_.max_requests && !is_over_tokens) return absl::OkStatus();
  std::string message = absl::StrCat("the queue is full: ", num_queued_, " requests with ",
                                     num_queued_tokens_, " prompt tokens wait");
  if (place.num_tokens() > 0) {
    absl::StrAppend(&message, ", ", place.num_tokens(), " more tokens were asked for");
  }
  return absl::ResourceExhaustedError(absl::StrCat(message, "; the limits are ",
                                                   limits_.max_requests, " requests and ",
                                                   limits_.max_tokens, " tokens"));
}

template <typename Command>
void RequestQueue::Append(Command command) {
  commands_.emplace_back(std::in_place_type<Command>, std::move(command));
  changed_.Signal();
}

absl::Status RequestQueue::Push(std::string_view request_id, const TokenSink* sink,
                                const QueuePlace& place, AddCommand command) {
  CHECK(!command.sequences.empty());
  CHECK_LE(std::abs(place.priority), kMaxPriority);
  MutexLock lock(&mutex_);
  RETURN_IF_ERROR(CheckPushLocked(request_id, place));
  live_.emplace(std::string(request_id),
                Live{command.sequences.front().id, sink, place.num_choices});
  num_sequences_ += place.num_choices;
  ++num_queued_;
  num_queued_tokens_ += place.num_tokens();
  tokens_by_class_[place.priority + kMaxPriority] += place.num_prompt_tokens;
  ++num_undelivered_;
  const int32_t num_sequences = static_cast<int32_t>(command.sequences.size());
  untaken_.num_sequences += num_sequences;
  untaken_.num_tokens += int64_t{place.num_prompt_tokens} * num_sequences;
  Append(std::move(command));
  return absl::OkStatus();
}

bool RequestQueue::Cancel(std::string_view request_id, const TokenSink* only) {
  MutexLock lock(&mutex_);
  const auto it = live_.find(ToAbsl(request_id));
  if (it == live_.end() || (only != nullptr && it->second.sink != only)) return false;
  if (!std::exchange(it->second.cancelled, true)) Append(CancelCommand{it->second.leader});
  return true;
}

void RequestQueue::CancelAll() {
  MutexLock lock(&mutex_);
  for (auto& [request_id, live] : live_) {
    if (!std::exchange(live.cancelled, true)) Append(CancelCommand{live.leader});
  }
}

void RequestQueue::FinishAt(SequenceId id, int32_t num_output_tokens) {
  MutexLock lock(&mutex_);
  Append(FinishAtCommand{id, num_output_tokens});
}

void RequestQueue::Resume() {
  MutexLock lock(&mutex_);
  Append(ResumeCommand{});
}

RequestQueue::Asked RequestQueue::Ask(EngineCommand&& query) {
  MutexLock lock(&mutex_);
  if (closed_) return Asked::kEnding;
  if (std::holds_alternative<PlanQuery>(query) && num_queries_ >= kMaxQueries) {
    return Asked::kTooMany;
  }
  ++num_queries_;
  commands_.push_back(std::move(query));
  changed_.Signal();
  return Asked::kTaken;
}

void RequestQueue::StartDrain() {
  MutexLock lock(&mutex_);
  // What is live may finish: a pause ends with it.
  if (!std::exchange(draining_, true)) Append(ResumeCommand{});
}

bool RequestQueue::draining() const {
  MutexLock lock(&mutex_);
  return draining_;
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
  woken_ = true;
  changed_.Signal();
}

void RequestQueue::Take(std::vector<EngineCommand>* commands) {
  CHECK(commands->empty());
  MutexLock lock(&mutex_);
  commands->swap(commands_);
  unpublished_.num_sequences += std::exchange(untaken_.num_sequences, 0);
  unpublished_.num_tokens += std::exchange(untaken_.num_tokens, 0);
}

void RequestQueue::Wait(absl::Duration timeout) {
  const bool is_timed = timeout != absl::InfiniteDuration();
  const auto limit = std::chrono::steady_clock::now() + Bounded(timeout);
  MutexLock lock(&mutex_);
  while (commands_.empty() && !woken_) {
    if (!is_timed) {
      changed_.Wait(&mutex_);
      continue;
    }
    const auto left = limit - std::chrono::steady_clock::now();
    if (left.count() <= 0) break;
    changed_.WaitFor(&mutex_, left);
  }
  woken_ = false;
}

void RequestQueue::Wake() {
  MutexLock lock(&mutex_);
  woken_ = true;
  changed_.Signal();
}

bool RequestQueue::IsOver() const {
  MutexLock lock(&mutex_);
  return closed_ && commands_.empty();
}

void RequestQueue::Started(const QueuePlace& place) {
  MutexLock lock(&mutex_);
  --num_queued_;
  num_queued_tokens_ -= place.num_tokens();
  tokens_by_class_[place.priority + kMaxPriority] -= place.num_prompt_tokens;
  CHECK_GE(num_queued_, 0);
  CHECK_GE(num_queued_tokens_, 0);
}

void RequestQueue::Answered() {
  MutexLock lock(&mutex_);
  --num_queries_;
  CHECK_GE(num_queries_, 0);
}

void RequestQueue::Publish(const EngineSnapshot& snapshot) {
  MutexLock lock(&mutex_);
  snapshot_ = snapshot;
  unpublished_ = Untaken();
}

void RequestQueue::Retire(std::string_view request_id) {
  MutexLock lock(&mutex_);
  const auto it = live_.find(ToAbsl(request_id));
  CHECK(it != live_.end());
  num_sequences_ -= it->second.num_choices;
  live_.erase(it);
}

void RequestQueue::Delivered() {
  MutexLock lock(&mutex_);
  CHECK_GT(num_undelivered_, 0);
  if (--num_undelivered_ == 0) idle_.SignalAll();
}

EngineSnapshot RequestQueue::snapshot() const {
  MutexLock lock(&mutex_);
  EngineSnapshot snapshot = snapshot_;
  snapshot.scheduler.num_waiting += untaken_.num_sequences + unpublished_.num_sequences;
  snapshot.scheduler.num_waiting_tokens += untaken_.num_tokens + unpublished_.num_tokens;
  return snapshot;
}

int64_t RequestQueue::NumTokensAhead(int32_t priority) const {
  MutexLock lock(&mutex_);
  int64_t num_tokens = 0;
  for (int32_t c = 0; c <= priority + kMaxPriority; ++c) num_tokens += tokens_by_class_[c];
  return num_tokens;
}

}  // namespace fastgen
