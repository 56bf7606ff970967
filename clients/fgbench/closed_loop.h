// ClosedLoop: keeps a number of streams busy on one target: when a request ends, the next one
// begins.
//
// It ends after so many requests, or begins none after so many seconds; what runs then is let
// finish, so that every request that is counted is whole. After 2 * num_streams failures in a row
// it gives up. Lifetime: until Wait has said that it ended. Thread rule: any thread. Tested by
// tests/clients/fgbench_test.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "base/mutex.h"
#include "clients/fgbench/target.h"
#include "clients/fgbench/workload.h"

namespace fastgen {

struct LoopOptions {
  int32_t num_streams = 32;
  int64_t max_requests = 0;                   // 0: no limit
  std::chrono::duration<double> max_time{0};  // 0: no limit
};

struct LoopResult {
  std::vector<RequestResult> requests;  // in the order of their ends; without cancelled ones
  double seconds = 0;                   // from the first begin to the last end
  bool gave_up = false;
};

class ClosedLoop {
 public:
  // REQUIRES: a limit. The pointers outlive the object.
  ClosedLoop(Target* target, Workload* workload, const LoopOptions& options);

  void Start();
  // True once nothing runs any more.
  bool Wait(std::chrono::milliseconds timeout);
  // Cancels what runs; Wait then soon says so.
  void Stop();
  // Requests that have ended.
  int64_t num_ended();
  // The share of the limit that has been used, 0 to 1.
  double progress();
  // REQUIRES: it has ended.
  LoopResult Take();

 private:
  bool MayBegin() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Begin();
  void OnDone(RequestResult result);

  Target* const target_;
  Workload* const workload_;
  const LoopOptions options_;

  Mutex mutex_;
  CondVar ended_;
  BenchClock::time_point start_ ABSL_GUARDED_BY(mutex_);
  int64_t num_begun_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_running_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_failures_in_a_row_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  LoopResult result_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fastgen
