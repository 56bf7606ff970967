// What a finished step changes: CommitStep.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/stop_condition.h"

namespace fastgen {

void Scheduler::CommitStep(const StepPlan& plan, const StepResult& result, CommitResult* commit) {
  commit->outputs.clear();
  commit->finished.clear();
  CHECK_GT(num_in_flight(), 0) << "step " << plan.step << " is already committed";
  CHECK_EQ(plan.step, committed_step_ + 1) << "steps are committed in the order of planning";
  CHECK_EQ(plan.sequences.size(), result.sequences.size()) << "step " << plan.step;
  committed_step_ = plan.step;
  RetireStep(plan.step);
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    Sequence* sequence = FindLive(plan.sequences[i].id);
    if (sequence == nullptr) {  // it ended meanwhile
      ++counters_.num_wasted_rows;
      continue;
    }
    CommitRow(sequence, plan.sequences[i], result.sequences[i], commit);
  }
  CheckInDebug();
}

void Scheduler::RetireStep(uint64_t step) {
  blocks_.Retire(step);
  host_.Retire(step);
  size_t num_done = 0;
  for (; num_done < chunks_in_flight_.size() && chunks_in_flight_[num_done].first <= step;
       ++num_done) {
    const int32_t chunk = chunks_in_flight_[num_done].second;
    host_.SetReady(chunk);
    host_.Release(chunk, step);
    if (host_.index().Contains(chunk)) host_.Touch(chunk);
  }
  chunks_in_flight_.erase(chunks_in_flight_.begin(),
                          chunks_in_flight_.begin() + static_cast<int64_t>(num_done));
}

void Scheduler::CommitRow(Sequence* sequence, const ScheduledSequence& row,
                          const SequenceResult& row_result, CommitResult* commit) {
  const int32_t end = row.context_begin + static_cast<int32_t>(row.tokens.size());
  const bool extends_kv = row.epoch == sequence->epoch;
  if (extends_kv) sequence->num_committed = end;
  if (row.samples) --sequence->num_pending;
  if (row.context_begin < sequence->prefill_end) ++sequence->num_chunks;
  ++sequence->num_steps;

  CommitResult::Output& output = commit->outputs.emplace_back();
  output.id = row.id;
  output.first_chunk = sequence->num_steps == 1;
  output.cached_tokens = sequence->cached_tokens;
  output.num_computed = end;
  output.prefilled = !sequence->is_prefilled && end >= sequence->num_prompt;
  if (row_result.is_nan) {
    // Its KV, or a prefix that it shares, may be what is broken: nobody is to find it again.
    ForgetPrefixes();
    commit->finished.push_back(End(sequence, FinishReason::kError, 0));
    commit->finished.back().is_nan = true;
    return;
  }
  if (!row_result.failure.ok()) {
    commit->finished.push_back(End(sequence, FinishReason::kError, IndexLimit(*sequence)));
    commit->finished.back().failure = row_result.failure;
    return;
  }
  ReportScores(sequence, row, row_result, &output);
  if (row.samples) {
    CHECK(row_result.sampled) << "sequence " << row.id << " sampled nothing in step "
                              << committed_step_;
    output.token = row_result.next;
    sequence->tokens.push_back(row_result.next.token);
  }
  if (sequence->phase == Sequence::Phase::kRunning && extends_kv) {
    IndexBlocks(sequence, IndexLimit(*sequence));
  }
  if (output.prefilled) {
    sequence->is_prefilled = true;
    ReleaseFollowers(sequence);
  }
  if (!row.samples) {
    // Nothing may be sampled after the whole prompt: it was computed for its scores.
    if (extends_kv && end == sequence->length() && !Samples(*sequence)) {
      commit->finished.push_back(End(sequence, FinishReason::kLength, IndexLimit(*sequence)));
    }
    return;
  }
  const std::optional<StopDecision> stop =
      StopAtToken(sequence->stop, row_result.next.token, sequence->num_tokens(),
                  sequence->num_output(), options_.max_model_len);
  if (!stop.has_value()) return;
  commit->finished.push_back(End(sequence, stop->reason, IndexLimit(*sequence)));
  commit->finished.back().matched_token_id = stop->matched_token_id;
}

void Scheduler::ReportScores(Sequence* sequence, const ScheduledSequence& row,
                             const SequenceResult& row_result, CommitResult::Output* output) {
  CHECK_EQ(row_result.scored.size(), row.score_targets.size()) << "sequence " << row.id;
  for (size_t i = 0; i < row_result.scored.size(); ++i) {
    // A run before a preemption reported these already.
    if (row.context_begin + static_cast<int32_t>(i) < sequence->num_scored) continue;
    output->scored.push_back(row_result.scored[i]);
    ++sequence->num_scored;
  }
}

}  // namespace fastgen
