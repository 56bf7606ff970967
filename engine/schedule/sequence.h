// Sequence: one request inside the scheduler: its tokens, how far they are computed, its blocks,
// when it stops.
//
// Tokens are the prompt, then the output. KV exists for the first num_computed of them; the newest
// sampled token has none until the next step feeds it, so a decode row is the state num_computed ==
// tokens.size() - 1. Preemption sets num_computed to 0 and keeps the tokens: prefill then covers
// prompt and output alike.
//
// Invariants: num_computed + planned_tokens <= tokens.size(); a waiting sequence holds no block.
// Thread rule: engine thread only.
// Tested by tests/engine/schedule/scheduler_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/request.h"
#include "engine/schedule/step_plan.h"

namespace fastgen {

// Conditions that end a sequence by its ids alone (stop strings are found on the completion side).
struct StopCondition {
  int32_t max_output_tokens = 0;  // 0: score the prompt only, sample nothing
  int32_t min_output_tokens = 0;  // an output token of a lower index is never a stop id
  std::vector<int32_t>
      stop_token_ids;  // eos included unless ignored; any order (Scheduler::Add sorts them)
};

struct NewSequence {
  SequenceId id = 0;
  std::vector<int32_t> prompt;
  StopCondition stop;
  SequenceSampling sampling;
};

// How a sequence ended. output_tokens counts what the client gets (a stop token included).
struct FinishedSequence {
  SequenceId id = 0;
  FinishReason reason = FinishReason::kStop;
  std::optional<int32_t> matched_token_id;
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  int32_t num_chunks = 0;  // steps that fed prompt or recomputed tokens
  int32_t num_steps = 0;   // steps of any kind
  int32_t num_preemptions = 0;
  bool is_nan = false;  // reason kError: a row of logits held a NaN
};

// The scheduler's own record of a live sequence.
struct Sequence {
  enum class Phase { kWaiting, kRunning };

  SequenceId id = 0;
  uint64_t arrival = 0;  // 1, 2, 3, ... in the order of Add; kept across preemptions
  Phase phase = Phase::kWaiting;
  StopCondition stop;
  SequenceSampling sampling;
  std::vector<int32_t> tokens;  // prompt, then output
  int32_t num_prompt = 0;
  int32_t num_computed = 0;  // tokens whose KV is in blocks
  int32_t prefill_end =
      0;  // tokens known at the last admission: rows that begin below it are chunks
  int32_t planned_tokens = 0;  // fed by the step in flight; 0: not part of it
  int32_t num_scored = 0;      // prompt tokens whose scores were reported; survives preemption
  std::vector<int32_t> block_table;
  int32_t num_chunks = 0;
  int32_t num_steps = 0;
  int32_t num_preemptions = 0;

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_output() const { return num_tokens() - num_prompt; }
  int32_t num_remaining() const { return num_tokens() - num_computed; }
};

}  // namespace fastgen
