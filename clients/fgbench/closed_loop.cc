#include "clients/fgbench/closed_loop.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"

namespace fastgen {

ClosedLoop::ClosedLoop(Target* target, Workload* workload, const LoopOptions& options)
    : target_(target), workload_(workload), options_(options) {
  CHECK(options.max_requests > 0 || options.max_time.count() > 0);
}

void ClosedLoop::Start() {
  {
    MutexLock lock(&mutex_);
    start_ = BenchClock::now();
    ++num_running_;  // this call itself: no end before all have begun
  }
  for (int32_t i = 0; i < options_.num_streams; ++i) Begin();
  MutexLock lock(&mutex_);
  --num_running_;
  ended_.SignalAll();
}

bool ClosedLoop::MayBegin() const {
  if (stopped_ || result_.gave_up) return false;
  if (options_.max_requests > 0 && num_begun_ >= options_.max_requests) return false;
  return options_.max_time.count() == 0 || BenchClock::now() - start_ < options_.max_time;
}

void ClosedLoop::Begin() {
  std::string prompt;
  {
    MutexLock lock(&mutex_);
    if (!MayBegin()) return;
    ++num_begun_;
    ++num_running_;
    prompt = workload_->Next();
  }
  target_->Start(prompt, [this](RequestResult result) { OnDone(std::move(result)); });
}

void ClosedLoop::OnDone(RequestResult result) {
  {
    MutexLock lock(&mutex_);
    num_failures_in_a_row_ = result.error.empty() ? 0 : num_failures_in_a_row_ + 1;
    if (num_failures_in_a_row_ >= 2 * int64_t{options_.num_streams}) result_.gave_up = true;
    if (!result.cancelled) result_.requests.push_back(std::move(result));
  }
  // The next one before this one is counted out: the loop is not over in between.
  Begin();
  MutexLock lock(&mutex_);
  --num_running_;
  if (num_running_ == 0) ended_.SignalAll();
}

bool ClosedLoop::Wait(std::chrono::milliseconds timeout) {
  const auto deadline = BenchClock::now() + timeout;
  MutexLock lock(&mutex_);
  while (num_running_ > 0) {
    const auto left = deadline - BenchClock::now();
    if (left.count() <= 0) return false;
    ended_.WaitFor(&mutex_, left);
  }
  return true;
}

void ClosedLoop::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
  }
  target_->CancelAll();
}

int64_t ClosedLoop::num_ended() {
  MutexLock lock(&mutex_);
  return static_cast<int64_t>(result_.requests.size());
}

double ClosedLoop::progress() {
  MutexLock lock(&mutex_);
  double share = 0;
  if (options_.max_requests > 0) {
    share =
        static_cast<double>(result_.requests.size()) / static_cast<double>(options_.max_requests);
  }
  if (options_.max_time.count() > 0) {
    const std::chrono::duration<double> elapsed = BenchClock::now() - start_;
    share = std::max(share, elapsed / options_.max_time);
  }
  return std::min(share, 1.0);
}

LoopResult ClosedLoop::Take() {
  MutexLock lock(&mutex_);
  CHECK_EQ(num_running_, 0);
  if (!result_.requests.empty()) {
    auto begin = BenchClock::time_point::max();
    auto end = BenchClock::time_point::min();
    for (const RequestResult& request : result_.requests) {
      begin = std::min(begin, request.begin);
      end = std::max(end, request.end);
    }
    result_.seconds = std::chrono::duration<double>(end - begin).count();
  }
  return std::move(result_);
}

}  // namespace fastgen
