// ParseGgufConfig: ModelConfig from a GGUF file's metadata. The keys are those of the format's own
// specification; a key of the architecture's name space that is not known here is refused, because
// it may change the result.
// Tested by tests/engine/model/model_config_test.cc.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/model/gguf.h"
#include "engine/model/model_config.h"

namespace fastgen {
namespace {

constexpr std::string_view kPrefix = "llama.";
constexpr std::string_view kKnownKeys[] = {
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
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
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
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

// Reads keys below "llama."; the first that is missing or has a wrong type is kept as the status.
class Keys {
 public:
  explicit Keys(const GgufFile& file) : file_(file) {}

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

  static std::string Full(std::string_view key) {
    return absl::StrCat(ToAbsl(kPrefix), ToAbsl(key));
  }

 private:
  const GgufFile& file_;
  absl::Status status_;
};

absl::Status RefuseUnknownKeys(const GgufFile& file) {
  for (const std::string& key : file.keys()) {
    if (!absl::StartsWith(key, ToAbsl(kPrefix))) continue;
    const std::string_view rest = std::string_view(key).substr(kPrefix.size());
    if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), rest) == std::end(kKnownKeys)) {
      return Refuse(file, key, "the key is not known");
    }
  }
  for (const char* key : {"llama.expert_count", "llama.expert_used_count"}) {
    if (file.Has(key) && file.FindInt(key) != 0) return Refuse(file, key, "only 0 is supported");
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufFile& file, Keys* keys, ModelConfig* config) {
  config->rope_theta = keys->Number("rope.freq_base", 10000);
  const int64_t rotated = keys->Int("rope.dimension_count", config->head_dim);
  if (rotated != config->head_dim) {
    return absl::UnimplementedError(absl::StrCat("llama.rope.dimension_count is ", rotated,
                                                 ": only the whole head of ", config->head_dim,
                                                 " is supported"));
  }
  RopeScaling& scaling = config->rope_scaling;
  const std::string type_key = Keys::Full("rope.scaling.type");
  const std::string_view type = file.FindString(type_key).value_or("none");
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::kLinear;
    scaling.factor = keys->Number("rope.scaling.factor", 1);
  } else if (type != "none" || (file.Has(type_key) && !file.FindString(type_key))) {
    return Refuse(file, type_key, "\"none\" and \"linear\" are supported");
  } else if (keys->Has("rope.scale_linear")) {
    // The older spelling of linear scaling.
    scaling.factor = keys->Number("rope.scale_linear", 1);
    if (scaling.factor != 1) scaling.kind = RopeScaling::Kind::kLinear;
  }
  const auto tensor =
      std::find_if(file.tensors().begin(), file.tensors().end(),
                   [](const StoredTensor& t) { return t.name == "rope_freqs.weight"; });
  if (tensor == file.tensors().end()) return absl::OkStatus();
  if (scaling.kind != RopeScaling::Kind::kNone) {
    return absl::UnimplementedError(
        "rope_freqs.weight beside linear RoPE scaling is not supported");
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

}  // namespace

absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufFile& file) {
  const auto architecture = file.FindString("general.architecture");
  if (!architecture.has_value()) {
    return absl::InvalidArgumentError("general.architecture is missing");
  }
  if (*architecture != "llama") {
    return Refuse(file, "general.architecture", "\"llama\" is supported");
  }
  RETURN_IF_ERROR(RefuseUnknownKeys(file));
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.name = std::string(file.FindString("general.name").value_or(""));
  Keys keys(file);
  config.hidden = keys.RequiredInt("embedding_length");
  config.ffn = keys.RequiredInt("feed_forward_length");
  config.num_layers = keys.RequiredInt("block_count");
  config.q_heads = keys.RequiredInt("attention.head_count");
  config.kv_heads = keys.Int("attention.head_count_kv", config.q_heads);
  config.max_position = keys.RequiredInt("context_length");
  config.rms_eps = static_cast<float>(keys.Number("attention.layer_norm_rms_epsilon", 1e-5));
  RETURN_IF_ERROR(keys.status());
  if (config.q_heads < 1 || (!keys.Has("attention.key_length") && config.hidden % config.q_heads)) {
    return absl::InvalidArgumentError(
        absl::StrCat("llama.embedding_length ", config.hidden,
                     " is not a multiple of llama.attention.head_count ", config.q_heads));
  }
  config.head_dim = keys.Int("attention.key_length", config.hidden / config.q_heads);
  if (keys.Int("attention.value_length", config.head_dim) != config.head_dim) {
    return Refuse(file, "llama.attention.value_length", "only the keys' length is supported");
  }
  config.tied_head = true;
  int64_t embedding_rows = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    if (tensor.name == "output.weight") config.tied_head = false;
    if (tensor.name == "token_embd.weight") embedding_rows = tensor.shape.front();
  }
  config.vocab = keys.Int("vocab_size", embedding_rows);
  RETURN_IF_ERROR(ReadRope(file, &keys, &config));
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
