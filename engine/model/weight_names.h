// The tensors of a model: their Hugging Face names and shapes, and the names that GGUF has for
// them.
//
//   model.layers.7.self_attn.q_proj.weight [q_heads * head_dim, hidden]   <->   blk.7.attn_q.weight
// Thread rule: any thread.
// Tested by tests/engine/model/checkpoint_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model_config.h"

namespace fastgen {

inline constexpr std::string_view kEmbeddingName = "model.embed_tokens.weight";
inline constexpr std::string_view kFinalNormName = "model.norm.weight";
inline constexpr std::string_view kHeadName = "lm_head.weight";

// "model.layers.<layer>.<part>", part as in "self_attn.q_proj.weight".
std::string LayerTensorName(int64_t layer, std::string_view part);

struct TensorSpec {
  std::string name;  // Hugging Face's
  std::vector<int64_t> shape;
};

// Every tensor that the model needs, no other.
std::vector<TensorSpec> RequiredTensors(const ModelConfig& config);

// True for a tensor (by its Hugging Face name) that files may hold although nothing reads it: a
// stored copy of a tied head, or RoPE frequencies, which follow from the configuration.
bool IsIgnoredTensor(const ModelConfig& config, std::string_view name);

// The Hugging Face name of a tensor of a GGUF file; nullopt when it has none.
std::optional<std::string> HfNameOfGguf(std::string_view gguf_name);

}  // namespace fastgen
