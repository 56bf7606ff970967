#include "engine/step_loop.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "engine/check_request.h"
#include "engine/choice_id.h"

namespace fastgen {
namespace {

// Powers of two, as vLLM counts its iterations.
std::vector<double> StepTokenBounds() {
  return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}

QueuePlace PlaceOf(const AddCommand& command) {
  return {static_cast<int32_t>(command.stream->request().prompt.size()),
          command.sequences.front().priority, static_cast<int32_t>(command.sequences.size())};
}

}  // namespace

StepLoop::StepLoop(const SchedulerOptions& options, Executor* executor, const Clock* clock,
                   RequestQueue* queue, Completion* completion)
    : options_(options),
      scheduler_(options),
      clock_(clock),
      queue_(queue),
      completion_(completion),
      step_tokens_(StepTokenBounds()),
      rank_(executor, clock, [queue] { queue->Wake(); }) {
  Publish();
}

void StepLoop::Run() {
  while (true) {
    ApplyCommands();
    Expire();
    if (CommitOldest() || PlanNext()) continue;
    if (rank_.num_outstanding() == 0 || !paused_) Answer(&pauses_);
    CheckWhenIdle();
    if (queue_->IsOver() && rank_.num_outstanding() == 0 && scheduler_.idle()) return;
    Sleep();
  }
}

void StepLoop::Sleep() {
  const int64_t expiry_us = scheduler_.next_expiry_us();
  if (expiry_us == kNoDeadline) {
    queue_->Wait(absl::InfiniteDuration());
    return;
  }
  // Never at once: the clock has to move for Expire to find it.
  queue_->Wait(std::max(absl::Microseconds(expiry_us - NowUs()), absl::Milliseconds(1)));
}

void StepLoop::ApplyCommands() {
  queue_->Take(&commands_);
  if (commands_.empty()) return;
  for (EngineCommand& command : commands_) {
    std::visit([this](auto&& c) { Apply(std::move(c)); }, std::move(command));
  }
  commands_.clear();
  // Figures first: who sees a request finished also sees its blocks free.
  Publish();
  Answer(&answers_);
  DeliverFinished();
}

void StepLoop::Answer(std::vector<std::function<void()>>* answers) {
  for (const std::function<void()>& answer : *answers) {
    answer();
    queue_->Answered();
  }
  answers->clear();
}

void StepLoop::Apply(AddCommand command) {
  const StreamRequest& request = command.stream->request();
  if (!failure_.empty()) {
    queue_->Started(PlaceOf(command));
    completion_->Open(std::move(command.stream), 0);
    completion_->PostFailure(failure_);
    return;
  }
  NewSequence& leader = command.sequences.front();
  const SequenceId leader_id = leader.id;
  const CachedPrefix cached = FindCached(leader.prompt, leader.cache_salt, request.scores_prompt);
  leader.num_cached_tokens = cached.num_device_tokens + cached.num_host_tokens;
  // Submit let it in by a bound; now it is known what is cached and who is ahead.
  const absl::Status in_time = CheckInTime(leader, cached);
  Request& added = requests_[leader_id];
  added.request_id = request.request_id;
  added.place = PlaceOf(command);
  added.submitted = request.submitted;
  added.num_open = static_cast<int32_t>(command.sequences.size());
  ++num_not_started_;
  const int32_t num_cached_tokens = leader.num_cached_tokens;
  for (NewSequence& sequence : command.sequences) scheduler_.Add(std::move(sequence));
  // Figures first: who hears that a request is accepted also sees it wait.
  Publish();
  completion_->Open(std::move(command.stream), num_cached_tokens);
  if (!in_time.ok()) CancelChoices(leader_id, FinishReason::kDeadline);
}

absl::Status StepLoop::CheckInTime(const NewSequence& leader, const CachedPrefix& cached) const {
  if (leader.deadline_us == kNoDeadline) return absl::OkStatus();
  const int64_t now_us = NowUs();
  const bool is_stale = scheduler_.idle() && now_us - last_step_us_ > kStaleAfterUs;
  const auto num_prompt = static_cast<int32_t>(leader.prompt.size());
  const int64_t first_token_us =
      is_stale ? 0 : LookAhead(num_prompt, cached, leader.priority, now_us).first_token_us;
  return CheckDeadline(leader.deadline_us, now_us, first_token_us, options_,
                       scheduler_.step_cost());
}

void StepLoop::Apply(const CancelCommand& command) {
  CancelChoices(command.leader, FinishReason::kCancelled);
}

void StepLoop::CancelChoices(SequenceId leader, FinishReason reason) {
  const auto it = requests_.find(leader);
  if (it == requests_.end()) return;
  for (int32_t i = kMaxChoices - 1; i >= 0; --i) {
    // Followers first: none is let go into the queue by the end of its leader.
    FinishedSequence finished;
    if (scheduler_.Cancel(leader + i, reason, &finished)) finished_.push_back(finished);
  }
}

void StepLoop::Apply(const FinishAtCommand& command) {
  FinishedSequence finished;
  if (scheduler_.FinishAt(command.id, command.num_output_tokens, &finished)) {
    finished_.push_back(finished);
  }
}

CachedPrefix StepLoop::FindCached(const std::vector<int32_t>& prompt, const std::string& cache_salt,
                                  bool scores_prompt) const {
  // Scores have to be computed, whatever is cached.
  return scores_prompt ? CachedPrefix() : scheduler_.Lookup(prompt, cache_salt);
}

StepLoop::Outlook StepLoop::LookAhead(int32_t num_prompt, const CachedPrefix& cached,
                                      int32_t priority, int64_t now_us) const {
  Outlook outlook;
  outlook.ahead = scheduler_.Ahead(priority, now_us);
  const int64_t num_own = num_prompt - cached.num_device_tokens - cached.num_host_tokens;
  outlook.first_token_us = static_cast<int64_t>(scheduler_.step_cost().PrefillUs(
      outlook.ahead.num_tokens + std::max<int64_t>(num_own, 1), options_.max_num_batched_tokens));
  return outlook;
}

void StepLoop::Expire() {
  const int64_t next_us = scheduler_.next_expiry_us();
  if (next_us == kNoDeadline) return;
  const int64_t now_us = NowUs();
  if (now_us < next_us) return;
  scheduler_.Expire(now_us, &finished_);
  if (finished_.empty()) return;
  Publish();
  DeliverFinished();
}

void StepLoop::DeliverFinished() {
  if (finished_.empty()) return;
  const absl::Time now = clock_->Now();
  for (FinishedSequence& finished : finished_) {
    NoteFinished(finished);
    completion_->PostFinished(std::move(finished), now);
  }
  finished_.clear();
}

void StepLoop::NoteFinished(const FinishedSequence& finished) {
  const auto it = requests_.find(LeaderOf(finished.id));
  CHECK(it != requests_.end()) << "sequence " << finished.id << " has no request";
  Request& request = it->second;
  if (--request.num_open > 0) return;
  if (!request.started) {
    queue_->Started(request.place);
    --num_not_started_;
  }
  requests_.erase(it);
}

bool StepLoop::PlanNext() {
  if (!failure_.empty() || paused_ || scheduler_.idle()) return false;
  if (rank_.num_outstanding() >= options_.max_steps_in_flight) return false;
  StepPlan& plan = plans_[num_launched_ % plans_.size()];
  StepResult& result = results_[num_launched_ % results_.size()];
  scheduler_.PlanStep(&plan);
  if (plan.empty()) {
    CHECK_GT(rank_.num_outstanding(), 0) << "the scheduler has sequences but plans nothing";
    return false;
  }
  ++num_launched_;
  is_checked_ = false;
  MarkStarted(plan);
  rank_.Launch(&plan, &result);
  // A step may take long: it shows what it admitted.
  Publish();
  return true;
}

void StepLoop::MarkStarted(const StepPlan& plan) {
  if (num_not_started_ == 0) return;
  for (const ScheduledSequence& row : plan.sequences) {
    const auto it = requests_.find(LeaderOf(row.id));
    CHECK(it != requests_.end()) << "sequence " << row.id << " has no request";
    if (std::exchange(it->second.started, true)) continue;
    --num_not_started_;
    queue_->Started(it->second.place);
  }
}

bool StepLoop::CommitOldest() {
  if (rank_.num_outstanding() == 0 || !rank_.OldestIsDone()) return false;
  // The oldest of those in flight, which are the last ones launched.
  const uint64_t oldest = num_launched_ - static_cast<uint64_t>(rank_.num_outstanding());
  const RankThread::Done done = rank_.Wait();
  if (!failure_.empty()) return true;
  if (!done.status.ok()) {
    Fail(done.status);
    return true;
  }
  const StepPlan& plan = plans_[oldest % plans_.size()];
  std::unique_ptr<Completion::StepEvent> event = completion_->TakeStepEvent();
  scheduler_.CommitStep(plan, results_[oldest % results_.size()], &event->result);
  const int64_t duration_us = absl::ToInt64Microseconds(done.end - done.begin);
  scheduler_.ObserveStep(plan.num_tokens, std::max<int64_t>(duration_us, 0));
  for (const FinishedSequence& finished : event->result.finished) NoteFinished(finished);
  ++num_steps_;
  step_tokens_.Observe(plan.num_tokens);
  last_step_us_ = absl::ToUnixMicros(done.end);
  Publish();
  event->begin = done.begin;
  event->end = done.end;
  completion_->PostStep(std::move(event));
  return true;
}

void StepLoop::Fail(const absl::Status& status) {
  failure_ = absl::StrCat("the engine failed in step ", num_steps_ + 1, ": ", status.ToString());
  LogError(failure_);
  // In this order: a sink that is told so finds health() not OK and all blocks free.
  queue_->Fail(failure_);
  std::vector<FinishedSequence> ended;
  scheduler_.EndAll(FinishReason::kError, &ended);
  for (const FinishedSequence& finished : ended) NoteFinished(finished);
  Publish();
  completion_->PostFailure(failure_);
}

void StepLoop::CheckWhenIdle() {
  if (is_checked_ || !scheduler_.idle() || rank_.num_outstanding() > 0) return;
  scheduler_.CheckInvariants();
  is_checked_ = true;
}

void StepLoop::Publish() {
  EngineSnapshot snapshot;
  snapshot.scheduler = scheduler_.stats();
  snapshot.step_cost = scheduler_.step_cost();
  snapshot.num_steps = num_steps_;
  snapshot.last_step_us = last_step_us_;
  const SchedulerStats& stats = snapshot.scheduler;
  const int64_t num_kv_blocks = int64_t{stats.num_blocks} - stats.num_free_blocks +
                                stats.num_cached_blocks + stats.num_host_blocks -
                                stats.num_free_host_blocks;
  const int64_t num_kv_tokens = num_kv_blocks * options_.block_size;
  // Blocks that retire with a step in flight are neither held nor cached yet.
  const bool may_retire = scheduler_.num_in_flight() > 0;
  num_kv_tokens_ = may_retire ? std::max(num_kv_tokens_, num_kv_tokens) : num_kv_tokens;
  snapshot.num_kv_tokens = num_kv_tokens_;
  snapshot.paused = paused_;
  queue_->Publish(snapshot);
}

}  // namespace fastgen
