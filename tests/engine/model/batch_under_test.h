// BatchUnderTest: sequences driven through a ModelExecutor as a scheduler would, with every choice
// in the test's hands: chunk sizes, order of rows, run-ahead, and the moves of their KV blocks.
//
// A step feeds every sequence that is not held back: a chunk of what it has yet to compute, or its
// newest token. With run-ahead a decode row names the row that sampled its token instead of the
// token, although it is known here by then.
// Thread rule: one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/schedule/step_plan.h"
#include "tests/engine/model/model_under_test.h"

namespace fastgen::testing {

struct DrivenSequence {
  SequenceId id = 0;
  int32_t slot = 0;
  std::vector<int32_t> tokens;  // prompt, then output
  int32_t num_prompt = 0;
  int32_t num_computed = 0;
  std::vector<int32_t> blocks;  // for all it may become
  SequenceSampling sampling;
  bool scores_prompt = false;
  bool is_held = false;  // has no row while so
  bool has_history = false;
  int32_t last_row = -1;  // in the last step; -1: it did not sample there

  std::vector<TokenScore> output;
  std::vector<TokenScore> scored;  // of the prompt
};

struct BatchOptions {
  int32_t chunk_size = 1 << 20;
  bool runs_ahead = false;
  bool rotates_rows = false;  // rows are in another order in each step
};

class BatchUnderTest {
 public:
  BatchUnderTest(ExecutorUnderTest* tested, const BatchOptions& options)
      : tested_(tested), options_(options) {}

  // A sequence on blocks of its own, for up to `max_length` tokens; in the lowest free slot.
  DrivenSequence* Add(std::vector<int32_t> prompt, SequenceSampling sampling,
                      int32_t max_length = 128);
  // Another choice of the same prompt: shares the full blocks that hold it, copies the next.
  // REQUIRES: the prompt is computed.
  DrivenSequence* Fork(const DrivenSequence& leader, SequenceSampling sampling);
  void Remove(DrivenSequence* sequence);

  // Drops what is computed of a sequence: it starts again, on other blocks, in a slot that is free.
  void PreemptByRecompute(DrivenSequence* sequence);
  // The next step copies the first blocks of a sequence, which it no longer writes, to the host.
  void FillHost(const DrivenSequence& sequence, int32_t first_host_block, int32_t num_blocks);
  // From the next step on its blocks are the host's, and poison where they were.
  void SwapOut(DrivenSequence* sequence, int32_t first_host_block);
  // From the next step on they are `blocks`, of which the first `num_blocks` come from the host.
  void PageIn(DrivenSequence* sequence, int32_t first_host_block, std::vector<int32_t> blocks,
              int32_t num_blocks);
  // Blocks that no one has had before.
  std::vector<int32_t> TakeBlocks(size_t count);

  // The next step's plan, as if the last one had run.
  StepPlan MakePlan();
  void Step();
  // Steps until every sequence that is not held back has `num_tokens` of output.
  void Generate(size_t num_tokens);

 private:
  int32_t FreeSlot() const;
  ScheduledSequence MakeRow(DrivenSequence* sequence) const;
  void Take(const ScheduledSequence& row, const SequenceResult& result, int32_t index,
            DrivenSequence* sequence) const;

  ExecutorUnderTest* const tested_;
  const BatchOptions options_;
  std::vector<std::unique_ptr<DrivenSequence>> sequences_;
  std::vector<DrivenSequence*> rows_;  // of the plan that was made last
  StepPlan moves_;                     // for the next plan; no sequences
  int32_t num_steps_ = 0;
  int32_t next_block_ = 0;
  SequenceId last_id_ = 0;
};

// Ids of a sequence of outputs.
std::vector<int32_t> IdsOf(const std::vector<TokenScore>& scores);

// True when both hold the same tokens, logprobs to the bit, ranks and best tokens.
bool AreSame(const std::vector<TokenScore>& a, const std::vector<TokenScore>& b);

// Arbitrary ids below `vocab`, by seed.
std::vector<int32_t> RandomIds(int length, uint32_t seed, int64_t vocab);

}  // namespace fastgen::testing
