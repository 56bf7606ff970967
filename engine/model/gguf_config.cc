// ParseGgufConfig: ModelConfig from a GGUF file's metadata. The keys are those of the format's own
// specification; a key of the architecture's name space that is not known here is refused, because
// it may change the result.
// Tested by tests/engine/model/model_config_test.cc.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/model/gguf.h"
#include "engine/model/model_config.h"
#include "engine/model/rope_table.h"

namespace fastgen {
namespace {

struct Architecture {
  std::string_view gguf;  // general.architecture; its keys start with it and a dot
  std::string_view hf;
  bool always_has_qkv_bias;
  bool has_qk_norm;
};
constexpr Architecture kArchitectures[] = {
    {"llama", "LlamaForCausalLM", false, false},
    {"qwen2", "Qwen2ForCausalLM", true, false},
    {"qwen3", "Qwen3ForCausalLM", false, true},
};

constexpr std::string_view kKnownKeys[] = {
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_log_multiplier",
    "tensor_data_layout",
    "vocab_size",
};

std::string ShownValue(const GgufFile& file, std::string_view key) {
  if (const auto text = file.FindString(key)) {
    return absl::StrCat("\"", ToAbsl(text->substr(0, 100)), "\"");
  }
  if (const auto number = file.FindFloat(key)) return absl::StrCat(*number);
  if (const auto flag = file.FindBool(key)) return *flag ? "true" : "false";
  return absl::StrCat("an ", file.TypeName(key));
}

absl::Status Refuse(const GgufFile& file, std::string_view key, std::string_view why) {
  return absl::UnimplementedError(
      absl::StrCat(ToAbsl(key), " is ", ShownValue(file, key), ": ", ToAbsl(why)));
}

// Reads the keys of an architecture, "llama.*"; the first that is missing or has a wrong type is
// kept as the status.
class Keys {
 public:
  Keys(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(absl::StrCat(ToAbsl(architecture), ".")) {}

  bool Has(std::string_view key) const { return file_.Has(Full(key)); }

  int64_t RequiredInt(std::string_view key) {
    if (!Has(key)) {
      Fail(absl::InvalidArgumentError(absl::StrCat(Full(key), " is missing")));
      return 0;
    }
    return Int(key, 0);
  }

  int64_t Int(std::string_view key, int64_t absent) {
    if (!Has(key)) return absent;
    if (const auto number = file_.FindInt(Full(key))) return *number;
    Fail(Refuse(file_, Full(key), "it must be one integer"));
    return absent;
  }

  double Number(std::string_view key, double absent) {
    if (!Has(key)) return absent;
    if (const auto number = file_.FindFloat(Full(key))) return *number;
    Fail(Refuse(file_, Full(key), "it must be one number"));
    return absent;
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const absl::Status& status() const { return status_; }

  const std::string& prefix() const { return prefix_; }
  std::string Full(std::string_view key) const { return absl::StrCat(prefix_, ToAbsl(key)); }
  // The only value that is supported, when the key is there.
  void Only(std::string_view key, double value) {
    if (Number(key, value) != value) {
      Fail(Refuse(file_, Full(key), absl::StrCat("only ", value, " is supported")));
    }
  }

 private:
  const GgufFile& file_;
  const std::string prefix_;
  absl::Status status_;
};

absl::Status RefuseUnknownKeys(const GgufFile& file, const std::string& prefix) {
  for (const std::string& key : file.keys()) {
    if (!absl::StartsWith(key, prefix)) continue;
    const std::string_view rest = std::string_view(key).substr(prefix.size());
    if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), rest) == std::end(kKnownKeys)) {
      return Refuse(file, key, "the key is not known");
    }
  }
  return absl::OkStatus();
}

const StoredTensor* FindTensor(const GgufFile& file, std::string_view name) {
  const auto it = std::find_if(file.tensors().begin(), file.tensors().end(),
                               [&](const StoredTensor& tensor) { return tensor.name == name; });
  return it == file.tensors().end() ? nullptr : &*it;
}

// The ramp is that of rope_table.h; the attention factor is the usual one times attn_factor.
void ReadYarn(Keys* keys, ModelConfig* config) {
  RopeScaling& scaling = config->rope_scaling;
  scaling.kind = RopeScaling::Kind::kYarn;
  if (!keys->Has("rope.scaling.factor")) {
    keys->Fail(absl::InvalidArgumentError(
        absl::StrCat(keys->Full("rope.scaling.factor"), " is missing for yarn")));
  }
  scaling.factor = keys->Number("rope.scaling.factor", 1);
  const double context = static_cast<double>(config->max_position);
  constexpr std::string_view kOriginal = "rope.scaling.original_context_length";
  scaling.original_max_position = keys->Number(kOriginal, context);
  scaling.beta_fast = keys->Number("rope.scaling.yarn_beta_fast", 32);
  scaling.beta_slow = keys->Number("rope.scaling.yarn_beta_slow", 1);
  scaling.attention_factor =
      keys->Number("rope.scaling.attn_factor", 1) * YarnAttentionFactor(scaling.factor, 1);
  keys->Only("rope.scaling.yarn_ext_factor", 1);
  keys->Only("rope.scaling.yarn_attn_factor", 1);
  keys->Only("rope.scaling.yarn_log_multiplier", 0);
  const double reach = scaling.original_max_position * scaling.factor;
  if (keys->Has(kOriginal) && reach > context && reach < 1 << 26) {
    config->max_position = static_cast<int64_t>(reach);
  }
}

absl::Status ReadRope(const GgufFile& file, Keys* keys, ModelConfig* config) {
  config->rope_theta = keys->Number("rope.freq_base", 10000);
  const int64_t rotated = keys->Int("rope.dimension_count", config->head_dim);
  if (rotated != config->head_dim) {
    return absl::UnimplementedError(absl::StrCat(keys->Full("rope.dimension_count"), " is ",
                                                 rotated, ": only the whole head of ",
                                                 config->head_dim, " is supported"));
  }
  RopeScaling& scaling = config->rope_scaling;
  const std::string type_key = keys->Full("rope.scaling.type");
  // A factor without a type is linear scaling, in either spelling.
  const auto named_type = file.FindString(type_key);
  const std::string_view type = named_type.value_or("linear");
  if ((type != "none" && type != "linear" && type != "yarn") ||
      (file.Has(type_key) && !named_type.has_value())) {
    return Refuse(file, type_key, "\"none\", \"linear\" and \"yarn\" are supported");
  }
  if (type == "yarn") {
    ReadYarn(keys, config);
  } else {
    keys->Only("rope.scaling.attn_factor", 1);
  }
  if (type == "linear") {
    double factor = keys->Number("rope.scaling.factor", 0);
    if (factor == 0) factor = keys->Number("rope.scale_linear", 1);
    if (factor != 1) scaling.kind = RopeScaling::Kind::kLinear;
    scaling.factor = factor;
  }
  const StoredTensor* tensor = FindTensor(file, "rope_freqs.weight");
  if (tensor == nullptr) return absl::OkStatus();
  if (scaling.kind != RopeScaling::Kind::kNone) {
    return absl::UnimplementedError(
        "rope_freqs.weight beside another RoPE scaling is not supported");
  }
  if (tensor->dtype != DType::kF32 || tensor->shape != std::vector<int64_t>{config->head_dim / 2}) {
    return absl::InvalidArgumentError(
        absl::StrCat("rope_freqs.weight has type ", ToAbsl(Info(tensor->dtype).name), " and shape ",
                     ShapeString(tensor->shape), ", it must be F32 [", config->head_dim / 2, "]"));
  }
  scaling.kind = RopeScaling::Kind::kDivisors;
  scaling.divisors.resize(static_cast<size_t>(config->head_dim / 2));
  std::memcpy(scaling.divisors.data(), tensor->data, static_cast<size_t>(tensor->bytes));
  for (float divisor : scaling.divisors) {
    if (!(divisor > 0 && std::isfinite(divisor))) {
      return absl::InvalidArgumentError(
          absl::StrCat("rope_freqs.weight holds ", divisor, ", it must be positive"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<int32_t>> TokenId(const GgufFile& file, std::string_view key) {
  if (!file.Has(key)) return std::optional<int32_t>();
  const auto id = file.FindInt(key);
  if (!id.has_value() || *id < 0 || *id > INT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat(ToAbsl(key), " is ", ShownValue(file, key), ", it must be a token id"));
  }
  return std::optional<int32_t>(static_cast<int32_t>(*id));
}

// Mistral's window, which all layers have; other files may only name one that nothing reaches.
void ReadWindow(const GgufFile& file, Keys* keys, ModelConfig* config) {
  const int64_t window = keys->Int("attention.sliding_window", 0);
  if (window == 0) return;
  if (window < 0 || (keys->prefix() != "llama." && window < config->max_position)) {
    keys->Fail(Refuse(file, keys->Full("attention.sliding_window"),
                      "only models of architecture \"llama\" may have a window"));
    return;
  }
  config->layer_windows.assign(static_cast<size_t>(config->num_layers), window);
}

absl::StatusOr<const Architecture*> ReadArchitecture(const GgufFile& file) {
  const auto name = file.FindString("general.architecture");
  if (!name.has_value()) return absl::InvalidArgumentError("general.architecture is missing");
  std::vector<std::string> known;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.gguf == *name) return &architecture;
    known.emplace_back(architecture.gguf);
  }
  return Refuse(file, "general.architecture",
                absl::StrCat("one of ", absl::StrJoin(known, ", "), " is supported"));
}

// What the presence of a tensor says, in the place of a key.
void ReadTensors(const Architecture& architecture, const GgufFile& file, Keys* keys,
                 ModelConfig* config) {
  const StoredTensor* embedding = FindTensor(file, "token_embd.weight");
  config->vocab = keys->Int("vocab_size", embedding == nullptr ? 0 : embedding->shape.front());
  config->tied_head = FindTensor(file, "output.weight") == nullptr;
  config->has_qkv_bias =
      architecture.always_has_qkv_bias || FindTensor(file, "blk.0.attn_q.bias") != nullptr;
  config->has_out_bias = FindTensor(file, "blk.0.attn_output.bias") != nullptr;
  config->has_qk_norm = architecture.has_qk_norm;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufFile& file) {
  ASSIGN_OR_RETURN(const Architecture* architecture, ReadArchitecture(file));
  Keys keys(file, architecture->gguf);
  RETURN_IF_ERROR(RefuseUnknownKeys(file, keys.prefix()));
  ModelConfig config;
  config.architecture = std::string(architecture->hf);
  config.name = std::string(file.FindString("general.name").value_or(""));
  keys.Only("expert_count", 0);
  keys.Only("expert_used_count", 0);
  config.hidden = keys.RequiredInt("embedding_length");
  config.ffn = keys.RequiredInt("feed_forward_length");
  config.num_layers = keys.RequiredInt("block_count");
  config.q_heads = keys.RequiredInt("attention.head_count");
  config.kv_heads = keys.Int("attention.head_count_kv", config.q_heads);
  config.max_position = keys.RequiredInt("context_length");
  constexpr std::string_view kEpsilon = "attention.layer_norm_rms_epsilon";
  if (!keys.Has(kEpsilon)) {
    keys.Fail(absl::InvalidArgumentError(absl::StrCat(keys.Full(kEpsilon), " is missing")));
  }
  config.rms_eps = static_cast<float>(keys.Number(kEpsilon, 1e-5));
  RETURN_IF_ERROR(keys.status());
  if (config.q_heads < 1 || (!keys.Has("attention.key_length") && config.hidden % config.q_heads)) {
    return absl::InvalidArgumentError(
        absl::StrCat(keys.Full("embedding_length"), " ", config.hidden, " is not a multiple of ",
                     keys.Full("attention.head_count"), " ", config.q_heads));
  }
  config.head_dim = keys.Int("attention.key_length", config.hidden / config.q_heads);
  if (keys.Int("attention.value_length", config.head_dim) != config.head_dim) {
    return Refuse(file, keys.Full("attention.value_length"), "only the keys' length is supported");
  }
  ReadTensors(*architecture, file, &keys, &config);
  RETURN_IF_ERROR(ReadRope(file, &keys, &config));
  RETURN_IF_ERROR(keys.status());
  RETURN_IF_ERROR(CheckConfig(config));
  ReadWindow(file, &keys, &config);
  RETURN_IF_ERROR(keys.status());
  ASSIGN_OR_RETURN(config.bos_id, TokenId(file, "tokenizer.ggml.bos_token_id"));
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    ASSIGN_OR_RETURN(const std::optional<int32_t> id, TokenId(file, key));
    if (id.has_value() &&
        std::find(config.eos_ids.begin(), config.eos_ids.end(), *id) == config.eos_ids.end()) {
      config.eos_ids.push_back(*id);
    }
  }
  RETURN_IF_ERROR(CheckConfig(config));
  return config;
}

}  // namespace fastgen
