#include "engine/step_loop.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"

namespace fastgen {

StepLoop::StepLoop(const SchedulerOptions& options, Executor* executor, const Clock* clock,
                   RequestQueue* queue, Completion* completion)
    : scheduler_(options),
      executor_(executor),
      clock_(clock),
      queue_(queue),
      completion_(completion) {
  PublishStats();
}

void StepLoop::Run() {
  while (true) {
    if ((failed_ || scheduler_.idle()) && !queue_->Wait()) return;
    ApplyCommands();
    if (!failed_ && !scheduler_.idle()) RunStep();
  }
}

void StepLoop::ApplyCommands() {
  queue_->Take(&commands_);
  if (commands_.empty()) return;
  if (!failed_) {
    for (EngineCommand& command : commands_) {
      std::visit([this](auto&& c) { Apply(std::move(c)); }, std::move(command));
    }
  }
  commands_.clear();
  // Figures first: who sees a request finished also sees its blocks free.
  PublishStats();
  if (finished_.empty()) return;
  const absl::Time now = clock_->Now();
  for (FinishedSequence& finished : finished_) {
    if (not_started_.erase(finished.id) > 0) queue_->Started(1);
    completion_->PostFinished(std::move(finished), now);
  }
  finished_.clear();
}

void StepLoop::Apply(AddCommand command) {
  not_started_.insert(command.sequence.id);
  scheduler_.Add(std::move(command.sequence));
}

void StepLoop::Apply(CancelCommand command) {
  FinishedSequence finished;
  if (scheduler_.Cancel(command.id, FinishReason::kCancelled, &finished)) {
    finished_.push_back(std::move(finished));
  }
}

void StepLoop::Apply(FinishAtCommand command) {
  FinishedSequence finished;
  if (scheduler_.FinishAt(command.id, command.num_output_tokens, &finished)) {
    finished_.push_back(std::move(finished));
  }
}

void StepLoop::RunStep() {
  scheduler_.PlanStep(&plan_);
  CHECK(!plan_.empty()) << "the scheduler has sequences but plans nothing";
  MarkStarted(plan_);
  const absl::Time begin = clock_->Now();
  absl::StatusOr<StepResult> result = executor_->Run(plan_);
  if (!result.ok()) {
    Fail(result.status());
    return;
  }
  CommitResult committed = scheduler_.CommitStep(plan_, *result);
  ++num_steps_;
  PublishStats();
  completion_->PostStep(std::move(committed), begin, clock_->Now());
}

void StepLoop::MarkStarted(const StepPlan& plan) {
  if (not_started_.empty()) return;
  int32_t num_started = 0;
  for (const ScheduledSequence& sequence : plan.sequences) {
    num_started += static_cast<int32_t>(not_started_.erase(sequence.id));
  }
  if (num_started > 0) queue_->Started(num_started);
}

void StepLoop::Fail(const absl::Status& status) {
  failed_ = true;
  const std::string message =
      absl::StrCat("the engine failed in step ", num_steps_ + 1, ": ", status.ToString());
  LogError(message);
  // In this order: no stream is opened after the failure, and a sink that is told so finds health()
  // not OK.
  queue_->Fail(message);
  completion_->PostFailure(message);
}

void StepLoop::PublishStats() {
  const SchedulerStats scheduler = scheduler_.stats();
  MutexLock lock(&mutex_);
  stats_.scheduler = scheduler;
  stats_.num_steps = num_steps_;
}

StepLoop::Stats StepLoop::stats() const {
  MutexLock lock(&mutex_);
  return stats_;
}

}  // namespace fastgen
