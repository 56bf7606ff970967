#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/int_math.h"
#include "engine/schedule/admission.h"
#include "engine/schedule/stop_condition.h"

namespace fastgen {

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), blocks_(options.num_blocks) {
  const absl::Status valid = Validate(options);
  CHECK(valid.ok()) << std::string(valid.message());
  running_.reserve(options.max_num_seqs);
}

void Scheduler::Add(NewSequence added) {
  const int32_t num_prompt = static_cast<int32_t>(added.prompt.size());
  CHECK_GE(num_prompt, 1) << "sequence " << added.id;
  CHECK_LE(num_prompt, options_.max_model_len) << "sequence " << added.id;
  CHECK_GE(added.stop.max_output_tokens, 0) << "sequence " << added.id;
  const int64_t slots =
      MaxKvSlots(num_prompt, added.stop.max_output_tokens, options_.max_model_len);
  CHECK_LE(slots, int64_t{options_.num_blocks} * options_.block_size) << "sequence " << added.id;

  auto sequence = std::make_unique<Sequence>();
  sequence->id = added.id;
  sequence->arrival = ++last_arrival_;
  sequence->stop = std::move(added.stop);
  std::sort(sequence->stop.stop_token_ids.begin(), sequence->stop.stop_token_ids.end());
  sequence->sampling = added.sampling;
  sequence->tokens = std::move(added.prompt);
  sequence->num_prompt = num_prompt;
  waiting_.emplace(sequence->arrival, sequence.get());
  const bool is_new = live_.emplace(added.id, std::move(sequence)).second;
  CHECK(is_new) << "sequence " << added.id << " is already live";
  CheckInDebug();
}

bool Scheduler::Cancel(SequenceId id, FinishReason reason, FinishedSequence* finished) {
  const auto it = live_.find(id);
  if (it == live_.end()) return false;
  const FinishedSequence record = End(it->second.get(), reason);
  if (finished != nullptr) *finished = record;
  CheckInDebug();
  return true;
}

bool Scheduler::FinishAt(SequenceId id, int32_t num_output_tokens, FinishedSequence* finished) {
  const auto it = live_.find(id);
  if (it == live_.end()) return false;
  CHECK_GE(num_output_tokens, 0) << "sequence " << id;
  CHECK_LE(num_output_tokens, it->second->num_output()) << "sequence " << id;
  FinishedSequence record = End(it->second.get(), FinishReason::kStop);
  record.output_tokens = num_output_tokens;
  if (finished != nullptr) *finished = record;
  CheckInDebug();
  return true;
}

StepPlan Scheduler::PlanStep() {
  StepPlan plan;
  PlanStep(&plan);
  return plan;
}

void Scheduler::PlanStep(StepPlan* plan) {
  CHECK(!in_flight_) << "step " << last_step_ << " is planned and not committed";
  plan->num_tokens = 0;
  num_rows_ = 0;
  num_decode_rows_ = 0;
  PlanDecodeRows(plan);
  PlanRunningChunks(plan);
  AdmitAndPlanWaiting(plan);
  FinishPlan(plan);
  CheckInDebug();
}

void Scheduler::PlanDecodeRows(StepPlan* plan) {
  // Oldest first. Preemption takes from the end, so it never reaches a sequence that has its row.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[i];
    if (!IsDecoding(*sequence)) continue;
    if (!TakeDecodeBlock(sequence)) return;  // it was the youngest: nobody is behind it
    AddRow(sequence, 1, plan);
  }
}

void Scheduler::PlanRunningChunks(StepPlan* plan) {
  for (Sequence* sequence : running_) {
    if (sequence->planned_tokens > 0) continue;
    const int32_t budget = options_.max_num_batched_tokens - plan->num_tokens;
    CHECK_GT(budget, 0) << "a running sequence would miss the step";
    AddRow(sequence, std::min(sequence->num_remaining(), budget), plan);
  }
}

void Scheduler::AdmitAndPlanWaiting(StepPlan* plan) {
  while (!waiting_.empty() && static_cast<int32_t>(running_.size()) < options_.max_num_seqs) {
    const int32_t budget = options_.max_num_batched_tokens - plan->num_tokens;
    Sequence* sequence = waiting_.begin()->second;
    // A younger sequence that would fit has to wait too: otherwise small ones could keep a large
    // one out for ever.
    if (budget == 0 || !FitsNow(*sequence)) return;
    Admit(sequence);
    AddRow(sequence, std::min(sequence->num_remaining(), budget), plan);
  }
}

void Scheduler::FinishPlan(StepPlan* plan) {
  while (static_cast<int32_t>(plan->sequences.size()) > num_rows_) {
    spare_rows_.push_back(std::move(plan->sequences.back()));
    plan->sequences.pop_back();
  }
  CHECK_EQ(plan->empty(), idle()) << "live sequences and nothing to run";
  plan->step = 0;
  if (plan->empty()) return;
  plan->step = ++last_step_;
  in_flight_ = true;
}

bool Scheduler::IsDecoding(const Sequence& sequence) const {
  return sequence.num_remaining() == 1 && Samples(sequence);
}

bool Scheduler::Samples(const Sequence& sequence) const {
  return MaySample(sequence.stop, sequence.num_tokens(), sequence.num_output(),
                   options_.max_model_len);
}

bool Scheduler::TakeDecodeBlock(Sequence* sequence) {
  const int32_t num_slots =
      static_cast<int32_t>(sequence->block_table.size()) * options_.block_size;
  if (sequence->num_computed < num_slots) return true;
  while (blocks_.num_free() == 0) {
    PreemptYoungest();
    if (sequence->phase == Sequence::Phase::kWaiting) return false;
  }
  sequence->block_table.push_back(blocks_.Take());
  return true;
}

void Scheduler::PreemptYoungest() {
  Sequence* sequence = running_.back();
  CHECK_EQ(sequence->planned_tokens, 0) << "sequence " << sequence->id << " already has its row";
  // Alone it would fit (Add checked it), so preempting the last one would free what it needs
  // itself, for ever.
  CHECK_GT(running_.size(), 1u) << "sequence " << sequence->id << " does not fit the pool alone";
  running_.pop_back();
  blocks_.ReturnAll(&sequence->block_table);
  sequence->num_computed = 0;
  sequence->phase = Sequence::Phase::kWaiting;
  ++sequence->num_preemptions;
  ++num_preemptions_;
  waiting_.emplace(sequence->arrival, sequence);
}

bool Scheduler::FitsNow(const Sequence& sequence) const {
  const int32_t needed = CeilDiv(sequence.num_tokens(), options_.block_size);
  const int32_t reserve = static_cast<int32_t>(running_.size());
  return needed + reserve <= blocks_.num_free();
}

void Scheduler::Admit(Sequence* sequence) {
  waiting_.erase(sequence->arrival);
  running_.push_back(sequence);
  sequence->phase = Sequence::Phase::kRunning;
  sequence->prefill_end = sequence->num_tokens();
  // All that it may grow to, once: decode steps do not allocate.
  const int64_t max_tokens = std::min<int64_t>(
      int64_t{sequence->num_prompt} + sequence->stop.max_output_tokens, options_.max_model_len);
  sequence->tokens.reserve(max_tokens);
  sequence->block_table.reserve(CeilDiv<int64_t>(max_tokens, options_.block_size));
  const int32_t num_blocks = CeilDiv(sequence->num_tokens(), options_.block_size);
  for (int32_t i = 0; i < num_blocks; ++i) sequence->block_table.push_back(blocks_.Take());
}

ScheduledSequence* Scheduler::NextRow(StepPlan* plan) {
  if (num_rows_ == static_cast<int32_t>(plan->sequences.size())) {
    if (spare_rows_.empty()) {
      plan->sequences.emplace_back();
    } else {
      plan->sequences.push_back(std::move(spare_rows_.back()));
      spare_rows_.pop_back();
    }
  }
  return &plan->sequences[num_rows_++];
}

void Scheduler::AddRow(Sequence* sequence, int32_t num_tokens, StepPlan* plan) {
  const int32_t begin = sequence->num_computed;
  const int32_t end = begin + num_tokens;
  const int32_t num_blocks = CeilDiv(end, options_.block_size);
  CHECK_LE(num_blocks, static_cast<int32_t>(sequence->block_table.size()))
      << "sequence " << sequence->id;
  ScheduledSequence* row = NextRow(plan);
  row->id = sequence->id;
  row->tokens.assign(sequence->tokens.begin() + begin, sequence->tokens.begin() + end);
  row->context_begin = begin;
  row->block_table.reserve(sequence->block_table.capacity());  // all it may grow to, see Admit
  row->block_table.assign(sequence->block_table.begin(),
                          sequence->block_table.begin() + num_blocks);
  row->samples = end == sequence->num_tokens() && Samples(*sequence);
  row->output_position = sequence->num_output();
  row->banned_tokens.clear();
  if (row->samples && BansStopIds(sequence->stop, row->output_position)) {
    row->banned_tokens = sequence->stop.stop_token_ids;
  }
  row->score_targets.clear();
  // A chunk that holds the first unscored token scores from its own beginning (targets are parallel
  // to its tokens); CommitStep drops what a run before a preemption already reported.
  const int32_t score_end = std::min(end + 1, sequence->num_prompt);
  if (sequence->sampling.num_prompt_top_logprobs >= 0 && score_end > sequence->num_scored + 1) {
    row->score_targets.assign(sequence->tokens.begin() + begin + 1,
                              sequence->tokens.begin() + score_end);
  }
  row->sampling = sequence->sampling;
  sequence->planned_tokens = num_tokens;
  plan->num_tokens += num_tokens;
  if (row->is_decode()) {
    // A prompt of one token is a decode row too, and those lead the plan.
    const auto rows = plan->sequences.begin();
    std::rotate(rows + num_decode_rows_, rows + num_rows_ - 1, rows + num_rows_);
    ++num_decode_rows_;
  }
}

CommitResult Scheduler::CommitStep(const StepPlan& plan, const StepResult& result) {
  CommitResult commit;
  CommitStep(plan, result, &commit);
  return commit;
}

void Scheduler::CommitStep(const StepPlan& plan, const StepResult& result, CommitResult* commit) {
  commit->outputs.clear();
  commit->finished.clear();
  CHECK_EQ(plan.sequences.size(), result.sequences.size()) << "step " << plan.step;
  if (plan.empty()) return;
  CHECK(in_flight_) << "step " << plan.step << " is already committed";
  CHECK_EQ(plan.step, last_step_);
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const auto it = live_.find(plan.sequences[i].id);
    if (it == live_.end() || it->second->planned_tokens == 0) continue;  // cancelled meanwhile
    CommitRow(it->second.get(), plan.sequences[i], result.sequences[i], commit);
  }
  in_flight_ = false;
  CheckInDebug();
}

void Scheduler::CommitRow(Sequence* sequence, const ScheduledSequence& row,
                          const SequenceResult& row_result, CommitResult* commit) {
  CHECK_EQ(sequence->planned_tokens, static_cast<int32_t>(row.tokens.size()))
      << "sequence " << row.id;
  const int32_t begin = sequence->num_computed;
  sequence->num_computed += sequence->planned_tokens;
  sequence->planned_tokens = 0;
  if (begin < sequence->prefill_end) ++sequence->num_chunks;
  ++sequence->num_steps;

  CommitResult::Output& output = commit->outputs.emplace_back();
  output.id = row.id;
  output.first_chunk = sequence->num_steps == 1;
  output.prefilled = sequence->num_output() == 0 && sequence->num_computed == sequence->num_prompt;
  if (row_result.is_nan) {
    commit->finished.push_back(End(sequence, FinishReason::kError));
    commit->finished.back().is_nan = true;
    return;
  }
  CHECK_EQ(row_result.scored.size(), row.score_targets.size()) << "sequence " << row.id;
  for (size_t i = 0; i < row_result.scored.size(); ++i) {
    if (begin + static_cast<int32_t>(i) < sequence->num_scored) continue;
    output.scored.push_back(row_result.scored[i]);
    ++sequence->num_scored;
  }
  if (!row.samples) {
    // Nothing may be sampled after the whole prompt: it was computed for its scores.
    if (sequence->num_remaining() == 0)
      commit->finished.push_back(End(sequence, FinishReason::kLength));
    return;
  }
  CHECK(row_result.sampled) << "sequence " << row.id << " has no token in step " << last_step_;
  output.token = row_result.next;
  sequence->tokens.push_back(row_result.next.token);
  const std::optional<StopDecision> stop =
      StopAtToken(sequence->stop, row_result.next.token, sequence->num_tokens(),
                  sequence->num_output(), options_.max_model_len);
  if (!stop.has_value()) return;
  commit->finished.push_back(End(sequence, stop->reason));
  commit->finished.back().matched_token_id = stop->matched_token_id;
}

FinishedSequence Scheduler::End(Sequence* sequence, FinishReason reason) {
  FinishedSequence record;
  record.id = sequence->id;
  record.reason = reason;
  record.prompt_tokens = sequence->num_prompt;
  record.output_tokens = sequence->num_output();
  record.num_chunks = sequence->num_chunks;
  record.num_steps = sequence->num_steps;
  record.num_preemptions = sequence->num_preemptions;
  if (sequence->phase == Sequence::Phase::kRunning) {
    RemoveFromRunning(sequence);
  } else {
    CHECK_EQ(waiting_.erase(sequence->arrival), 1u) << "sequence " << sequence->id;
  }
  blocks_.ReturnAll(&sequence->block_table);
  CHECK_EQ(live_.erase(record.id), 1u) << "sequence " << record.id;
  return record;
}

void Scheduler::RemoveFromRunning(const Sequence* sequence) {
  const auto it = std::lower_bound(
      running_.begin(), running_.end(), sequence->arrival,
      [](const Sequence* running, uint64_t arrival) { return running->arrival < arrival; });
  CHECK(it != running_.end() && *it == sequence)
      << "sequence " << sequence->id << " is not running";
  running_.erase(it);
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats;
  stats.num_running = static_cast<int32_t>(running_.size());
  stats.num_waiting = static_cast<int32_t>(waiting_.size());
  stats.num_free_blocks = blocks_.num_free();
  stats.num_blocks = blocks_.num_blocks();
  stats.num_preemptions = num_preemptions_;
  return stats;
}

void Scheduler::CheckInvariants() const {
  CHECK_EQ(live_.size(), running_.size() + waiting_.size());
  CHECK_LE(static_cast<int32_t>(running_.size()), options_.max_num_seqs);
  std::vector<bool> held(blocks_.num_blocks(), false);
  int32_t num_held = 0;
  uint64_t last_arrival = 0;
  for (const Sequence* sequence : running_) {
    CHECK(sequence->phase == Sequence::Phase::kRunning) << "sequence " << sequence->id;
    CHECK_LT(last_arrival, sequence->arrival) << "running sequences are out of order";
    last_arrival = sequence->arrival;
    CheckSequence(*sequence);
    for (const int32_t block : sequence->block_table) {
      CHECK(blocks_.IsTaken(block)) << "sequence " << sequence->id << " holds free block " << block;
      CHECK(!held[block]) << "block " << block << " is in two tables";
      held[block] = true;
      ++num_held;
    }
    const bool in_prefill = sequence->num_remaining() - sequence->planned_tokens > 1;
    CHECK(!in_prefill || sequence == running_.back())
        << "sequence " << sequence->id << " lags behind a younger one";
    CHECK(!in_flight_ || sequence->planned_tokens > 0)
        << "sequence " << sequence->id << " missed a step";
  }
  CHECK_EQ(num_held + blocks_.num_free(), blocks_.num_blocks()) << "a block is lost";
  for (const auto& [arrival, sequence] : waiting_) {
    CHECK(sequence->phase == Sequence::Phase::kWaiting) << "sequence " << sequence->id;
    CHECK_EQ(arrival, sequence->arrival);
    CHECK_LT(last_arrival, arrival) << "sequence " << sequence->id << " was overtaken";
    last_arrival = arrival;
    CHECK(sequence->block_table.empty()) << "waiting sequence " << sequence->id << " holds blocks";
    CHECK_EQ(sequence->num_computed, 0) << "sequence " << sequence->id;
    CheckSequence(*sequence);
  }
}

void Scheduler::CheckSequence(const Sequence& sequence) const {
  const auto it = live_.find(sequence.id);
  CHECK(it != live_.end() && it->second.get() == &sequence)
      << "sequence " << sequence.id << " is not live";
  CHECK_LE(sequence.num_computed + sequence.planned_tokens, sequence.num_tokens())
      << "sequence " << sequence.id;
  CHECK_GT(sequence.num_remaining(), 0)
      << "sequence " << sequence.id << " has nothing left and did not end";
  CHECK_LT(sequence.num_output(), std::max(sequence.stop.max_output_tokens, 1))
      << "sequence " << sequence.id;
  CHECK_LE(sequence.num_tokens(), options_.max_model_len) << "sequence " << sequence.id;
  const int32_t num_blocks = static_cast<int32_t>(sequence.block_table.size());
  CHECK_LE(sequence.num_computed + sequence.planned_tokens, num_blocks * options_.block_size)
      << "sequence " << sequence.id << " computes beyond its blocks";
  CHECK_LE(num_blocks, CeilDiv(sequence.num_tokens(), options_.block_size))
      << "sequence " << sequence.id;
}

void Scheduler::CheckInDebug() const {
#ifndef NDEBUG
  CheckInvariants();
#endif
}

}  // namespace fastgen
