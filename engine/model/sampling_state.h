// SamplingState: what choosing a sequence's next token needs beside its logits, kept by slot.
//
//   rules    TokenRules compiled for the backend (bias, mask, bad words); recompiled when a slot's
//            row brings other rules. The slot holds on to them, so that an address means the same.
//   history  of sequences that need it: how often each token occurred (prompt tokens count 0) and
//            the end of the output, as long as a bad word but one. Begun by a row with
//            starts_history, from then on kept by Append.
// Since histories grow here, a step that is planned before the last one has run needs no ids from
// the scheduler. A bad word is banned by banning its last token where the output ends with the
// rest of it; one of a single token always is.
//   mask     of a constrained sequence: followed by MaskFiller from each token on, and taken, together with the rules'
//            own mask, by FinishMasks. Where rules, constraint and bans leave nothing, the sequence ends with the reason.
// Histories of the longest sequences are reserved at construction. Memory is taken when a slot
// meets rules larger than any before: a sequence's first sampling row, never a later one.
// Thread rule: the executor's thread.
// Tested by tests/engine/model/sampling_state_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/model/mask_filler.h"
#include "engine/model/memory_plan.h"
#include "engine/schedule/step_plan.h"
#include "kernels/backend.h"

namespace fastgen {

class SamplingState {
 public:
  SamplingState(const MemoryPlan& plan, int64_t vocab);

  // Fills the rule fields of `row` for a sequence that samples. They refer to `sequence` and to
  // this object and hold until the slot's next FillRow or Append. `pending_token` is the id that
  // stands for the sequence's kPendingToken; not read without one.
  void FillRow(const ScheduledSequence& sequence, int32_t pending_token, SampleRow* row);

  // To be called before the filled rows are sampled: completes the masks that they refer to.
  void FinishMasks(const StepPlan& plan);

  // Notes what the row that was filled last for this slot has sampled.
  void Append(const ScheduledSequence& sequence, int32_t token);
  // An error when nothing may be sampled in that row: its token means nothing then.
  absl::Status failure(const ScheduledSequence& sequence) const;

 private:
  struct Slot {
    bool is_row_filled = false;    // by this step
    SequenceId history_owner = 0;  // 0: none
    std::vector<TokenCount> counts;
    std::vector<int32_t> output_end;
    std::shared_ptr<const TokenRules> rules;
    std::vector<LogitBias> logit_bias;
    std::vector<uint32_t> allowed_mask;
    size_t max_output_end = 0;           // the longest bad word's length, less 1
    std::vector<int32_t> banned_tokens;  // of the last row with bad words
    std::vector<uint32_t> mask;          // of a constrained row
    absl::Span<const int32_t> row_banned_tokens;
    absl::Status failure;  // of a constrained sequence
  };

  void Compile(const TokenRules& rules, Slot* slot) const;
  void StartHistory(const ScheduledSequence& sequence, int32_t pending_token, Slot* slot);
  // Makes `slot->counts` those of the sequence's history.
  void CountTokens(const ScheduledSequence& sequence, Slot* slot);
  static void AddToHistory(const ScheduledSequence& sequence, int32_t token, Slot* slot);
  void StartMask(const ScheduledSequence& sequence, int32_t pending_token);
  // Leaves in `slot->mask` what the rules allow, too. An error when that is nothing.
  absl::Status ApplyRules(const ScheduledSequence& sequence, absl::Span<const uint32_t> mask,
                          Slot* slot) const;
  static void BanTokens(const ScheduledSequence& sequence, Slot* slot);

  const int32_t max_model_len_;
  const int64_t vocab_;
  std::vector<Slot> slots_;
  std::vector<TokenCount> unsorted_;  // of CountTokens
  MaskFiller masks_;
};

}  // namespace fastgen
