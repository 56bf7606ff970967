// EngineOptions: every tunable of the engine, with unit, default and range. 0 means "chosen at start" where it says so.
// Thread rule: value.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/make_backend.h"

namespace fastgen {

struct EngineOptions {
  std::string model_path;          // Hugging Face directory or .gguf file
  std::string chat_template_path;  // "": the model's own
  BackendOptions backend;
  int32_t max_model_len = 0;             // tokens of prompt + output; 0: the model's, or what fits the KV memory
  int32_t max_num_seqs = 64;             // sequences in a step; [1, 4096]
  int32_t max_num_batched_tokens = 512;  // tokens in a step; [1, 65536], at least max_num_seqs
  int32_t block_size = 64;               // tokens in a KV block; 16, 32, 64 or 128
  int64_t kv_cache_bytes = 0;            // 0: chosen at start from free memory and the model's context
  int32_t max_queued_requests = 1024;    // refused with RESOURCE_EXHAUSTED beyond; [1, 1e6]
};

// INVALID_ARGUMENT naming the option, its value and the range.
absl::Status Validate(const EngineOptions& options);

}  // namespace fastgen
