// EngineOptions: every tunable of the engine, with unit, default and range. 0 means "chosen at start" where it says so.
// Thread rule: value.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "kernels/dtype.h"
#include "kernels/make_backend.h"

namespace fastgen {

struct EngineOptions {
  std::string model_path;          // Hugging Face directory or .gguf file
  std::string model_name;          // what clients call it; "": the directory's or file's name
  std::string chat_template_path;  // "": the model's own
  std::string tool_call_parser = "auto";  // engine/text/parser_choice.h lists the names
  std::string reasoning_parser = "auto";
  BackendOptions backend;
  WeightForm weights_dtype = WeightForm::kAsStored;  // what matrices are rounded to as they are loaded
  int32_t max_model_len = 0;             // tokens of prompt + output; 0: the model's, or what fits the KV memory
  int32_t max_num_seqs = 64;             // sequences in a step; [1, 4096]
  int32_t max_num_batched_tokens = 512;  // tokens in a step; [1, 65536], at least max_num_seqs
  int32_t block_size = 64;               // tokens in a KV block; 16, 32, 64 or 128
  int64_t kv_cache_bytes = 0;            // 0: chosen at start from free memory and the model's context
  int32_t max_queued_requests = 1024;    // refused with RESOURCE_EXHAUSTED beyond; [1, 1e6]
  int64_t max_queued_tokens = 4 << 20;   // prompt tokens that wait, likewise; [1, 1e9]
  int64_t host_kv_bytes = 0;             // second tier of the KV cache, in host memory; 0: none
  bool generation_config = true;         // take the sampling defaults that the model's publisher recommends
  bool prefix_cache = true;              // keep computed prefixes for later requests
  absl::Duration deadline_margin = absl::Milliseconds(20);  // a request is ended so long before its deadline, at least
                                                            // one measured step; [0, 10 s]
  int32_t max_steps_in_flight = 2;       // 2: the next step is planned while one runs; 1: it is not
};

// INVALID_ARGUMENT naming the option, its value and the range.
absl::Status Validate(const EngineOptions& options);

}  // namespace fastgen
