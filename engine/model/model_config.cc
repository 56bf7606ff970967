#include "engine/model/model_config.h"

#include <boost/json.hpp>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {
namespace {

namespace json = boost::json;

constexpr size_t kMaxConfigBytes = 4 << 20;

// A value as it stands in the file, cut to a length fit for a message.
std::string Shown(const json::value& value) {
  std::string text = json::serialize(value);
  if (text.size() > 100) text = text.substr(0, 100) + "...";
  return text;
}

// Reads fields of one JSON object; the first that is missing or has a wrong type is kept as the
// status.
class Fields {
 public:
  Fields(const json::object& object, std::string_view prefix) : object_(object), prefix_(prefix) {}

  const absl::Status& status() const { return status_; }

  // The field, or null when absent or JSON null (the two mean the same in these files).
  const json::value* Find(std::string_view key) const {
    const json::value* value = object_.if_contains(json::string_view(key.data(), key.size()));
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  int64_t RequiredInt(std::string_view key) {
    if (Find(key) == nullptr) {
      Fail(absl::InvalidArgumentError(absl::StrCat(prefix_, ToAbsl(key), " is missing")));
      return 0;
    }
    return Int(key, 0);
  }

  int64_t Int(std::string_view key, int64_t absent) {
    const json::value* value = Find(key);
    if (value == nullptr) return absent;
    if (value->is_int64()) return value->get_int64();
    WrongType(key, *value, "an integer");
    return absent;
  }

  double Number(std::string_view key, double absent) {
    const json::value* value = Find(key);
    if (value == nullptr) return absent;
    if (value->is_number()) return value->to_number<double>();
    WrongType(key, *value, "a number");
    return absent;
  }

  bool Bool(std::string_view key, bool absent) {
    const json::value* value = Find(key);
    if (value == nullptr) return absent;
    if (value->is_bool()) return value->get_bool();
    WrongType(key, *value, "true or false");
    return absent;
  }

  std::string String(std::string_view key, std::string_view absent) {
    const json::value* value = Find(key);
    if (value == nullptr) return std::string(absent);
    if (value->is_string())
      return std::string(value->get_string().data(), value->get_string().size());
    WrongType(key, *value, "a string");
    return std::string(absent);
  }

  // A token id or a list of them.
  std::vector<int32_t> Ids(std::string_view key) {
    std::vector<int32_t> ids;
    const json::value* value = Find(key);
    if (value == nullptr) return ids;
    const auto add = [&](const json::value& id) {
      if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() > INT32_MAX) {
        WrongType(key, *value, "a token id or a list of them");
        return;
      }
      ids.push_back(static_cast<int32_t>(id.get_int64()));
    };
    if (const json::array* list = value->if_array()) {
      for (const json::value& id : *list) add(id);
    } else {
      add(*value);
    }
    return ids;
  }

  void Refuse(std::string_view key, std::string_view why) {
    const json::value* value = Find(key);
    Fail(absl::UnimplementedError(absl::StrCat(prefix_, ToAbsl(key), " is ",
                                               value == nullptr ? "null" : Shown(*value), ": ",
                                               ToAbsl(why))));
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

 private:
  void WrongType(std::string_view key, const json::value& value, std::string_view wanted) {
    Fail(absl::InvalidArgumentError(
        absl::StrCat(prefix_, ToAbsl(key), " is ", Shown(value), ", it must be ", ToAbsl(wanted))));
  }

  const json::object& object_;
  const std::string prefix_;
  absl::Status status_;
};

absl::StatusOr<json::object> ParseObject(std::string_view text, std::string_view file) {
  if (text.size() > kMaxConfigBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        ToAbsl(file), " has ", text.size(), " bytes, at most ", kMaxConfigBytes, " are allowed"));
  }
  json::parse_options options;
  options.max_depth = 16;
  json::error_code error;
  json::value value = json::parse(json::string_view(text.data(), text.size()), error, {}, options);
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat(ToAbsl(file), " is not valid JSON: ", error.message()));
  }
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(file), " is not a JSON object"));
  }
  return std::move(value.get_object());
}

// RoPE's base and scaling, from any of the spellings: rope_theta beside rope_scaling, or both in
// rope_parameters.
void ReadRope(Fields* fields, ModelConfig* config) {
  config->rope_theta = fields->Number("rope_theta", config->rope_theta);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json::value* value = fields->Find(key);
    if (value == nullptr) continue;
    if (!value->is_object()) {
      fields->Fail(absl::InvalidArgumentError(
          absl::StrCat("config.json: ", key, " is ", Shown(*value), ", it must be an object")));
      return;
    }
    Fields rope(value->get_object(), absl::StrCat("config.json: ", key, "."));
    for (const auto& entry : value->get_object()) {
      const std::string_view name(entry.key().data(), entry.key().size());
      const bool known = name == "type" || name == "rope_type" || name == "factor" ||
                         name == "rope_theta" || name == "low_freq_factor" ||
                         name == "high_freq_factor" || name == "original_max_position_embeddings" ||
                         (name == "partial_rotary_factor" && entry.value().is_number() &&
                          entry.value().to_number<double>() == 1);
      if (!known && !entry.value().is_null()) rope.Refuse(name, "the field is not known");
    }
    const double theta = rope.Number("rope_theta", config->rope_theta);
    if (fields->Find("rope_theta") != nullptr && theta != config->rope_theta) {
      rope.Refuse("rope_theta", "it contradicts rope_theta beside it");
    }
    config->rope_theta = theta;
    const std::string old_type = rope.String("type", "");
    const std::string type = rope.String("rope_type", old_type.empty() ? "default" : old_type);
    if (!old_type.empty() && old_type != type) {
      rope.Refuse("type", "it contradicts rope_type beside it");
    }
    RopeScaling& scaling = config->rope_scaling;
    if (type == "linear" || type == "llama3") {
      if (rope.Find("factor") == nullptr) {
        rope.Fail(absl::InvalidArgumentError(
            absl::StrCat("config.json: ", key, ".factor is missing for rope_type ", type)));
      }
      scaling.kind = type == "linear" ? RopeScaling::Kind::kLinear : RopeScaling::Kind::kLlama3;
      scaling.factor = rope.Number("factor", 1);
    } else if (type != "default") {
      rope.Refuse(rope.Find("rope_type") != nullptr ? "rope_type" : "type",
                  "default, linear and llama3 are supported");
    }
    if (scaling.kind == RopeScaling::Kind::kLlama3) {
      for (const char* name :
           {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
        if (rope.Find(name) == nullptr) {
          rope.Fail(absl::InvalidArgumentError(
              absl::StrCat("config.json: ", key, ".", name, " is missing for rope_type llama3")));
        }
      }
      scaling.low_freq_factor = rope.Number("low_freq_factor", 1);
      scaling.high_freq_factor = rope.Number("high_freq_factor", 4);
      scaling.original_max_position = rope.Number("original_max_position_embeddings", 0);
    }
    fields->Fail(rope.status());
  }
}

// Fields that change what a model computes and have only one supported value.
void RefuseUnsupported(Fields* fields) {
  for (const char* key :
       {"attention_bias", "mlp_bias", "rope_interleaved", "use_qk_norm", "qk_norm",
        "use_sliding_window", "add_cross_attention", "is_encoder_decoder"}) {
    if (fields->Bool(key, false)) fields->Refuse(key, "only false is supported");
  }
  for (const char* key :
       {"quantization_config", "sliding_window", "num_local_experts", "num_experts", "moe_layers",
        "no_rope_layers", "attn_logit_softcapping", "final_logit_softcapping", "attn_scale",
        "clip_qkv", "layer_norm_type", "pruned_heads_per_layer", "block_configs"}) {
    if (fields->Find(key) != nullptr) fields->Refuse(key, "only null is supported");
  }
  for (const char* key : {"partial_rotary_factor", "embedding_multiplier", "residual_multiplier",
                          "attention_multiplier", "logits_scaling", "logit_scale"}) {
    if (fields->Number(key, 1) != 1) fields->Refuse(key, "only 1 is supported");
  }
  const std::string activation = fields->String("hidden_act", "silu");
  if (activation != "silu") fields->Refuse("hidden_act", "only \"silu\" is supported");
  if (const json::value* types = fields->Find("layer_types")) {
    const json::array* list = types->if_array();
    bool all_full = list != nullptr;
    if (list != nullptr) {
      for (const json::value& type : *list) all_full = all_full && type == "full_attention";
    }
    if (!all_full) fields->Refuse("layer_types", "only \"full_attention\" is supported");
  }
}

void ReadArchitecture(Fields* fields, ModelConfig* config) {
  const json::value* list = fields->Find("architectures");
  if (list == nullptr) {
    fields->Fail(absl::InvalidArgumentError("config.json: architectures is missing"));
    return;
  }
  const json::array* names = list->if_array();
  if (names == nullptr || names->size() != 1 || names->front() != "LlamaForCausalLM") {
    fields->Refuse("architectures", "[\"LlamaForCausalLM\"] is supported");
    return;
  }
  config->architecture = "LlamaForCausalLM";
  if (fields->String("model_type", "llama") != "llama") {
    fields->Refuse("model_type", "only \"llama\" is supported");
  }
}

}  // namespace

absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view config_json,
                                          std::string_view generation_config_json) {
  ASSIGN_OR_RETURN(const json::object object, ParseObject(config_json, "config.json"));
  Fields fields(object, "config.json: ");
  ModelConfig config;
  ReadArchitecture(&fields, &config);
  RETURN_IF_ERROR(fields.status());
  RefuseUnsupported(&fields);
  config.hidden = fields.RequiredInt("hidden_size");
  config.ffn = fields.RequiredInt("intermediate_size");
  config.num_layers = fields.RequiredInt("num_hidden_layers");
  config.q_heads = fields.RequiredInt("num_attention_heads");
  config.kv_heads = fields.Int("num_key_value_heads", config.q_heads);
  config.vocab = fields.RequiredInt("vocab_size");
  config.max_position = fields.RequiredInt("max_position_embeddings");
  config.rms_eps = static_cast<float>(fields.Number("rms_norm_eps", 1e-6));
  config.tied_head = fields.Bool("tie_word_embeddings", false);
  ReadRope(&fields, &config);
  const std::vector<int32_t> bos_ids = fields.Ids("bos_token_id");
  if (!bos_ids.empty()) config.bos_id = bos_ids.front();
  config.eos_ids = fields.Ids("eos_token_id");
  RETURN_IF_ERROR(fields.status());
  if (fields.Find("head_dim") != nullptr) {
    config.head_dim = fields.Int("head_dim", 0);
  } else if (config.q_heads > 0 && config.hidden % config.q_heads == 0) {
    config.head_dim = config.hidden / config.q_heads;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("config.json: hidden_size is ", config.hidden,
                                                   ", not a multiple of num_attention_heads ",
                                                   config.q_heads, ", and head_dim is not given"));
  }
  RETURN_IF_ERROR(fields.status());
  if (!generation_config_json.empty()) {
    ASSIGN_OR_RETURN(const json::object generation,
                     ParseObject(generation_config_json, "generation_config.json"));
    Fields generation_fields(generation, "generation_config.json: ");
    std::vector<int32_t> eos_ids = generation_fields.Ids("eos_token_id");
    if (!eos_ids.empty()) config.eos_ids = std::move(eos_ids);
    RETURN_IF_ERROR(generation_fields.status());
  }
  const absl::Status checked = CheckConfig(config);
  if (!checked.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: ", checked.message()));
  }
  return config;
}

absl::Status CheckConfig(const ModelConfig& config) {
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
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the head dimension is ", config.head_dim, ", it must be even"));
  }
  if (config.q_heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(config.q_heads,
                                                   " attention heads are not a multiple of ",
                                                   config.kv_heads, " key/value heads"));
  }
  if (!(config.rms_eps > 0 && config.rms_eps < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the norm's epsilon is ", config.rms_eps, ", it must be in (0, 1)"));
  }
  if (!(config.rope_theta >= 1 && std::isfinite(config.rope_theta))) {
    return absl::InvalidArgumentError(
        absl::StrCat("the RoPE base is ", config.rope_theta, ", it must be at least 1"));
  }
  const RopeScaling& scaling = config.rope_scaling;
  if (!(scaling.factor >= 1 && std::isfinite(scaling.factor))) {
    return absl::InvalidArgumentError(
        absl::StrCat("the RoPE scaling factor is ", scaling.factor, ", it must be at least 1"));
  }
  if (scaling.kind == RopeScaling::Kind::kLlama3 &&
      !(scaling.low_freq_factor > 0 && scaling.high_freq_factor > scaling.low_freq_factor &&
        std::isfinite(scaling.high_freq_factor) && scaling.original_max_position >= 1 &&
        std::isfinite(scaling.original_max_position))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the llama3 RoPE scaling has low_freq_factor ", scaling.low_freq_factor,
        ", high_freq_factor ", scaling.high_freq_factor, ", original context ",
        scaling.original_max_position, ": it must be 0 < low < high and original >= 1"));
  }
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
