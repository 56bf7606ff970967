// Admission: can a request ever run here? Asked by the facade before Scheduler::Add, which CHECKs
// the answer.
//
// A sequence needs a KV slot for every token that is fed. The last output token is never fed, so
// prompt P with at most N output tokens in a context of C needs max(P, min(P + N, C) - 1) slots,
// and the pool has num_blocks * block_size. A request that fits the whole pool when alone always
// runs some day: others are preempted for it, or end. Thread rule: any thread; pure functions.
// Tested by tests/engine/schedule/admission_test.cc.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fastgen {

struct SchedulerOptions;

// INVALID_ARGUMENT naming the option, its value and its range.
absl::Status Validate(const SchedulerOptions& options);

// KV slots that the sequence needs at most, as above.
int64_t MaxKvSlots(int32_t num_prompt_tokens, int32_t max_output_tokens, int32_t max_model_len);

// The max_output_tokens in force for a prompt: the asked number, or, when none was asked for, what
// the context and the pool leave. INVALID_ARGUMENT, "field: sentence", when the prompt is empty or
// too long, when the asked number is negative or too large for the context or the pool, or when no
// number was asked for and no room is left.
absl::StatusOr<int32_t> ResolveMaxOutputTokens(int32_t num_prompt_tokens,
                                               std::optional<int32_t> asked,
                                               const SchedulerOptions& options);

}  // namespace fastgen
