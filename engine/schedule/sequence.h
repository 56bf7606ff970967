// Sequence: one request inside the scheduler: its tokens, how far they are computed, its blocks, when it stops.
// Thread rule: engine thread only.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/request.h"
#include "engine/schedule/step_plan.h"

namespace fastgen {

// Conditions that end a sequence by its ids alone (stop strings are found on the completion side).
struct StopCondition {
  int32_t max_output_tokens = 0;        // 0: score the prompt only, sample nothing
  int32_t min_output_tokens = 0;
  std::vector<int32_t> stop_token_ids;  // eos included unless ignored; sorted
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
  int32_t num_chunks = 0;
  int32_t num_steps = 0;
  int32_t num_preemptions = 0;
  bool is_nan = false;  // reason kError: a row of logits held a NaN
};

// To be completed by the scheduler's author.
struct Sequence {
  NewSequence init;
  std::vector<int32_t> tokens;       // prompt, then output
  int32_t num_computed = 0;          // tokens whose KV is in blocks
  std::vector<int32_t> block_table;
  int32_t num_chunks = 0;
  int32_t num_steps = 0;
  int32_t num_preemptions = 0;

  int32_t num_prompt() const { return static_cast<int32_t>(init.prompt.size()); }
  int32_t num_output() const { return static_cast<int32_t>(tokens.size()) - num_prompt(); }
};

}  // namespace fastgen
