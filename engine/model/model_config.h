// ModelConfig: the shape of a model, from config.json or GGUF metadata.
//
// A field that would change the result and is not understood is refused by name and value, never
// guessed.
// Thread rule: value, immutable after loading.
// Tested by tests/engine/model/model_config_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fastgen {

class GgufFile;

struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3, kDivisors };
  Kind kind = Kind::kNone;
  double factor = 1;
  double low_freq_factor = 1;        // llama3
  double high_freq_factor = 4;       // llama3
  double original_max_position = 0;  // llama3
  // kDivisors: [head_dim / 2], what each frequency is divided by: how a GGUF file spells llama3
  // (rope_freqs.weight).
  std::vector<float> divisors;
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM"
  std::string name;          // for people: general.name or the directory's
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t num_layers = 0;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;
  int64_t max_position = 0;  // the context length it was trained for
  float rms_eps = 1e-5f;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool tied_head = false;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;  // generation_config.json's when present

  int64_t qkv_width() const { return (q_heads + 2 * kv_heads) * head_dim; }
  int64_t kv_bytes_per_token(int64_t element_bytes) const {
    return 2 * num_layers * kv_heads * head_dim * element_bytes;
  }
};

// From a Hugging Face directory's config.json (and generation_config.json, "" when absent).
// INVALID_ARGUMENT / UNIMPLEMENTED naming the field and its value.
absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view config_json,
                                          std::string_view generation_config_json);

// From a GGUF file's metadata (general.architecture "llama"), and from its tensors where they
// decide: a file without output.weight has a tied head, rope_freqs.weight divides the RoPE
// frequencies. Errors as ParseHfConfig.
absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufFile& file);

// OK when every size is in its range and they fit each other; both parsers end with it.
absl::Status CheckConfig(const ModelConfig& config);

}  // namespace fastgen
