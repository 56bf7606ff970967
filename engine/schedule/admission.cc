#include "engine/schedule/admission.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/schedule/scheduler.h"

namespace fastgen {
namespace {

absl::Status OutOfRange(const char* name, int64_t value, int64_t low, int64_t high) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": ", value, " is outside [", low, ", ", high, "]"));
}

// What bounds prompt plus output, and the words for it.
struct TokenLimit {
  int64_t num_tokens = 0;
  std::string words;
};

TokenLimit LimitOf(const SchedulerOptions& options) {
  // One more than the slots: the last output token is not fed.
  const int64_t pool = int64_t{options.num_blocks} * options.block_size + 1;
  if (pool < options.max_model_len) {
    return {pool, absl::StrCat(pool, " that the KV cache can hold (", options.num_blocks,
                               " blocks of ", options.block_size, ")")};
  }
  return {options.max_model_len,
          absl::StrCat(options.max_model_len, " of the context (max_model_len)")};
}

}  // namespace

absl::Status Validate(const SchedulerOptions& options) {
  constexpr int32_t kMaxSequences = 4096;
  constexpr int32_t kMaxTokens = 65536;
  constexpr int32_t kMaxBlockSize = 4096;
  constexpr int32_t kMaxInt = 1 << 30;
  if (options.max_num_seqs < 1 || options.max_num_seqs > kMaxSequences) {
    return OutOfRange("max_num_seqs", options.max_num_seqs, 1, kMaxSequences);
  }
  // Each running sequence gets at least one token in each step.
  if (options.max_num_batched_tokens < options.max_num_seqs ||
      options.max_num_batched_tokens > kMaxTokens) {
    return OutOfRange("max_num_batched_tokens", options.max_num_batched_tokens,
                      options.max_num_seqs, kMaxTokens);
  }
  if (options.max_model_len < 1 || options.max_model_len > kMaxInt) {
    return OutOfRange("max_model_len", options.max_model_len, 1, kMaxInt);
  }
  if (options.block_size < 1 || options.block_size > kMaxBlockSize) {
    return OutOfRange("block_size", options.block_size, 1, kMaxBlockSize);
  }
  if (options.num_blocks < 1 || options.num_blocks > kMaxInt) {
    return OutOfRange("num_blocks", options.num_blocks, 1, kMaxInt);
  }
  if (options.num_host_blocks < 0 || options.num_host_blocks > kMaxInt) {
    return OutOfRange("num_host_blocks", options.num_host_blocks, 0, kMaxInt);
  }
  if (options.max_steps_in_flight < 1 || options.max_steps_in_flight > 2) {
    return OutOfRange("max_steps_in_flight", options.max_steps_in_flight, 1, 2);
  }
  if (options.host_chunk_tokens < 1 || options.host_chunk_tokens > kMaxTokens) {
    return OutOfRange("host_chunk_tokens", options.host_chunk_tokens, 1, kMaxTokens);
  }
  if (options.num_host_blocks > 0 && (options.host_chunk_tokens < options.block_size ||
                                      options.host_chunk_tokens % options.block_size != 0)) {
    return absl::InvalidArgumentError(absl::StrCat("host_chunk_tokens: ", options.host_chunk_tokens,
                                                   " is not a multiple of block_size ",
                                                   options.block_size));
  }
  if (options.num_host_blocks % std::max(1, options.host_chunk_tokens / options.block_size) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("num_host_blocks: ", options.num_host_blocks,
                                                   " are no whole chunks of ",
                                                   options.host_chunk_tokens / options.block_size));
  }
  return absl::OkStatus();
}

int64_t MaxKvSlots(int32_t num_prompt_tokens, int32_t max_output_tokens, int32_t max_model_len) {
  const int64_t total =
      std::min<int64_t>(int64_t{num_prompt_tokens} + max_output_tokens, max_model_len);
  return std::max<int64_t>(num_prompt_tokens, total - 1);
}

absl::StatusOr<int32_t> ResolveMaxOutputTokens(int32_t num_prompt_tokens,
                                               std::optional<int32_t> asked,
                                               const SchedulerOptions& options) {
  const TokenLimit limit = LimitOf(options);
  if (num_prompt_tokens < 1) {
    return absl::InvalidArgumentError("prompt: it has no tokens, at least 1 is needed");
  }
  const int64_t slots = int64_t{options.num_blocks} * options.block_size;
  if (num_prompt_tokens > std::min<int64_t>(slots, options.max_model_len)) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt: its ", num_prompt_tokens, " tokens are more than the ", limit.words));
  }
  const int64_t room = limit.num_tokens - num_prompt_tokens;
  if (!asked.has_value()) {
    if (room > 0) return static_cast<int32_t>(room);
    return absl::InvalidArgumentError(absl::StrCat("prompt: its ", num_prompt_tokens,
                                                   " tokens leave no room for output in the ",
                                                   limit.words));
  }
  if (*asked < 0) {
    return absl::InvalidArgumentError(absl::StrCat("stopping.max_tokens: ", *asked, " is below 0"));
  }
  if (*asked > room) {
    return absl::InvalidArgumentError(absl::StrCat("stopping.max_tokens: ", *asked,
                                                   " after a prompt of ", num_prompt_tokens,
                                                   " tokens is more than the ", limit.words));
  }
  return *asked;
}

}  // namespace fastgen
