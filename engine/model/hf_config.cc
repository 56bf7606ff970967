// ParseHfConfig: ModelConfig from config.json and generation_config.json.
//
// Every field of config.json is in one of three sets: those that are read, those that are known to
// change nothing here (training, bookkeeping, generation defaults of other programs), and those
// that have one supported value. Anything else is refused by name.
// generation_config.json is a list of recommendations; only the fields listed in
// ReadGenerationConfig are looked at.
// Tested by tests/engine/model/hf_config_test.cc and tests/fuzz/config_json_fuzzer.cc.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/model/config_fields.h"
#include "engine/model/hf_rope.h"
#include "engine/model/model_config.h"

namespace fastgen {
namespace {

namespace json = boost::json;

// Which layers have the window of "sliding_window" when layer_types does not say.
enum class WindowRule { kNone, kEveryLayer, kFromMaxWindowLayers };

struct Architecture {
  std::string_view name;
  std::string_view model_type;
  WindowRule window_rule;
  bool reads_layer_types;  // else they may only repeat the rule
  bool always_has_qkv_bias;
  bool has_qk_norm;
};
constexpr Architecture kArchitectures[] = {
    {"LlamaForCausalLM", "llama", WindowRule::kNone, false, false, false},
    {"MistralForCausalLM", "mistral", WindowRule::kEveryLayer, false, false, false},
    {"MinistralForCausalLM", "ministral", WindowRule::kEveryLayer, true, false, false},
    {"Qwen2ForCausalLM", "qwen2", WindowRule::kFromMaxWindowLayers, true, true, false},
    {"Qwen3ForCausalLM", "qwen3", WindowRule::kFromMaxWindowLayers, true, false, true},
};

constexpr std::string_view kReadFields[] = {
    "architectures",     "attention_bias",      "bos_token_id",        "eos_token_id",
    "head_dim",          "hidden_act",          "hidden_size",         "intermediate_size",
    "layer_types",       "max_window_layers",   "model_type",          "max_position_embeddings",
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "rms_norm_eps",
    "rope_parameters",   "rope_scaling",        "rope_theta",          "sliding_window",
    "vocab_size",        "tie_word_embeddings", "use_sliding_window",
};

// What they say changes nothing of what this engine computes.
constexpr std::string_view kHarmlessFields[] = {
    // Bookkeeping and how another library runs or trains the model.
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_from_model_config",
    "_name_or_path",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "attn_pdrop",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "dtype",
    "embd_pdrop",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "mask_token_id",
    "max_sequence_length",
    "model_max_length",
    "neftune_noise_alpha",
    "num_labels",
    "num_logits_to_keep",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "tokenizer_model_max_length",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_flash_attn",
    // Generation options that old versions kept here; generation_config.json has them now.
    "bad_words_ids",
    "begin_suppress_tokens",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_p",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
};

// Fields with one supported value; null is as good as absent everywhere.
constexpr std::string_view kFalseFields[] = {
    "add_cross_attention", "is_encoder_decoder", "mlp_bias",    "qk_norm",
    "rope_interleaved",    "use_mrope",          "use_qk_norm",
};
constexpr std::string_view kNullFields[] = {
    "attn_logit_softcapping",
    "attn_scale",
    "auto_map",
    "block_configs",
    "clip_qkv",
    "compression_config",
    "final_logit_softcapping",
    "layer_norm_type",
    "moe_layers",
    "no_rope_layers",
    "num_experts",
    "num_local_experts",
    "pruned_heads_per_layer",
    "quantization_config",
};
constexpr std::string_view kOneFields[] = {
    "attention_multiplier", "embedding_multiplier",  "logit_scale",
    "logits_scaling",       "partial_rotary_factor", "residual_multiplier",
};

template <size_t N>
bool Holds(const std::string_view (&list)[N], std::string_view key) {
  return std::find(std::begin(list), std::end(list), key) != std::end(list);
}

// Refuses every field that is not understood.
void CheckFields(ConfigFields* fields) {
  for (const auto& entry : fields->object()) {
    const std::string_view key(entry.key().data(), entry.key().size());
    if (entry.value().is_null() || Holds(kReadFields, key) || Holds(kHarmlessFields, key)) continue;
    if (Holds(kFalseFields, key)) {
      if (fields->Bool(key, false)) fields->Refuse(key, "only false is supported");
    } else if (Holds(kOneFields, key)) {
      if (fields->Number(key, 1) != 1) fields->Refuse(key, "only 1 is supported");
    } else if (Holds(kNullFields, key)) {
      fields->Refuse(key, "only null is supported");
    } else if (key == "pruned_heads") {
      const json::object* heads = entry.value().if_object();
      if (heads == nullptr || !heads->empty()) fields->Refuse(key, "only {} is supported");
    } else {
      fields->Refuse(key, "the field is not known");
    }
  }
  if (fields->String("hidden_act", "silu") != "silu") {
    fields->Refuse("hidden_act", "only \"silu\" is supported");
  }
}

// Null when it is not one of ours; refused then.
const Architecture* ReadArchitecture(ConfigFields* fields) {
  const json::value* list = fields->Find("architectures");
  if (list == nullptr) {
    fields->Missing("architectures", "");
    return nullptr;
  }
  const json::array* names = list->if_array();
  const Architecture* found = nullptr;
  std::vector<std::string> known;
  for (const Architecture& architecture : kArchitectures) {
    known.emplace_back(architecture.name);
    const json::string_view name(architecture.name.data(), architecture.name.size());
    if (names != nullptr && names->size() == 1 && names->front() == name) found = &architecture;
  }
  if (found == nullptr) {
    fields->Refuse("architectures",
                   absl::StrCat("one of ", absl::StrJoin(known, ", "), " is supported"));
    return nullptr;
  }
  if (fields->String("model_type", found->model_type) != found->model_type) {
    fields->Refuse("model_type", absl::StrCat("a ", ToAbsl(found->name), " is of model_type \"",
                                              ToAbsl(found->model_type), "\""));
  }
  return found;
}

void ReadSizes(const Architecture& architecture, ConfigFields* fields, ModelConfig* config) {
  config->hidden = fields->RequiredSize("hidden_size");
  config->ffn = fields->RequiredSize("intermediate_size");
  config->num_layers = fields->RequiredSize("num_hidden_layers");
  config->q_heads = fields->RequiredSize("num_attention_heads");
  // Only Llama has one rule for what an absent number means.
  config->kv_heads = architecture.model_type == "llama"
                         ? fields->Size("num_key_value_heads", config->q_heads)
                         : fields->RequiredSize("num_key_value_heads");
  config->vocab = fields->RequiredSize("vocab_size");
  config->max_position = fields->RequiredSize("max_position_embeddings");
  config->rms_eps = static_cast<float>(fields->Number("rms_norm_eps", 1e-6));
  config->tied_head = fields->Bool("tie_word_embeddings", false);
  if (fields->Has("head_dim")) {
    config->head_dim = fields->Size("head_dim", 1);
  } else if (architecture.model_type == "qwen3") {
    fields->Missing("head_dim", "");
  } else if (config->hidden % config->q_heads == 0) {
    config->head_dim = config->hidden / config->q_heads;
  } else {
    fields->Fail(absl::InvalidArgumentError(absl::StrCat(
        "config.json: hidden_size is ", config->hidden, ", not a multiple of num_attention_heads ",
        config->q_heads, ", and head_dim is not given")));
  }
}

// Per layer, whether it has the window; by layer_types where the architecture reads them.
std::vector<bool> WindowedLayers(const Architecture& architecture, bool has_window,
                                 ConfigFields* fields, const ModelConfig& config) {
  const int64_t first = architecture.window_rule == WindowRule::kFromMaxWindowLayers
                            ? fields->Int("max_window_layers", 28)
                            : 0;
  std::vector<bool> by_rule;
  for (int64_t i = 0; i < config.num_layers; ++i) by_rule.push_back(has_window && i >= first);
  const json::value* value = fields->Find("layer_types");
  if (value == nullptr) return by_rule;
  const json::array* types = value->if_array();
  if (types == nullptr || types->size() != by_rule.size()) {
    fields->WrongValue("layer_types", absl::StrCat("a list of ", config.num_layers, " layers"));
    return by_rule;
  }
  std::vector<bool> listed;
  for (const json::value& type : *types) {
    listed.push_back(type == "sliding_attention");
    if (!listed.back() && type != "full_attention") {
      fields->Refuse("layer_types", "\"full_attention\" and \"sliding_attention\" are supported");
      return by_rule;
    }
  }
  const bool is_any_listed = std::find(listed.begin(), listed.end(), true) != listed.end();
  if (is_any_listed && !has_window) {
    fields->Refuse("layer_types", "a sliding layer needs a sliding_window that is in use");
  }
  if (!architecture.reads_layer_types && listed != by_rule) {
    fields->Refuse("layer_types", absl::StrCat("the layers of a ", ToAbsl(architecture.name),
                                               " are alike, as sliding_window says"));
  }
  return listed;
}

// REQUIRES: num_layers was checked.
void ReadWindows(const Architecture& architecture, ConfigFields* fields, ModelConfig* config) {
  const int64_t window = fields->Int("sliding_window", 0);
  bool has_window = fields->Has("sliding_window");
  // null means none; without the field, other programs take a window of their own.
  const bool may_have_window = architecture.window_rule == WindowRule::kEveryLayer ||
                               (architecture.window_rule == WindowRule::kFromMaxWindowLayers &&
                                fields->Bool("use_sliding_window", false));
  if (may_have_window && fields->object().if_contains("sliding_window") == nullptr) {
    fields->Missing("sliding_window", "(null: no window)");
  }
  switch (architecture.window_rule) {
    case WindowRule::kNone:
      if (has_window) fields->Refuse("sliding_window", "a LlamaForCausalLM has no window");
      break;
    case WindowRule::kEveryLayer:
      if (fields->Bool("use_sliding_window", has_window) != has_window) {
        fields->Refuse("use_sliding_window", "it contradicts sliding_window beside it");
      }
      break;
    case WindowRule::kFromMaxWindowLayers:
      has_window = has_window && fields->Bool("use_sliding_window", false);
      break;
  }
  if (has_window && (window < 1 || window > 1 << 26)) {
    fields->WrongValue("sliding_window", absl::StrCat("in [1, ", 1 << 26, "]"));
  }
  const std::vector<bool> windowed = WindowedLayers(architecture, has_window, fields, *config);
  if (std::find(windowed.begin(), windowed.end(), true) == windowed.end()) return;
  for (bool is_windowed : windowed) config->layer_windows.push_back(is_windowed ? window : 0);
}

absl::Status ReadGenerationConfig(std::string_view text, ModelConfig* config) {
  constexpr double kMaxFloat = 3.4e38;
  ASSIGN_OR_RETURN(const json::object object, ParseConfigObject(text, "generation_config.json"));
  ConfigFields fields(object, "generation_config.json: ");
  std::vector<int32_t> eos_ids = fields.Ids("eos_token_id", config->vocab);
  if (!eos_ids.empty()) config->eos_ids = std::move(eos_ids);
  const std::vector<int32_t> bos_ids = fields.Ids("bos_token_id", config->vocab);
  if (!bos_ids.empty()) config->bos_id = bos_ids.front();
  const auto number = [&](const char* key, double min, double max, ConfigFields::Minimum minimum,
                          std::optional<float>* out) {
    const double value = fields.NumberIn(key, 1, min, max, minimum);
    if (fields.Has(key)) *out = static_cast<float>(value);
  };
  // The ranges are those of a request's own fields.
  SamplingDefaults& defaults = config->sampling_defaults;
  number("temperature", 0, kMaxFloat, ConfigFields::Minimum::kClosed, &defaults.temperature);
  number("top_p", 0, 1, ConfigFields::Minimum::kOpen, &defaults.top_p);
  number("min_p", 0, 1, ConfigFields::Minimum::kClosed, &defaults.min_p);
  number("repetition_penalty", 0, 10, ConfigFields::Minimum::kOpen, &defaults.repetition_penalty);
  if (fields.Has("top_k")) {
    const int64_t top_k = fields.Int("top_k", 0);
    if (top_k < -1 || top_k > INT32_MAX) fields.WrongValue("top_k", "0, a positive integer or -1");
    defaults.top_k = static_cast<int32_t>(std::max<int64_t>(top_k, 0));  // both 0 and -1 mean off
  }
  return fields.status();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view config_json,
                                          std::string_view generation_config_json) {
  ASSIGN_OR_RETURN(const json::object object, ParseConfigObject(config_json, "config.json"));
  ConfigFields fields(object, "config.json: ");
  const Architecture* architecture = ReadArchitecture(&fields);
  RETURN_IF_ERROR(fields.status());
  CheckFields(&fields);
  ModelConfig config;
  config.architecture = std::string(architecture->name);
  ReadSizes(*architecture, &fields, &config);
  const bool attention_bias = fields.Bool("attention_bias", false);
  config.has_qkv_bias = architecture->always_has_qkv_bias || attention_bias;
  config.has_out_bias = !architecture->always_has_qkv_bias && attention_bias;
  config.has_qk_norm = architecture->has_qk_norm;
  ReadHfRope(&fields, &config);
  RETURN_IF_ERROR(fields.status());
  const auto named = [](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat("config.json: ", status.message()));
  };
  if (const absl::Status checked = CheckConfig(config); !checked.ok()) return named(checked);
  ReadWindows(*architecture, &fields, &config);
  const std::vector<int32_t> bos_ids = fields.Ids("bos_token_id", config.vocab);
  if (!bos_ids.empty()) config.bos_id = bos_ids.front();
  config.eos_ids = fields.Ids("eos_token_id", config.vocab);
  RETURN_IF_ERROR(fields.status());
  if (!generation_config_json.empty()) {
    RETURN_IF_ERROR(ReadGenerationConfig(generation_config_json, &config));
  }
  if (const absl::Status checked = CheckConfig(config); !checked.ok()) return named(checked);
  return config;
}

}  // namespace fastgen
