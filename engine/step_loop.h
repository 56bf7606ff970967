// StepLoop: the engine thread. commands -> Scheduler -> RankThread -> Scheduler -> Completion, step
// after step.
//
//   apply commands, expire; commit the oldest step if it is done; else plan and launch the next if
//   fewer than max_steps_in_flight are out; else sleep until a command, the end of a step or the
//   next deadline
// Commands are applied while a step runs, too: a cancelled sequence is in no plan that is made
// after its cancel was given, and its client need not wait for the step. Without work the thread
// sleeps. An Executor error is final: all streams end with it and everything is refused from then
// on. Nothing is allocated from step to step once the longest batch has been seen.
//
// Thread rule: Run: the engine thread; step_tokens: any thread.
// Tested by tests/engine/engine_test.cc, engine_end_test.cc, engine_stress_test.cc,
// control_test.cc, deadline_test.cc and allocation_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "engine/completion.h"
#include "engine/engine.h"
#include "engine/model/executor.h"
#include "engine/rank_thread.h"
#include "engine/request_queue.h"
#include "engine/schedule/scheduler.h"

namespace fastgen {

class StepLoop {
 public:
  // All must outlive the object.
  StepLoop(const SchedulerOptions& options, Executor* executor, const Clock* clock,
           RequestQueue* queue, Completion* completion);

  // Until the queue is closed and every sequence has ended.
  void Run();

  // Tokens computed in each step that was committed.
  HistogramCounts step_tokens() const { return step_tokens_.Read(); }

 private:
  // A live request.
  struct Request {
    std::string request_id;
    QueuePlace place;
    absl::Time submitted;
    int32_t num_open = 0;  // choices
    bool started = false;  // had a step
  };

  void ApplyCommands();
  void Apply(AddCommand command);
  void Apply(const CancelCommand& command);
  void Apply(const FinishAtCommand& command);
  void Apply(const ResumeCommand& command);
  // Queries: answered after Publish, so that who is answered sees what it asked for in the figures.
  void Apply(PlanQuery query);
  void Apply(ListQuery query);
  void Apply(PauseQuery query);
  void Apply(FlushQuery query);
  void CancelChoices(SequenceId leader, FinishReason reason);
  CachedPrefix FindCached(const std::vector<int32_t>& prompt, const std::string& cache_salt,
                          bool scores_prompt) const;
  // What a prompt that is added now waits for, and how long until its first token by the measured
  // costs; 0 while nothing was measured.
  struct Outlook {
    QueueAhead ahead;
    int64_t first_token_us = 0;
  };
  Outlook LookAhead(int32_t num_prompt, const CachedPrefix& cached, int32_t priority,
                    int64_t now_us) const;
  absl::Status CheckInTime(const NewSequence& leader, const CachedPrefix& cached) const;
  PlanInfo MakePlanInfo(const PlanQuery& query) const;

  void Expire();
  // Tells of what ended other than by a step.
  void DeliverFinished();
  // False when there was nothing to do.
  bool CommitOldest();
  bool PlanNext();
  void MarkStarted(const StepPlan& plan);
  // Keeps requests_ in step with the sequences that ended.
  void NoteFinished(const FinishedSequence& finished);
  void Fail(const absl::Status& status);
  // Calls `answers`, each of which tells one who asked.
  void Answer(std::vector<std::function<void()>>* answers);
  void CheckWhenIdle();
  void Sleep();
  void Publish();
  int64_t NowUs() const { return absl::ToUnixMicros(clock_->Now()); }

  const SchedulerOptions options_;
  Scheduler scheduler_;
  const Clock* const clock_;
  RequestQueue* const queue_;
  Completion* const completion_;
  // Steps number n and n + 1 in flight use one entry each; kept for their storage.
  std::array<StepPlan, RankThread::kMaxOutstanding> plans_;
  std::array<StepResult, RankThread::kMaxOutstanding> results_;
  uint64_t num_launched_ = 0;
  int64_t last_step_us_ = 0;
  int64_t num_steps_ = 0;                              // committed
  int64_t num_kv_tokens_ = 0;                          // as published
  Histogram step_tokens_;
  absl::flat_hash_map<SequenceId, Request> requests_;  // by leader
  int32_t num_not_started_ = 0;                        // of requests_
  std::vector<EngineCommand> commands_;                // kept for their storage, as the next one
  std::vector<FinishedSequence> finished_;
  std::vector<std::function<void()>> answers_;  // to the queries among commands_
  std::vector<std::function<void()>> pauses_;   // asked for, and steps are in flight
  bool paused_ = false;
  std::string failure_;     // not empty: failed
  bool is_checked_ = true;  // idle since the invariants were checked
  RankThread rank_;         // last: it uses plans_ and results_
};

}  // namespace fastgen
