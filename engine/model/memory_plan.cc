#include "engine/model/memory_plan.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/int_math.h"
#include "base/status_macros.h"
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

// The KV memory that a plan gets, in blocks, unless it is said to be too little below.
absl::StatusOr<int64_t> NumBlocks(const MemoryRequest& request, const MemoryPlan& plan,
                                  int64_t block_bytes, int64_t available) {
  if (request.kv_cache_bytes > 0) {
    if (request.kv_cache_bytes > available) {
      return TooSmall("kv_cache_bytes", request.kv_cache_bytes, available);
    }
    if (request.kv_cache_bytes < block_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat("kv_cache_bytes is ", request.kv_cache_bytes,
                                                       ", one block of ", plan.block_size,
                                                       " tokens needs ", block_bytes));
    }
    return request.kv_cache_bytes / block_bytes;
  }
  const int64_t block_size = plan.block_size;
  const int64_t one_sequence = CeilDiv<int64_t>(plan.max_model_len, block_size);
  const int64_t usual = CeilDiv(std::min<int64_t>(plan.max_model_len, kUsualLength), block_size);
  const int64_t wanted = std::max(plan.max_num_seqs * usual, one_sequence);
  const int64_t share =
      static_cast<int64_t>(static_cast<double>(available) * kAutoShare) / block_bytes;
  const int64_t num_blocks = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(share, 1));
  // A length that was asked for may go beyond the share, not beyond the memory.
  if (request.max_model_len > 0 && num_blocks < one_sequence) {
    return std::min(one_sequence, available / block_bytes);
  }
  return num_blocks;
}

// Sets the host tier of `plan`. `device_bytes`: what the rest needs at least.
absl::Status PlanHostTier(const MemoryRequest& request, const Backend& backend, int64_t block_bytes,
                          int64_t device_bytes, MemoryPlan* plan) {
  if (request.host_kv_bytes <= 0) return absl::OkStatus();
  CHECK_EQ(kHostChunkTokens % plan->block_size, 0);
  const int32_t chunk_blocks = kHostChunkTokens / plan->block_size;
  const int64_t chunk_bytes = chunk_blocks * block_bytes;
  if (request.host_kv_bytes < chunk_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("host_kv_bytes is ", request.host_kv_bytes,
                                                   ", one chunk of ", kHostChunkTokens,
                                                   " tokens needs ", chunk_bytes));
  }
  const int64_t free_bytes = backend.FreeHostMemoryBytes();
  const int64_t taken = backend.host_is_device() ? device_bytes : 0;
  if (request.host_kv_bytes > free_bytes - taken) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "host_kv_bytes needs ", Shown(request.host_kv_bytes), ", ",
        Shown(std::max<int64_t>(free_bytes - taken, 0)), " are available: ", Shown(free_bytes),
        " free, less ", Shown(taken), " for the workspace and the KV that is needed at least"));
  }
  const int64_t max_chunks = std::numeric_limits<int32_t>::max() / chunk_blocks;
  const int64_t num_chunks = std::min(request.host_kv_bytes / chunk_bytes, max_chunks);
  plan->num_host_blocks = static_cast<int32_t>(num_chunks) * chunk_blocks;
  plan->host_kv_bytes = num_chunks * chunk_bytes;
  return absl::OkStatus();
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
  const int64_t block_bytes =
      plan.block_size * config.kv_bytes_per_token(BytesOf(backend.kv_dtype(), 1));
  const int64_t fixed_bytes = plan.workspace_bytes + kReserveBytes;
  if (free_bytes - fixed_bytes < block_bytes) {
    return TooSmall("the workspace and one block of KV", fixed_bytes + block_bytes, free_bytes);
  }

  const int64_t one_sequence = CeilDiv<int64_t>(plan.max_model_len, plan.block_size);
  const int64_t least_kv_bytes = request.kv_cache_bytes > 0 ? request.kv_cache_bytes
                                 : is_length_asked          ? one_sequence * block_bytes
                                                            : block_bytes;
  RETURN_IF_ERROR(PlanHostTier(request, backend, block_bytes, fixed_bytes + least_kv_bytes, &plan));
  const int64_t available =
      free_bytes - fixed_bytes - (backend.host_is_device() ? plan.host_kv_bytes : 0);
  ASSIGN_OR_RETURN(int64_t num_blocks, NumBlocks(request, plan, block_bytes, available));
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
