// FakeExecutor: an Executor without a model, for tests of everything above it.
//
// By default the next token is a hash of the whole context and the seed, so it depends on nothing
// else: not on batch, chunking or preemption. It keeps each sequence's fed tokens by position and
// CHECKs that the plan is one that a device could run: positions follow each other, every position
// has a block, no block is written by two sequences in one step.
// A test may script tokens, hold steps back, make one fail, or give a NaN.
// Thread rule: Run: engine thread; everything else: any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "engine/model/executor.h"

namespace fastgen::testing {

class FakeExecutor final : public Executor {
 public:
  struct Options {
    int32_t vocab_size = 256;
    int32_t block_size = 16;
  };
  explicit FakeExecutor(const Options& options) : options_(options) {}

  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;

  // The token that follows `context`; nullopt: a NaN row. Default: the hash. Set before the first
  // step.
  using NextToken = std::function<std::optional<int32_t>(const std::vector<int32_t>& context,
                                                         const ScheduledSequence& sequence)>;
  void SetNextToken(NextToken next) { next_token_ = std::move(next); }

  // While closed, Run waits at its end: the step is computed and not yet returned.
  void CloseGate();
  void OpenGate();
  // Lets `num_steps` steps through the closed gate.
  void LetThrough(int num_steps);
  // Waits until `num_steps` steps in all have arrived at the gate, or have passed it.
  void WaitForStep(uint64_t num_steps);
  // The next step fails with UNAVAILABLE "device lost".
  void FailNextStep();

  // Every plan so far: (tokens, sequences) of each step.
  struct StepRecord {
    int32_t num_tokens = 0;
    int32_t num_sequences = 0;
  };
  std::vector<StepRecord> steps() const;

 private:
  void PassGate();
  SequenceResult RunSequence(const ScheduledSequence& sequence);

  const Options options_;
  NextToken next_token_;
  std::map<SequenceId, std::vector<int32_t>> contexts_;  // engine thread

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
