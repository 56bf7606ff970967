// RankThread: the thread that runs StepPlans on an Executor, one after another, in the order of
// their launch.
//
// At most kMaxOutstanding steps are launched and not yet waited for: one that runs and one that
// follows it without a gap. Launching a step and waiting for one allocate nothing. After an error
// no further step is run: those that were launched behind it end with the same error.
//
// Invariant: 0 <= waited for <= done <= launched <= waited for + kMaxOutstanding.
// Thread rule: the executor belongs to this thread; Launch, OldestIsDone, Wait and num_outstanding:
// one other thread, the engine thread. `on_done` is called on the rank thread, with no lock held,
// after each step. Tested by tests/engine/rank_thread_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "engine/model/executor.h"

namespace fastgen {

class RankThread {
 public:
  static constexpr int kMaxOutstanding = 2;

  // How a step went, and when the executor had it.
  struct Done {
    absl::Status status;
    absl::Time begin;
    absl::Time end;
  };

  // All must outlive the object.
  RankThread(Executor* executor, const Clock* clock, std::function<void()> on_done);
  // Runs what was launched to its end first.
  ~RankThread();

  // Both must stay until Wait has returned for this step. REQUIRES: num_outstanding() <
  // kMaxOutstanding.
  void Launch(const StepPlan* plan, StepResult* result);
  // True when Wait would not block.
  bool OldestIsDone() const;
  // Sleeps until the oldest step that was not waited for is done. REQUIRES: num_outstanding() > 0.
  Done Wait();
  // Steps launched and not waited for.
  int num_outstanding() const;

 private:
  struct Step {
    const StepPlan* plan = nullptr;
    StepResult* result = nullptr;
    Done done;
  };

  void Run();
  Step& StepAt(uint64_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return steps_[number % kMaxOutstanding];
  }

  Executor* const executor_;
  const Clock* const clock_;
  const std::function<void()> on_done_;

  mutable Mutex mutex_;
  CondVar has_work_;  // num_launched_ > num_done_, or stopping_
  CondVar has_done_;  // num_done_ > num_waited_
  std::array<Step, kMaxOutstanding> steps_ ABSL_GUARDED_BY(mutex_);
  uint64_t num_launched_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t num_done_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t num_waited_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fastgen
