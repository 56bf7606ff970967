#include "engine/model/model_config.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace fastgen {
namespace {

// The ops of attention work on eight values at a time (kernels/cpu/attention.cc).
constexpr int64_t kHeadDimMultiple = 8;

absl::Status CheckSizes(const ModelConfig& config) {
  struct Range {
    const char* name;
    int64_t value;
    int64_t max;
  };
  const Range ranges[] = {
      {"hidden size", config.hidden, 1 << 20},
      {"feed-forward size", config.ffn, 1 << 22},
      {"number of layers", config.num_layers, 1024},
      {"number of attention heads", config.q_heads, 4096},
      {"number of key/value heads", config.kv_heads, 4096},
      {"head dimension", config.head_dim, 1024},
      {"vocabulary size", config.vocab, 1 << 24},
      {"context length", config.max_position, 1 << 26},
  };
  for (const Range& range : ranges) {
    if (range.value < 1 || range.value > range.max) {
      return absl::InvalidArgumentError(absl::StrCat("the ", range.name, " is ", range.value,
                                                     ", it must be in [1, ", range.max, "]"));
    }
  }
  if (config.head_dim % kHeadDimMultiple != 0) {
    return absl::UnimplementedError(absl::StrCat("the head dimension is ", config.head_dim,
                                                 ": only multiples of ", kHeadDimMultiple,
                                                 " are supported"));
  }
  if (config.q_heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(config.q_heads,
                                                   " attention heads are not a multiple of ",
                                                   config.kv_heads, " key/value heads"));
  }
  if (!config.layer_windows.empty() &&
      static_cast<int64_t>(config.layer_windows.size()) != config.num_layers) {
    return absl::InvalidArgumentError(absl::StrCat("there are attention windows for ",
                                                   config.layer_windows.size(), " layers of ",
                                                   config.num_layers));
  }
  for (int64_t window : config.layer_windows) {
    if (window < 0 || window > 1 << 26) {
      return absl::InvalidArgumentError(
          absl::StrCat("the attention window is ", window, ", it must be in [1, ", 1 << 26, "]"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckScaling(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  if (!(scaling.factor >= 1 && std::isfinite(scaling.factor))) {
    return absl::InvalidArgumentError(
        absl::StrCat("the RoPE scaling factor is ", scaling.factor, ", it must be at least 1"));
  }
  const bool has_original =
      scaling.original_max_position >= 1 && std::isfinite(scaling.original_max_position);
  if (scaling.kind == RopeScaling::Kind::kLlama3 &&
      !(scaling.low_freq_factor > 0 && scaling.high_freq_factor > scaling.low_freq_factor &&
        std::isfinite(scaling.high_freq_factor) && has_original)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the llama3 RoPE scaling has low_freq_factor ", scaling.low_freq_factor,
        ", high_freq_factor ", scaling.high_freq_factor, ", original context ",
        scaling.original_max_position, ": it must be 0 < low < high and original >= 1"));
  }
  if (scaling.kind == RopeScaling::Kind::kYarn &&
      !(scaling.beta_slow > 0 && scaling.beta_fast > scaling.beta_slow &&
        std::isfinite(scaling.beta_fast) && has_original && scaling.attention_factor > 0 &&
        std::isfinite(scaling.attention_factor) && config.rope_theta > 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the yarn RoPE scaling has beta_slow ", scaling.beta_slow, ", beta_fast ",
        scaling.beta_fast, ", original context ", scaling.original_max_position,
        ", attention factor ", scaling.attention_factor, ", base ", config.rope_theta,
        ": it must be 0 < slow < fast, original >= 1, attention factor > 0 and base > 1"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckConfig(const ModelConfig& config) {
  RETURN_IF_ERROR(CheckSizes(config));
  if (!(config.rms_eps > 0 && config.rms_eps < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the norm's epsilon is ", config.rms_eps, ", it must be in (0, 1)"));
  }
  if (!(config.rope_theta >= 1 && std::isfinite(config.rope_theta))) {
    return absl::InvalidArgumentError(
        absl::StrCat("the RoPE base is ", config.rope_theta, ", it must be at least 1"));
  }
  RETURN_IF_ERROR(CheckScaling(config));
  for (int32_t id : config.eos_ids) {
    if (id < 0 || id >= config.vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("the end-of-text id ", id, " is not in the vocabulary of ", config.vocab));
    }
  }
  if (config.bos_id.has_value() && (*config.bos_id < 0 || *config.bos_id >= config.vocab)) {
    return absl::InvalidArgumentError(absl::StrCat("the begin-of-text id ", *config.bos_id,
                                                   " is not in the vocabulary of ", config.vocab));
  }
  return absl::OkStatus();
}

}  // namespace fastgen
