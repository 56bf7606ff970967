// StepPlan: one step's work, as the scheduler hands it to an Executor, and StepResult: what comes
// back.
//
// Pure data. A step is a list of rows grouped by sequence: decode rows first, then prefill chunks.
// Each sequence appears at most once. A chunk that reaches the end of its sequence's known tokens
// samples the next one. Thread rule: values.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"

namespace fastgen {

// The part of a request that choosing a token needs. Fixed at admission.
struct SequenceSampling {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
  int32_t num_top_logprobs = -1;         // -1: no logprobs
  int32_t num_prompt_top_logprobs = -1;  // -1: prompt tokens are not scored
};

struct ScheduledSequence {
  SequenceId id = 0;
  // Tokens fed in this step, at positions [context_begin, context_begin + tokens.size()).
  std::vector<int32_t> tokens;
  int32_t context_begin = 0;
  // Blocks that hold positions [0, context_begin + tokens.size()), in order.
  std::vector<int32_t> block_table;
  // Sample the token after the last one fed.
  bool samples = false;
  int32_t output_position = 0;         // 0-based index of the sampled token in the output
  std::vector<int32_t> banned_tokens;  // may not be sampled here (min_tokens)
  // The ids that follow tokens[i] in the prompt, for i in [0, score_targets.size()): score them
  // (prompt logprobs).
  std::vector<int32_t> score_targets;
  SequenceSampling sampling;

  bool is_decode() const { return tokens.size() == 1 && samples; }
};

struct StepPlan {
  uint64_t step = 0;  // 1, 2, 3, ...
  std::vector<ScheduledSequence> sequences;
  int32_t num_tokens = 0;  // sum of tokens.size()
  bool empty() const { return sequences.empty(); }
};

struct TokenScore {
  int32_t token = -1;
  float logprob = 0;
  int32_t rank = 0;                            // 0: no logprob was asked for
  std::vector<std::pair<int32_t, float>> top;  // (token, logprob), best first
};

// Parallel to StepPlan::sequences.
struct SequenceResult {
  bool sampled = false;
  bool is_nan = false;
  TokenScore next;                 // when sampled
  std::vector<TokenScore> scored;  // parallel to score_targets
};

struct StepResult {
  std::vector<SequenceResult> sequences;
};

}  // namespace fastgen
