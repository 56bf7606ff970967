// What a request may ask for: every limit that Engine::Submit enforces, in one place.
//
// Errors are INVALID_ARGUMENT and open with the field's name as inference.proto spells it:
// "sampling.top_p: 1.5 is outside (0, 1]". Nothing is corrected in silence; NaN is outside every
// range.
// Thread rule: pure functions, any thread.
// Tested by tests/engine/check_request_test.cc and tests/engine/deadline_test.cc.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/request.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/sequence.h"
#include "engine/schedule/step_cost.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

inline constexpr int32_t kMaxLogprobs = 20;
inline constexpr int32_t kMaxStopStrings = 64;
inline constexpr int32_t kMaxStopStringBytes = 4096;
inline constexpr int32_t kMaxStopBytes = 32768;  // of all together
inline constexpr int32_t kMaxStopTokenIds = 1024;
inline constexpr int32_t kMaxRequestIdBytes = 256;
inline constexpr int32_t kMaxCacheSaltBytes = 256;
inline constexpr int32_t kMaxLogitBiases = 1024;
inline constexpr int32_t kMaxAllowedTokenIds = 262144;
inline constexpr int32_t kMaxBadWords = 256;
inline constexpr int32_t kMaxBadWordBytes = 256;

struct RequestLimits {
  SchedulerOptions scheduler;
  int32_t vocab_size = 0;
};

// Everything but the prompt.
absl::Status CheckRequest(const GenerateRequest& request, const RequestLimits& limits);

// The prompt's ids, once known: in the vocabulary, not empty, and with room for output in the
// context and the KV cache. Returns the number of output tokens that ends the request.
absl::StatusOr<int32_t> CheckPrompt(const GenerateRequest& request, absl::Span<const int32_t> ids,
                                    const RequestLimits& limits);

// What ends the output by ids and by length.
StopCondition MakeStopCondition(const StoppingParams& stopping, int32_t max_output_tokens,
                                absl::Span<const int32_t> eos_ids);

// An idle engine whose measurements are older than this lets every deadline in: what it knows may
// be out of date, and only steps teach it.
inline constexpr int64_t kStaleAfterUs = 5'000'000;

// DEADLINE_EXCEEDED when a first token in `first_token_us` would come later than the margin before
// the deadline: the option's, or a typical step where that is longer. All times in microseconds;
// kNoDeadline never fails.
absl::Status CheckDeadline(int64_t deadline_us, int64_t now_us, int64_t first_token_us,
                           const SchedulerOptions& options, const StepCost& step_cost);

// Rules about single tokens; null when there are none. Bad words are tokenised as they stand and
// after a space, since a word's tokens depend on whether it follows one. INVALID_ARGUMENT for a
// word without tokens, and for allowed_token_ids that leave nothing to choose: `stop` bans its ids
// while under min_tokens.
absl::StatusOr<std::shared_ptr<const TokenRules>> MakeTokenRules(const SamplingParams& sampling,
                                                                 const StopCondition& stop,
                                                                 const Tokenizer& tokenizer);

// Whether prompt tokens are scored: asked for, or echoed beside logprobs, as the output's are.
bool ScoresPrompt(const GenerateRequest& request);

// How tokens of the leader (choice 0) are chosen and scored, but for the rules. A temperature below
// 1e-5 is greedy: the draw could only pick the best token. With best_of > n output tokens are
// scored whether or not it was asked for.
SequenceSampling MakeSampling(const GenerateRequest& request, uint64_t seed);

}  // namespace fastgen
