#include "engine/model/memory_plan.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/int_math.h"
#include "base/strings.h"
#include "engine/model/workspace.h"

namespace fastgen {
namespace {

// Logit rows at once: every decode row of a full step up to this many, so that the head's weights
// are read once a step; more would only cost memory (256 rows of a vocabulary of 128k: 131 MB).
constexpr int64_t kMaxLogitRows = 256;
// And no fewer than this many, which is what scoring a prompt goes through them with.
constexpr int64_t kMinLogitRows = 32;

// Messages show megabytes where that is exact enough to act on.
std::string Shown(int64_t bytes) { return absl::StrCat(bytes, " bytes (", bytes >> 20, " MiB)"); }

absl::Status TooSmall(std::string_view what, int64_t needed, int64_t available) {
  return absl::ResourceExhaustedError(absl::StrCat(ToAbsl(what), " needs ", Shown(needed), ", ",
                                                   Shown(available), " are available"));
}

}  // namespace

absl::StatusOr<MemoryPlan> PlanMemory(const ModelConfig& config, const Backend& backend,
                                      int64_t weights_bytes, const MemoryRequest& request) {
  CHECK_GE(request.max_num_seqs, 1);
  CHECK_GE(request.max_num_batched_tokens, 1);
  CHECK_GE(request.block_size, 1);
  if (request.max_model_len > config.max_position) {
    return absl::InvalidArgumentError(absl::StrCat("max_model_len is ", request.max_model_len,
                                                   ", the model's context is ",
                                                   config.max_position));
  }
  MemoryPlan plan;
  plan.weights_bytes = weights_bytes;
  plan.block_size = request.block_size;
  plan.max_num_seqs = request.max_num_seqs;
  plan.max_num_batched_tokens = request.max_num_batched_tokens;
  plan.max_logit_rows = static_cast<int32_t>(
      std::min<int64_t>(std::clamp<int64_t>(request.max_num_seqs, kMinLogitRows, kMaxLogitRows),
                        request.max_num_batched_tokens));
  const bool is_length_asked = request.max_model_len > 0;
  plan.max_model_len =
      static_cast<int32_t>(is_length_asked ? request.max_model_len : config.max_position);
  plan.workspace_bytes = Workspace::Bytes(config, backend.activation_dtype(), plan);
  const int64_t free_bytes = backend.FreeMemoryBytes();
  const int64_t available = free_bytes - plan.workspace_bytes - kReserveBytes;
  const int64_t block_bytes =
      plan.block_size * config.kv_bytes_per_token(BytesOf(backend.kv_dtype(), 1));
  if (available < block_bytes) {
    return TooSmall("the workspace and one block of KV",
                    plan.workspace_bytes + kReserveBytes + block_bytes, free_bytes);
  }

  const int64_t one_sequence = CeilDiv<int64_t>(plan.max_model_len, plan.block_size);
  int64_t num_blocks = 0;
  if (request.kv_cache_bytes > 0) {
    if (request.kv_cache_bytes > available) {
      return TooSmall("kv_cache_bytes", request.kv_cache_bytes, available);
    }
    num_blocks = request.kv_cache_bytes / block_bytes;
    if (num_blocks < 1) {
      return absl::ResourceExhaustedError(absl::StrCat("kv_cache_bytes is ", request.kv_cache_bytes,
                                                       ", one block of ", plan.block_size,
                                                       " tokens needs ", block_bytes));
    }
  } else {
    const int64_t usual = CeilDiv(std::min<int64_t>(plan.max_model_len, kUsualLength),
                                  static_cast<int64_t>(plan.block_size));
    const int64_t wanted = std::max(plan.max_num_seqs * usual, one_sequence);
    const int64_t share =
        static_cast<int64_t>(static_cast<double>(available) * kAutoShare) / block_bytes;
    num_blocks = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(share, 1));
    // A length that was asked for may go beyond the share, not beyond the memory.
    if (is_length_asked && num_blocks < one_sequence) {
      num_blocks = std::min(one_sequence, available / block_bytes);
    }
  }
  num_blocks = std::min<int64_t>(num_blocks, std::numeric_limits<int32_t>::max());
  if (num_blocks < one_sequence) {
    if (is_length_asked) {
      return absl::ResourceExhaustedError(
          absl::StrCat("one sequence of max_model_len ", plan.max_model_len, " needs ",
                       Shown(one_sequence * block_bytes), " of KV, there are ",
                       Shown(num_blocks * block_bytes)));
    }
    plan.max_model_len = static_cast<int32_t>(num_blocks * plan.block_size);
    plan.workspace_bytes = Workspace::Bytes(config, backend.activation_dtype(), plan);
  }
  plan.num_blocks = static_cast<int32_t>(num_blocks);
  plan.kv_bytes = num_blocks * block_bytes;
  return plan;
}

}  // namespace fastgen
