// StepLoop: the engine thread: commands -> Scheduler -> Executor -> Scheduler -> Completion, step
// after step.
//
// Commands are applied between steps: a cancelled sequence is in no plan that is made after its
// cancel was given. Without work the thread sleeps in RequestQueue::Wait. An Executor error is
// final: all streams end with it and everything is refused from then on.
//
// Thread rule: Run: the engine thread; stats: any thread.
// Tested by tests/engine/engine_test.cc, engine_end_test.cc and engine_stress_test.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "engine/completion.h"
#include "engine/model/executor.h"
#include "engine/request_queue.h"
#include "engine/schedule/scheduler.h"

namespace fastgen {

class StepLoop {
 public:
  struct Stats {
    SchedulerStats scheduler;
    int64_t num_steps = 0;
  };

  // All must outlive the object.
  StepLoop(const SchedulerOptions& options, Executor* executor, const Clock* clock,
           RequestQueue* queue, Completion* completion);

  // Until the queue is closed and every sequence has ended.
  void Run();

  // As of the last step or command.
  Stats stats() const;

 private:
  void ApplyCommands();
  void Apply(AddCommand command);
  void Apply(CancelCommand command);
  void Apply(FinishAtCommand command);
  void RunStep();
  void MarkStarted(const StepPlan& plan);
  void Fail(const absl::Status& status);
  void PublishStats();

  Scheduler scheduler_;
  Executor* const executor_;
  const Clock* const clock_;
  RequestQueue* const queue_;
  Completion* const completion_;
  StepPlan plan_;  // kept for its storage, as the next two
  std::vector<EngineCommand> commands_;
  std::vector<FinishedSequence> finished_;
  absl::flat_hash_set<SequenceId> not_started_;  // sequences that still hold a place in the queue
  bool failed_ = false;
  int64_t num_steps_ = 0;

  mutable Mutex mutex_;
  Stats stats_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fastgen
