#include "engine/model/hf_rope.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "engine/model/rope_table.h"

namespace fastgen {
namespace {

namespace json = boost::json;

constexpr std::string_view kOriginalKey = "original_max_position_embeddings";

// Beside its own keys every kind may have the common ones.
constexpr std::string_view kCommonKeys[] = {
    "type", "rope_type", "rope_theta", "partial_rotary_factor", kOriginalKey, "finetuned"};
struct KindOfType {
  std::string_view type;
  RopeScaling::Kind kind;
  std::array<std::string_view, 7> keys;
};
constexpr KindOfType kKinds[] = {
    {"default", RopeScaling::Kind::kNone, {}},
    {"linear", RopeScaling::Kind::kLinear, {"factor"}},
    {"llama3", RopeScaling::Kind::kLlama3, {"factor", "low_freq_factor", "high_freq_factor"}},
    {"yarn",
     RopeScaling::Kind::kYarn,
     {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
      "truncate"}},
    {"dynamic", RopeScaling::Kind::kNone, {"factor"}},
};

template <typename Keys>
bool Holds(const Keys& keys, std::string_view key) {
  return !key.empty() && std::find(std::begin(keys), std::end(keys), key) != std::end(keys);
}

// Null when the name is not known; refused then.
const KindOfType* ReadKind(ConfigFields* rope) {
  const std::string old_type = rope->String("type", "");
  const std::string type = rope->String("rope_type", old_type.empty() ? "default" : old_type);
  if (!old_type.empty() && old_type != type) {
    rope->Refuse("type", "it contradicts rope_type beside it");
    return nullptr;
  }
  for (const KindOfType& kind : kKinds) {
    if (kind.type == type) return &kind;
  }
  rope->Refuse(rope->Has("rope_type") ? "rope_type" : "type",
               "default, linear, llama3, yarn and dynamic are supported");
  return nullptr;
}

void RefuseOtherKeys(const KindOfType& kind, ConfigFields* rope) {
  for (const auto& entry : rope->object()) {
    const std::string_view key(entry.key().data(), entry.key().size());
    if (entry.value().is_null() || Holds(kCommonKeys, key) || Holds(kind.keys, key)) continue;
    const bool is_of_another =
        std::any_of(std::begin(kKinds), std::end(kKinds),
                    [&](const KindOfType& other) { return Holds(other.keys, key); });
    rope->Refuse(key, is_of_another ? absl::StrCat("it has no meaning for ", ToAbsl(kind.type))
                                    : std::string("the field is not known"));
  }
  if (rope->Number("partial_rotary_factor", 1) != 1) {
    rope->Refuse("partial_rotary_factor", "only 1 is supported");
  }
}

void ReadYarn(ConfigFields* rope, ModelConfig* config) {
  RopeScaling& scaling = config->rope_scaling;
  const double max_position = static_cast<double>(config->max_position);
  scaling.original_max_position = rope->Number(kOriginalKey, max_position);
  if (!rope->Has("factor")) {
    if (!rope->Has(kOriginalKey)) rope->Missing("factor", "for yarn");
    scaling.factor = max_position / scaling.original_max_position;
  }
  scaling.beta_fast = rope->Number("beta_fast", 32);
  scaling.beta_slow = rope->Number("beta_slow", 1);
  scaling.truncate = rope->Bool("truncate", true);
  const double mscale = rope->Number("mscale", 0);
  const double mscale_all_dim = rope->Number("mscale_all_dim", 0);
  scaling.attention_factor = YarnAttentionFactor(scaling.factor, 1);
  if (mscale != 0 && mscale_all_dim != 0) {
    scaling.attention_factor = YarnAttentionFactor(scaling.factor, mscale) /
                               YarnAttentionFactor(scaling.factor, mscale_all_dim);
  }
  scaling.attention_factor = rope->Number("attention_factor", scaling.attention_factor);
  const double reach = scaling.original_max_position * scaling.factor;
  if (rope->Has(kOriginalKey) && reach > max_position && reach < 1 << 26) {
    config->max_position = static_cast<int64_t>(reach);
  }
}

void ReadScaling(const KindOfType& kind, ConfigFields* rope, ModelConfig* config) {
  RopeScaling& scaling = config->rope_scaling;
  scaling.kind = kind.kind;
  if (kind.type == "default") return;
  const std::string for_kind = absl::StrCat("for ", ToAbsl(kind.type));
  if (kind.type == "yarn") {
    scaling.factor = rope->Number("factor", 1);
    ReadYarn(rope, config);
    return;
  }
  if (!rope->Has("factor")) rope->Missing("factor", for_kind);
  scaling.factor = rope->Number("factor", 1);
  if (kind.type == "llama3") {
    for (const std::string_view key : {std::string_view("low_freq_factor"),
                                       std::string_view("high_freq_factor"), kOriginalKey}) {
      if (!rope->Has(key)) rope->Missing(key, for_kind);
    }
    scaling.low_freq_factor = rope->Number("low_freq_factor", 1);
    scaling.high_freq_factor = rope->Number("high_freq_factor", 4);
    scaling.original_max_position = rope->Number(kOriginalKey, 0);
  }
  if (kind.type == "dynamic") {
    const double max_position = static_cast<double>(config->max_position);
    if (rope->Number(kOriginalKey, max_position) != max_position) {
      rope->Refuse(kOriginalKey,
                   "dynamic scaling is supported where it is max_position_embeddings");
    }
  }
}

// The newer spelling holds the base too, which stands beside the older one.
json::value WithoutTheta(json::value rope) {
  if (rope.is_object()) rope.get_object().erase("rope_theta");
  return rope;
}

}  // namespace

void ReadHfRope(ConfigFields* fields, ModelConfig* config) {
  config->rope_theta = fields->Number("rope_theta", config->rope_theta);
  const json::value* scaling = fields->Find("rope_scaling");
  const json::value* parameters = fields->Find("rope_parameters");
  if (scaling != nullptr && parameters != nullptr &&
      WithoutTheta(*scaling) != WithoutTheta(*parameters)) {
    fields->Refuse("rope_scaling", "it contradicts rope_parameters beside it");
    return;
  }
  const std::string_view key = parameters != nullptr ? "rope_parameters" : "rope_scaling";
  const json::value* value = fields->Find(key);
  if (value == nullptr) return;
  if (!value->is_object()) {
    fields->WrongValue(key, "an object");
    return;
  }
  ConfigFields rope(value->get_object(), absl::StrCat("config.json: ", ToAbsl(key), "."));
  if (const KindOfType* kind = ReadKind(&rope)) {
    RefuseOtherKeys(*kind, &rope);
    ReadScaling(*kind, &rope, config);
  }
  const double theta = rope.Number("rope_theta", config->rope_theta);
  if (fields->Has("rope_theta") && theta != config->rope_theta) {
    rope.Refuse("rope_theta", "it contradicts rope_theta beside it");
  }
  config->rope_theta = theta;
  fields->Fail(rope.status());
}

}  // namespace fastgen
