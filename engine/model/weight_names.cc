#include "engine/model/weight_names.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen {
namespace {

struct NamePair {
  std::string_view hf;
  std::string_view gguf;
};
constexpr NamePair kLayerNames[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.bias", "attn_output.bias"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
};
constexpr NamePair kModelNames[] = {
    {kEmbeddingName, "token_embd.weight"},
    {kFinalNormName, "output_norm.weight"},
    {kHeadName, "output.weight"},
};

}  // namespace

std::string LayerTensorName(int64_t layer, std::string_view part) {
  return absl::StrCat("model.layers.", layer, ".", ToAbsl(part));
}

std::vector<TensorSpec> RequiredTensors(const ModelConfig& config) {
  const int64_t q_width = config.q_heads * config.head_dim;
  const int64_t kv_width = config.kv_heads * config.head_dim;
  std::vector<TensorSpec> specs;
  specs.push_back({std::string(kEmbeddingName), {config.vocab, config.hidden}});
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const auto add = [&](std::string_view part, std::vector<int64_t> shape) {
      specs.push_back({LayerTensorName(i, part), std::move(shape)});
    };
    add("input_layernorm.weight", {config.hidden});
    add("self_attn.q_proj.weight", {q_width, config.hidden});
    add("self_attn.k_proj.weight", {kv_width, config.hidden});
    add("self_attn.v_proj.weight", {kv_width, config.hidden});
    add("self_attn.o_proj.weight", {config.hidden, q_width});
    if (config.has_qkv_bias) {
      add("self_attn.q_proj.bias", {q_width});
      add("self_attn.k_proj.bias", {kv_width});
      add("self_attn.v_proj.bias", {kv_width});
    }
    if (config.has_out_bias) add("self_attn.o_proj.bias", {config.hidden});
    if (config.has_qk_norm) {
      add("self_attn.q_norm.weight", {config.head_dim});
      add("self_attn.k_norm.weight", {config.head_dim});
    }
    add("post_attention_layernorm.weight", {config.hidden});
    add("mlp.gate_proj.weight", {config.ffn, config.hidden});
    add("mlp.up_proj.weight", {config.ffn, config.hidden});
    add("mlp.down_proj.weight", {config.hidden, config.ffn});
  }
  specs.push_back({std::string(kFinalNormName), {config.hidden}});
  if (!config.tied_head) specs.push_back({std::string(kHeadName), {config.vocab, config.hidden}});
  return specs;
}

bool IsIgnoredTensor(const ModelConfig& config, std::string_view name) {
  return (config.tied_head && name == kHeadName) ||
         absl::EndsWith(ToAbsl(name), ".self_attn.rotary_emb.inv_freq");
}

std::optional<std::string> HfNameOfGguf(std::string_view gguf_name) {
  for (const NamePair& pair : kModelNames) {
    if (gguf_name == pair.gguf) return std::string(pair.hf);
  }
  constexpr std::string_view kBlock = "blk.";
  if (gguf_name.substr(0, kBlock.size()) != kBlock) return std::nullopt;
  const std::string_view rest = gguf_name.substr(kBlock.size());
  const size_t dot = rest.find('.');
  // Layer numbers as they are written, without leading zeros, so that no two names map to one.
  if (dot == std::string_view::npos || dot == 0 || dot > 6 || (rest[0] == '0' && dot > 1)) {
    return std::nullopt;
  }
  if (!std::all_of(rest.begin(), rest.begin() + static_cast<int64_t>(dot),
                   [](char c) { return c >= '0' && c <= '9'; })) {
    return std::nullopt;
  }
  for (const NamePair& pair : kLayerNames) {
    if (rest.substr(dot + 1) == pair.gguf) {
      return absl::StrCat("model.layers.", ToAbsl(rest.substr(0, dot)), ".", ToAbsl(pair.hf));
    }
  }
  return std::nullopt;
}

}  // namespace fastgen
