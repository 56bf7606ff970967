// StepInputs: a StepPlan as the flat arrays that the backend's ops read, the blocks that it moves,
// and the list of logit rows that the step must produce.
//
// Row order is the plan's. A token that the scheduler does not know yet is what the row that it
// names has sampled in the step before. Every array is reserved for the largest step at
// construction, so that Build allocates nothing. A plan that breaks the scheduler's promises (an id
// outside the vocabulary, a block table too short, a limit exceeded) is our own mistake and CHECKed
// here, the last place before it would become memory corruption. Thread rule: the executor's
// thread; the arrays must stay as they are until Synchronize(). Tested by
// tests/engine/model/step_inputs_test.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/kv_moves.h"
#include "engine/model/memory_plan.h"
#include "engine/model/sampling_state.h"
#include "engine/schedule/step_plan.h"
#include "kernels/backend.h"

namespace fastgen {

// What a row of the previous plan sampled.
struct SampledRow {
  SequenceId id = 0;
  int32_t token = -1;  // -1: it did not sample
};

class StepInputs {
 public:
  // Where the result of a logit row goes.
  struct LogitOwner {
    int32_t sequence = 0;     // index in StepPlan::sequences
    int32_t score_index = 0;  // in score_targets; kSampled: the sequence's next token
  };
  static constexpr int32_t kSampled = -1;

  StepInputs(const MemoryPlan& plan, int64_t vocab);

  // Replaces the contents. `plan` and `sampling` must stay as they are while rows are in use.
  void Build(const StepPlan& plan, absl::Span<const SampledRow> previous, SamplingState* sampling);

  absl::Span<const int32_t> ids() const { return ids_; }
  absl::Span<const int32_t> positions() const { return positions_; }
  absl::Span<const int64_t> slots() const { return slots_; }
  const AttentionBatch& attention() const { return attention_; }
  const KvMoves& moves() const { return moves_; }

  // Parallel arrays, one entry a logit row, grouped by sequence in the plan's order.
  absl::Span<const int32_t> logit_rows() const { return logit_rows_; }  // row of the step
  absl::Span<const SampleRow> sample_rows() const { return sample_rows_; }
  absl::Span<const LogitOwner> logit_owners() const { return logit_owners_; }

 private:
  void Clear();
  void AddTokens(const ScheduledSequence& sequence, int32_t pending_token);
  void AddLogitRows(const ScheduledSequence& sequence, int32_t index, int32_t first_row);
  void AddSampledRow(const ScheduledSequence& sequence, int32_t index, int32_t pending_token,
                     SamplingState* sampling);

  const MemoryPlan limits_;
  const int64_t vocab_;
  KvMoves moves_;
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
