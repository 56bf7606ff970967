// StepPlan: one step's work, as the scheduler hands it to an Executor, and StepResult: what comes
// back.
//
// Pure data. A step moves KV blocks between the tiers and copies some, and computes rows, grouped
// by sequence: decode rows first, then prefill chunks. Each sequence appears at most once. A chunk
// that reaches the end of its sequence's known tokens samples the next one. Run-ahead: a plan may
// be made while the step before it still runs. A decode row whose token that step has yet to sample
// names the row that samples it; executors run steps in order, so they have it by then. For the
// same reason what an executor keeps for a slot (penalty counts) needs no feedback from the
// scheduler. Thread rule: values.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"
#include "engine/token_constraint.h"

namespace fastgen {

// Rules about single tokens, fixed for the life of a sequence and shared by the choices of a
// request. Immutable.
struct TokenRules {
  std::vector<std::pair<int32_t, float>>
      logit_bias;                          // (token, added to its logit), each token once
  std::vector<int32_t> allowed_token_ids;  // ascending; empty: all
  std::vector<std::vector<int32_t>>
      bad_words;  // none may appear whole in the output; none is empty
};

// The part of a request that choosing a token needs. Fixed at admission.
struct SequenceSampling {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
  uint32_t choice_index = 0;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float repetition_penalty = 1;
  std::shared_ptr<const TokenRules> rules;  // null: none
  std::shared_ptr<const TokenConstraint> constraint;  // null: none
  int32_t num_top_logprobs = -1;            // -1: no logprobs
  int32_t num_prompt_top_logprobs = -1;     // -1: prompt tokens are not scored

  bool has_penalties() const {
    return presence_penalty != 0 || frequency_penalty != 0 || repetition_penalty != 1;
  }
  // True when choosing a token needs the tokens before it.
  bool needs_history() const {
    return has_penalties() || constraint != nullptr || (rules != nullptr && !rules->bad_words.empty());
  }
};

// The token of a row that the previous step has yet to sample.
inline constexpr int32_t kPendingToken = -1;

struct ScheduledSequence {
  SequenceId id = 0;
  // Of the running sequence, in [0, max_num_seqs): where an executor may keep what it needs from
  // row to row.
  int32_t slot = 0;
  // Tokens fed in this step, at positions [context_begin, context_begin + tokens.size()). A single
  // kPendingToken stands for what row `token_row` of the previous step's plan samples.
  std::vector<int32_t> tokens;
  int32_t token_row = -1;
  int32_t context_begin = 0;
  // Blocks that hold positions [0, context_begin + tokens.size()), in order.
  std::vector<int32_t> block_table;
  // Sample the token after the last one fed.
  bool samples = false;
  int32_t output_position = 0;         // 0-based index of the sampled token in the output
  std::vector<int32_t> banned_tokens;  // may not be sampled here (min_tokens)
  // Set on the first row that samples after each admission of a sequence whose sampling
  // needs_history(): all its tokens, of which the first num_prompt are the prompt. From then on the
  // executor adds what it samples.
  bool starts_history = false;
  std::vector<int32_t> history;
  int32_t num_prompt = 0;
  // The ids that follow tokens[i] in the prompt, for i in [0, score_targets.size()): score them
  // (prompt logprobs).
  std::vector<int32_t> score_targets;
  SequenceSampling sampling;
  uint32_t epoch = 0;  // the scheduler's own: which KV state of the sequence the row extends

  bool is_decode() const { return tokens.size() == 1 && samples; }
};

// Moves one KV block, all layers. Device blocks are numbers in [0, num_blocks), host blocks in [0,
// num_host_blocks).
struct KvBlockMove {
  int32_t from = 0;
  int32_t to = 0;
};

struct StepPlan {
  uint64_t step = 0;  // 1, 2, 3, ...
  // Fills of the host tier, device -> host: at any time in the step, nothing writes to these device
  // blocks before the step is committed.
  std::vector<KvBlockMove> page_outs;
  // The others in this order, each complete before the next begins to touch the same layer, and all
  // before the rows.
  std::vector<KvBlockMove>
      swap_outs;  // device -> host: preempted sequences, whose blocks this step may write to
  std::vector<int32_t> poisoned_blocks;  // device blocks that hold nothing any more (debug builds)
  std::vector<KvBlockMove> page_ins;     // host -> device
  std::vector<KvBlockMove> copies;       // device -> device: copy on write
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
  absl::Status failure;            // nothing may be sampled here: the sequence ends, and why
  TokenScore next;                 // when sampled
  std::vector<TokenScore> scored;  // parallel to score_targets
};

struct StepResult {
  std::vector<SequenceResult> sequences;
};

}  // namespace fastgen
