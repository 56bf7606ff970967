// Scheduler: decides what runs in each step. A pure state machine: no threads, clock, device, text
// or logging.
//
//   PlanStep: decode rows of every running sequence first (one token each), then prefill chunks in
//   order of arrival,
//             within max_num_batched_tokens. Waiting sequences are admitted while a row, their
//             blocks for the whole known text and a reserve of one block per running sequence are
//             free.
//   CommitStep: appends sampled tokens, ends sequences (eos, stop id, length), frees blocks.
// A decode row that finds no free block preempts the youngest running sequence: its blocks are
// freed, its tokens kept, and it is prefilled again (recompute) when it fits.
//
// A chunk ends at the budget only, so at most one running sequence is in the middle of its prefill,
// and it is the youngest: max_num_batched_tokens >= max_num_seqs leaves it at least one token in
// each step. Blocks freed by Cancel or FinishAt while a step is in flight may still be written by
// it. That is harmless: blocks are handed out by PlanStep alone, and PlanStep comes after the
// CommitStep of that step.
//
// Invariants, checked after every call in debug builds and by the simulation:
//  1. free + held = all blocks; no block is in two tables.
//  2. Every added sequence ends exactly once, in CommitResult::finished of some CommitStep, Cancel
//  or FinishAt.
//  3. A running sequence is in the plan of every step until it ends or is preempted (no starvation
//  of decode);
//     the oldest waiting sequence is admitted before any younger one (no starvation of prefill).
// Thread rule: engine thread only.
// Tested by tests/engine/schedule/*_test.cc, scripts in tests/testdata/schedule, and tests/sim.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/schedule/block_pool.h"
#include "engine/schedule/sequence.h"
#include "engine/schedule/step_plan.h"

namespace fastgen {

struct SchedulerOptions {
  int32_t max_num_seqs = 256;
  int32_t max_num_batched_tokens = 2048;
  int32_t max_model_len = 8192;
  int32_t block_size = 64;
  int32_t num_blocks = 0;
};  // ranges: Validate in admission.h

// What a step changed, for the completion side.
struct CommitResult {
  struct Output {
    SequenceId id = 0;
    TokenScore token;                // token.token == -1: none (a chunk that did not sample)
    std::vector<TokenScore> scored;  // prompt tokens scored in this step, in order
    bool first_chunk =
        false;  // the sequence's first step of all; never true again after a preemption
    bool prefilled = false;  // this step completed its prompt; never true again after a preemption
  };
  std::vector<Output> outputs;  // in plan order
  std::vector<FinishedSequence> finished;
};

// Figures of this moment.
struct SchedulerStats {
  int32_t num_running = 0;
  int32_t num_waiting = 0;
  int32_t num_free_blocks = 0;
  int32_t num_blocks = 0;
  int64_t num_preemptions = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // Queues a sequence, also while a step is in flight. REQUIRES: id not live; 1 <= prompt <=
  // max_model_len; it fits the whole pool when alone (admission.h checks these for the outside
  // world).
  void Add(NewSequence sequence);

  // Ends a live sequence in any phase and frees its blocks now. False when `id` is not live
  // (idempotent). `finished` may be null.
  bool Cancel(SequenceId id, FinishReason reason, FinishedSequence* finished);

  // A stop string ended at output token `num_output_tokens` (found late, on the completion side):
  // as Cancel, with reason kStop and the output cut there. False when `id` is not live. `finished`
  // may be null. REQUIRES: 0 <= num_output_tokens <= the output committed so far.
  bool FinishAt(SequenceId id, int32_t num_output_tokens, FinishedSequence* finished);

  // The next step's work; empty exactly when idle() (then there is nothing to commit).
  // REQUIRES: the previous plan was committed.
  StepPlan PlanStep();
  // The same, into a plan whose storage is used again: no allocation once sequences stop coming and
  // going.
  void PlanStep(StepPlan* plan);

  // Applies the result of the last plan. Sequences cancelled since then are skipped.
  CommitResult CommitStep(const StepPlan& plan, const StepResult& result);
  void CommitStep(const StepPlan& plan, const StepResult& result, CommitResult* commit);

  bool idle() const { return live_.empty(); }
  SchedulerStats stats() const;
  // CHECKs the invariants above; linear in the number of blocks.
  void CheckInvariants() const;

 private:
  // In the order of planning.
  void PlanDecodeRows(StepPlan* plan);
  void PlanRunningChunks(StepPlan* plan);
  void AdmitAndPlanWaiting(StepPlan* plan);
  void FinishPlan(StepPlan* plan);

  // True when `sequence` feeds its newest token only, to sample the next.
  bool IsDecoding(const Sequence& sequence) const;
  bool Samples(const Sequence& sequence) const;
  // Gives `sequence` a block for its next token, preempting from the youngest on. False when it was
  // itself preempted.
  bool TakeDecodeBlock(Sequence* sequence);
  void PreemptYoungest();
  bool FitsNow(const Sequence& sequence) const;
  void Admit(Sequence* sequence);
  // Adds the row that feeds the next `num_tokens` tokens.
  void AddRow(Sequence* sequence, int32_t num_tokens, StepPlan* plan);
  ScheduledSequence* NextRow(StepPlan* plan);

  void CommitRow(Sequence* sequence, const ScheduledSequence& row, const SequenceResult& row_result,
                 CommitResult* result);
  // The record of how `sequence` ended; frees its blocks and forgets it.
  FinishedSequence End(Sequence* sequence, FinishReason reason);
  void RemoveFromRunning(const Sequence* sequence);
  void CheckSequence(const Sequence& sequence) const;
  void CheckInDebug() const;

  const SchedulerOptions options_;
  BlockPool blocks_;
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> live_;  // owns all sequences
  // Both are ordered by arrival, and all of running_ arrived before all of waiting_: admission
  // takes the oldest, preemption the youngest. A map, because cancelling takes from its middle; a
  // preempted sequence's place by arrival is the front.
  std::map<uint64_t, Sequence*> waiting_;
  std::vector<Sequence*> running_;
  std::vector<ScheduledSequence> spare_rows_;  // of earlier, longer plans: their storage
  int32_t num_rows_ = 0;                       // rows of the plan in the making
  int32_t num_decode_rows_ = 0;                // those that lead it
  uint64_t last_arrival_ = 0;
  uint64_t last_step_ = 0;
  bool in_flight_ = false;  // last_step_ is planned and not yet committed
  int64_t num_preemptions_ = 0;
};

}  // namespace fastgen
