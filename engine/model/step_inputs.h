// StepInputs: a StepPlan as the flat arrays that the backend's ops read, and the list of logit rows
// that the step must produce.
//
// Row order is the plan's. Every array is reserved for the largest step at construction, so that
// Build allocates nothing. A plan that breaks the scheduler's promises (an id outside the
// vocabulary, a block table too short, a limit exceeded) is our own mistake and CHECKed here, the
// last place before it would become memory corruption.
// Thread rule: the executor's thread; the arrays must stay as they are until Synchronize().
// Tested by tests/engine/model/step_inputs_test.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/memory_plan.h"
#include "engine/schedule/step_plan.h"
#include "kernels/backend.h"

namespace fastgen {

class StepInputs {
 public:
  // Where the result of a logit row goes.
  struct LogitOwner {
    int32_t sequence = 0;     // index in StepPlan::sequences
    int32_t score_index = 0;  // in score_targets; kSampled: the sequence's next token
  };
  static constexpr int32_t kSampled = -1;

  StepInputs(const MemoryPlan& plan, int64_t vocab);

  // Replaces the contents. `plan` must outlive their use (rows refer to its banned_tokens).
  void Build(const StepPlan& plan);

  absl::Span<const int32_t> ids() const { return ids_; }
  absl::Span<const int32_t> positions() const { return positions_; }
  absl::Span<const int64_t> slots() const { return slots_; }
  const AttentionBatch& attention() const { return attention_; }

  // Parallel arrays, one entry a logit row, grouped by sequence in the plan's order.
  absl::Span<const int32_t> logit_rows() const { return logit_rows_; }  // row of the step
  absl::Span<const SampleRow> sample_rows() const { return sample_rows_; }
  absl::Span<const LogitOwner> logit_owners() const { return logit_owners_; }

 private:
  void AddTokens(const ScheduledSequence& sequence);
  void AddLogitRows(const ScheduledSequence& sequence, int32_t index, int32_t first_row);

  const MemoryPlan limits_;
  const int64_t vocab_;
  std::vector<int32_t> ids_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
  std::vector<int32_t> query_start_;
  std::vector<int32_t> context_len_;
  std::vector<int32_t> block_tables_;
  AttentionBatch attention_;
  std::vector<int32_t> logit_rows_;
  std::vector<SampleRow> sample_rows_;
  std::vector<LogitOwner> logit_owners_;
};

}  // namespace fastgen
