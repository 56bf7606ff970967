// ModelConfig: the shape of a model, from config.json or GGUF metadata.
//
// A field that would change the result and is not understood is refused by name and value, never
// guessed.
// Thread rule: value, immutable after loading.
// Tested by tests/engine/model/model_config_test.cc and hf_config_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"

namespace fastgen {

class GgufFile;

// How RoPE's frequencies differ from powers of the base: rope_table.h has the formulas.
struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3, kYarn, kDivisors };
  Kind kind = Kind::kNone;
  double factor = 1;
  double low_freq_factor = 1;        // llama3
  double high_freq_factor = 4;       // llama3
  double original_max_position = 0;  // llama3, yarn
  double beta_fast = 32;             // yarn
  double beta_slow = 1;              // yarn
  bool truncate = true;              // yarn: the ramp's ends are whole pairs
  double attention_factor = 1;       // yarn: multiplies cos and sin
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
  // Empty: every layer sees all positions. Else [num_layers]: 0 for such a layer, W for one whose
  // position i sees the positions j with i - j < W.
  std::vector<int64_t> layer_windows;
  bool tied_head = false;
  bool has_qkv_bias = false;
  bool has_out_bias = false;  // of attention's output projection
  bool has_qk_norm = false;   // RMSNorm of every head of q and k, before RoPE
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;        // generation_config.json's when present
  SamplingDefaults sampling_defaults;  // generation_config.json's

  int64_t qkv_width() const { return (q_heads + 2 * kv_heads) * head_dim; }
  int64_t kv_bytes_per_token(int64_t element_bytes) const {
    return 2 * num_layers * kv_heads * head_dim * element_bytes;
  }
  int64_t window(int64_t layer) const {
    return layer_windows.empty() ? 0 : layer_windows[static_cast<size_t>(layer)];
  }
};

// From a Hugging Face directory's config.json (and generation_config.json, "" when absent), of the
// architectures LlamaForCausalLM, MistralForCausalLM, MinistralForCausalLM, Qwen2ForCausalLM and
// Qwen3ForCausalLM. INVALID_ARGUMENT / UNIMPLEMENTED naming the file, the field and its value.
absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view config_json,
                                          std::string_view generation_config_json);

// From a GGUF file's metadata (general.architecture "llama", which Mistral has too, "qwen2" or
// "qwen3"), and from its tensors where they decide: a file without output.weight has a tied head,
// attn_q.bias means biases, rope_freqs.weight divides the RoPE frequencies. Errors as
// ParseHfConfig.
absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufFile& file);

// OK when every size is in its range and they fit each other; both parsers end with it.
absl::Status CheckConfig(const ModelConfig& config);

}  // namespace fastgen
