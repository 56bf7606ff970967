// Stop decisions that need nothing but ids and counts: eos and stop ids, max_output_tokens, the
// context limit.
//
// Output token k (0-based) may be a stop id only when k >= min_output_tokens; before that the ids
// are banned from sampling, and an executor that returns one all the same does not end the
// sequence. Where a stop id is also the last token allowed, the stop id is the reason. Thread rule:
// any thread; pure functions. Tested by tests/engine/schedule/stop_condition_test.cc.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/schedule/sequence.h"

namespace fastgen {

struct StopDecision {
  FinishReason reason = FinishReason::kStop;  // kStop or kLength
  std::optional<int32_t> matched_token_id;
};

// True when stop ids may not be sampled as output token `output_position`.
bool BansStopIds(const StopCondition& stop, int32_t output_position);

// True when the sequence may sample a token after `num_tokens` known ones, `num_output` of which
// are output.
bool MaySample(const StopCondition& stop, int32_t num_tokens, int32_t num_output,
               int32_t max_model_len);

// Whether a sequence ends at its newest token, which is output. Counts include that token.
// REQUIRES: stop.stop_token_ids sorted, num_output >= 1.
std::optional<StopDecision> StopAtToken(const StopCondition& stop, int32_t newest_token,
                                        int32_t num_tokens, int32_t num_output,
                                        int32_t max_model_len);

}  // namespace fastgen
