// What a request may ask for: every limit that Engine::Submit enforces, in one place.
//
// Errors are INVALID_ARGUMENT and open with the field's name as inference.proto spells it:
// "sampling.top_p: 1.5 is outside (0, 1]". Nothing is corrected in silence; NaN is outside every
// range. Thread rule: pure functions, any thread. Tested by tests/engine/check_request_test.cc.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/request.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/sequence.h"

namespace fastgen {

inline constexpr int32_t kMaxLogprobs = 20;
inline constexpr int32_t kMaxStopStrings = 64;
inline constexpr int32_t kMaxStopStringBytes = 4096;
inline constexpr int32_t kMaxStopTokenIds = 1024;
inline constexpr int32_t kMaxRequestIdBytes = 256;

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

// How tokens are chosen and scored. A temperature below 1e-5 is greedy: the draw could only pick
// the best token.
SequenceSampling MakeSampling(const GenerateRequest& request, uint64_t seed);

}  // namespace fastgen
