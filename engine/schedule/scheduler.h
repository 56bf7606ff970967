// Scheduler: decides what runs in each step. A pure state machine: no threads, clock, device, text or logging.
//
//   PlanStep: decode rows of every running sequence first (one token each), then prefill chunks in order of arrival,
//             within max_num_batched_tokens. Waiting sequences are admitted while a row, their blocks for the whole
//             known text and a reserve of one block per running sequence are free.
//   CommitStep: appends sampled tokens, ends sequences (eos, stop id, length), frees blocks.
// A decode row that finds no free block preempts the youngest running sequence: its blocks are freed, its tokens kept,
// and it is prefilled again (recompute) when it fits.
//
// Invariants, checked after every call in debug builds and by the simulation:
//  1. free + held = all blocks; no block is in two tables.
//  2. Every added sequence ends exactly once, in CommitResult::finished of some CommitStep, Cancel or FinishAt.
//  3. A running sequence is in the plan of every step until it ends or is preempted (no starvation of decode);
//     the oldest waiting sequence is admitted before any younger one (no starvation of prefill).
// Thread rule: engine thread only.
// Tested by tests/engine/schedule/*_test.cc, scripts in tests/testdata/schedule, and tests/sim.
#pragma once

#include <cstdint>
#include <deque>
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
};

// What a step changed, for the completion side.
struct CommitResult {
  struct Output {
    SequenceId id = 0;
    TokenScore token;               // token.token == -1: none (a chunk that did not sample)
    std::vector<TokenScore> scored; // prompt tokens scored in this step, in order
    bool first_chunk = false;       // the sequence's first step since admission
    bool prefilled = false;         // this step completed its prompt
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

  // Queues a sequence. REQUIRES: id not live; 1 <= prompt <= max_model_len; it fits the whole pool when alone
  // (admission.h checks these for the outside world).
  void Add(NewSequence sequence);

  // Ends a live sequence in any phase and frees its blocks now. False when `id` is not live (idempotent).
  bool Cancel(SequenceId id, FinishReason reason, FinishedSequence* finished);

  // A stop string ended at output token `num_output_tokens` (found late, on the completion side): as Cancel, with
  // reason kStop and the output cut there. False when `id` is not live.
  bool FinishAt(SequenceId id, int32_t num_output_tokens, FinishedSequence* finished);

  // The next step's work; empty when there is nothing to do. REQUIRES: the previous plan was committed.
  StepPlan PlanStep();

  // Applies the result of the last plan. Sequences cancelled since then are skipped.
  CommitResult CommitStep(const StepPlan& plan, const StepResult& result);

  bool idle() const { return running_.empty() && waiting_.empty(); }
  SchedulerStats stats() const;
  // CHECKs the invariants above; linear in the number of blocks.
  void CheckInvariants() const;

 private:
  // To be completed by the scheduler's author; the public part above is fixed.
  SchedulerOptions options_;
  BlockPool blocks_;
  std::deque<std::unique_ptr<Sequence>> waiting_;  // oldest first
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
};

}  // namespace fastgen
