// FakeExecutor: an Executor without a model, for tests of everything above it.
//
// It has a KV cache whose entries are the tokens themselves, on the device and on the host, and
// reads every sequence's context through its block table, so that its answers are right only if all
// tables, block moves and pending tokens are. By default the next token is a hash of that context,
// the seed and (unless greedy) the choice, moved on past what the row's rules forbid: it depends
// neither on batch, chunking and preemption, nor on how the prefix came to be there. It CHECKs that
// the plan is one that a device could run: steps follow each other, no block is written twice in a
// step, nothing is read that was never written or was given up, moves stay in range, a slot is one
// sequence's, and the history of a slot is the sequence's own. A test may script tokens, hold steps
// back, make one fail, or give a NaN. Thread rule: Run: the rank thread; everything else: any
// thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "engine/model/executor.h"

namespace fastgen::testing {

class FakeExecutor final : public Executor {
 public:
  struct Options {
    int32_t vocab_size = 256;
    int32_t block_size = 16;
    int32_t num_blocks = 1024;
    int32_t num_host_blocks = 0;
    double page_us_per_token = 0;
  };
  explicit FakeExecutor(const Options& options);

  absl::Status Run(const StepPlan& plan, StepResult* result) override;
  double page_us_per_token() const override { return options_.page_us_per_token; }

  // The token that follows `context`; nullopt: a NaN row. Default: the hash. Set before the first
  // step. What `sequence` forbids is the script's own business.
  using NextToken = std::function<std::optional<int32_t>(const std::vector<int32_t>& context,
                                                         const ScheduledSequence& sequence)>;
  void SetNextToken(NextToken next) { next_token_ = std::move(next); }

  // What a step takes, at least. Set before the first step.
  void SetStepTime(std::chrono::microseconds step_time,
                   std::chrono::microseconds time_per_token = {}) {
    step_time_ = step_time;
    time_per_token_ = time_per_token;
  }

  // While closed, Run waits at its end: the step is computed and not yet returned.
  void CloseGate();
  void OpenGate();
  // Lets `num_steps` steps through the closed gate.
  void LetThrough(int num_steps);
  // Waits until `num_steps` steps in all have arrived at the gate, or have passed it.
  void WaitForStep(uint64_t num_steps);
  // The next step fails with UNAVAILABLE "device lost".
  void FailNextStep();

  // Every plan so far.
  struct StepRecord {
    int32_t num_tokens = 0;
    int32_t num_sequences = 0;
    int32_t num_page_outs = 0;
    int32_t num_page_ins = 0;
    int32_t num_copies = 0;
  };
  std::vector<StepRecord> steps() const;

 private:
  // The tokens whose KV a pool of blocks holds, by position; kNothing where there is none.
  using Cache = std::vector<int32_t>;

  void MoveBlocks(const std::vector<KvBlockMove>& moves, Cache* from, Cache* to) const;
  void Move(const StepPlan& plan);
  void CheckBlocks(const StepPlan& plan) const;
  void WriteRow(const ScheduledSequence& row);
  std::vector<int32_t> ReadContext(const ScheduledSequence& row, size_t num_tokens) const;
  void RunRow(const ScheduledSequence& row, SequenceResult* result);
  // Keeps what a sampler would keep for the row's slot.
  void FollowHistory(const ScheduledSequence& row, const std::vector<int32_t>& context);
  std::optional<int32_t> ChooseToken(const ScheduledSequence& row,
                                     const std::vector<int32_t>& context) const;
  int32_t FedToken(const ScheduledSequence& row, size_t i) const;
  void PassGate();

  const Options options_;
  NextToken next_token_;
  std::chrono::microseconds step_time_{0};
  std::chrono::microseconds time_per_token_{0};
  // The rank thread's.
  Cache device_;
  Cache host_;
  uint64_t last_step_ = 0;
  std::vector<int32_t> last_sampled_;            // by row of the previous plan; -1: none
  std::vector<int32_t> sampled_;                 // of the plan that runs
  std::vector<std::vector<int32_t>> histories_;  // by slot

  mutable Mutex mutex_;
  CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int num_let_through_ ABSL_GUARDED_BY(mutex_) = 0;
  bool fails_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<StepRecord> steps_ ABSL_GUARDED_BY(mutex_);
};

// The logprob that FakeExecutor reports for `token` after a context of `num_context` tokens.
float FakeLogprob(int32_t token, size_t num_context);

}  // namespace fastgen::testing
