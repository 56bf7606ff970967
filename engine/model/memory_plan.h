// MemoryPlan: how a device's memory is divided before the first request, exactly; nothing is taken
// afterwards.
//
//   weights    already on the device when the plan is made
//   kv         num_blocks * block_size * 2 * num_layers * kv_heads * head_dim * element bytes
//   workspace  activations of max_num_batched_tokens rows, logits of max_logit_rows rows, the
//              RoPE table
//   host_kv    num_host_blocks of the same bytes in host memory, whole chunks of kHostChunkTokens;
//              where the device is the host, taken off what KV may have
// The backend's own scratch (Backend::Reserve) is not ours to count; kReserveBytes leaves room.
//
// Chosen when not asked for: KV for max_num_seqs sequences of kUsualLength tokens, at least one
// sequence of max_model_len, at most kAutoShare of what is free; and max_model_len, the model's own
// context, or what the KV memory holds when that is less.
// Thread rule: pure.
// Tested by tests/engine/model/memory_plan_test.cc.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "kernels/backend.h"

namespace fastgen {

struct MemoryRequest {
  int32_t max_model_len = 0;  // 0: the model's, or what fits
  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 512;
  int32_t block_size = 64;
  int64_t kv_cache_bytes = 0;  // 0: chosen; else rounded down to whole blocks
  int64_t host_kv_bytes = 0;   // 0: no host tier; else rounded down to whole chunks
};

struct MemoryPlan {
  int64_t weights_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t host_kv_bytes = 0;
  int32_t num_blocks = 0;
  int32_t num_host_blocks = 0;  // a multiple of kHostChunkTokens / block_size
  int32_t block_size = 0;
  int32_t max_model_len = 0;  // below the model's context where the KV memory holds no more
  int32_t max_num_seqs = 0;
  int32_t max_num_batched_tokens = 0;
  int32_t max_logit_rows = 0;  // rows of logits computed at once
};

// Tokens a sequence that KV memory is provided for has, unless asked otherwise.
inline constexpr int64_t kUsualLength = 1024;
// Of the free memory, how much KV may take unless asked otherwise: the rest of the machine lives on
// the same memory where the device is a CPU.
inline constexpr double kAutoShare = 0.5;
// What the host tier keeps and evicts as one.
inline constexpr int32_t kHostChunkTokens = 256;
// Left for the backend's scratch memory.
inline constexpr int64_t kReserveBytes = 64 << 20;

// `weights_bytes`: what the weights hold already; backend.FreeMemoryBytes() is what is left.
// INVALID_ARGUMENT when max_model_len is above the model's context; RESOURCE_EXHAUSTED with figures
// when the memory does not hold the workspace, one sequence, or what was asked for.
// REQUIRES: with a host tier, block_size divides kHostChunkTokens.
absl::StatusOr<MemoryPlan> PlanMemory(const ModelConfig& config, const Backend& backend,
                                      int64_t weights_bytes, const MemoryRequest& request);

}  // namespace fastgen
