#include "engine/engine_options.h"

#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/parser_choice.h"

namespace fastgen {
namespace {

absl::Status CheckRange(std::string_view name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(ToAbsl(name), ": ", value, " is outside [", low, ", ", high, "]"));
}

}  // namespace

absl::Status Validate(const EngineOptions& options) {
  if (options.model_path.empty()) {
    return absl::InvalidArgumentError("model_path: is empty; name a directory or a .gguf file");
  }
  RETURN_IF_ERROR(CheckToolCallParserName(options.tool_call_parser));
  RETURN_IF_ERROR(CheckReasoningParserName(options.reasoning_parser));
  RETURN_IF_ERROR(CheckRange("max_model_len", options.max_model_len, 0, 16 << 20));
  RETURN_IF_ERROR(CheckRange("max_num_seqs", options.max_num_seqs, 1, 4096));
  RETURN_IF_ERROR(CheckRange("max_num_batched_tokens", options.max_num_batched_tokens, 1, 65536));
  if (options.max_num_batched_tokens < options.max_num_seqs) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_num_batched_tokens: ", options.max_num_batched_tokens, " is below max_num_seqs (",
        options.max_num_seqs, "): each sequence needs a token a step"));
  }
  if (options.block_size != 16 && options.block_size != 32 && options.block_size != 64 &&
      options.block_size != 128) {
    return absl::InvalidArgumentError(
        absl::StrCat("block_size: ", options.block_size, " is not 16, 32, 64 or 128"));
  }
  if (options.kv_cache_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_cache_bytes: ", options.kv_cache_bytes, " is negative; 0 chooses"));
  }
  if (options.host_kv_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("host_kv_bytes: ", options.host_kv_bytes, " is negative; 0 turns it off"));
  }
  if (options.deadline_margin < absl::ZeroDuration() ||
      options.deadline_margin > absl::Seconds(10)) {
    return absl::InvalidArgumentError(
        absl::StrCat("deadline_margin: ", absl::FormatDuration(options.deadline_margin),
                     " is outside [0, 10s]"));
  }
  RETURN_IF_ERROR(CheckRange("max_steps_in_flight", options.max_steps_in_flight, 1, 2));
  RETURN_IF_ERROR(CheckRange("max_queued_tokens", options.max_queued_tokens, 1, 1'000'000'000));
  return CheckRange("max_queued_requests", options.max_queued_requests, 1, 1'000'000);
}

}  // namespace fastgen
