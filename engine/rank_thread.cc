#include "engine/rank_thread.h"

#include <utility>

#include "base/check.h"

namespace fastgen {

RankThread::RankThread(Executor* executor, const Clock* clock, std::function<void()> on_done)
    : executor_(executor),
      clock_(clock),
      on_done_(std::move(on_done)),
      thread_([this] { Run(); }) {}

RankThread::~RankThread() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    has_work_.Signal();
  }
  thread_.join();
}

void RankThread::Launch(const StepPlan* plan, StepResult* result) {
  MutexLock lock(&mutex_);
  CHECK_LT(num_launched_ - num_waited_, static_cast<uint64_t>(kMaxOutstanding))
      << "step " << plan->step << " is one too many";
  Step& step = StepAt(num_launched_++);
  step.plan = plan;
  step.result = result;
  has_work_.Signal();
}

bool RankThread::OldestIsDone() const {
  MutexLock lock(&mutex_);
  return num_done_ > num_waited_;
}

RankThread::Done RankThread::Wait() {
  MutexLock lock(&mutex_);
  CHECK_LT(num_waited_, num_launched_) << "no step was launched";
  while (num_done_ == num_waited_) has_done_.Wait(&mutex_);
  return std::move(StepAt(num_waited_++).done);
}

int RankThread::num_outstanding() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(num_launched_ - num_waited_);
}

void RankThread::Run() {
  absl::Status failure;
  while (true) {
    const StepPlan* plan = nullptr;
    StepResult* result = nullptr;
    {
      MutexLock lock(&mutex_);
      while (num_launched_ == num_done_ && !stopping_) has_work_.Wait(&mutex_);
      if (num_launched_ == num_done_) return;
      plan = StepAt(num_done_).plan;
      result = StepAt(num_done_).result;
    }
    const absl::Time begin = clock_->Now();
    if (failure.ok()) failure = executor_->Run(*plan, result);
    const absl::Time end = clock_->Now();
    {
      MutexLock lock(&mutex_);
      StepAt(num_done_++).done = {failure, begin, end};
      has_done_.Signal();
    }
    on_done_();
  }
}

}  // namespace fastgen
