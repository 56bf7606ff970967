// ModelConfig from config.json and generation_config.json: the spellings that occur, published
// files, and what is refused by name and value.
#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "engine/model/model_config.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

namespace json = boost::json;
using ::fastgen::testing::TinyModel;

json::object Fields() { return json::parse(TinyModel().ConfigJson()).as_object(); }

absl::StatusOr<ModelConfig> Parse(const json::object& fields, std::string_view generation = "") {
  return ParseHfConfig(json::serialize(fields), generation);
}

std::string Refusal(const json::object& fields, std::string_view generation = "") {
  const absl::StatusOr<ModelConfig> config = Parse(fields, generation);
  return config.ok() ? "" : std::string(config.status().message());
}

json::object With(const char* key, std::string_view value_json) {
  json::object fields = Fields();
  fields[key] = json::parse(json::string_view(value_json.data(), value_json.size()));
  return fields;
}

json::object Without(const char* key) {
  json::object fields = Fields();
  fields.erase(key);
  return fields;
}

TEST_CASE("config.json gives the model's shape", "[model][config]") {
  const absl::StatusOr<ModelConfig> config = Parse(Fields());
  REQUIRE(config.ok());
  CHECK(config->architecture == "LlamaForCausalLM");
  CHECK(config->hidden == 64);
  CHECK(config->ffn == 96);
  CHECK(config->num_layers == 2);
  CHECK(config->q_heads == 4);
  CHECK(config->kv_heads == 2);
  CHECK(config->head_dim == 16);
  CHECK(config->vocab == 80);
  CHECK(config->max_position == 256);
  CHECK(config->rms_eps == 1e-5f);
  CHECK(config->rope_theta == 10000);
  CHECK(config->rope_scaling.kind == RopeScaling::Kind::kNone);
  CHECK_FALSE(config->tied_head);
  CHECK(config->bos_id == 0);
  CHECK(config->eos_ids == std::vector<int32_t>{1});
}

TEST_CASE("config.json fields that may be left out have their usual meaning", "[model][config]") {
  CHECK(Parse(Without("head_dim"))->head_dim == 16);
  CHECK(Parse(With("head_dim", "null"))->head_dim == 16);
  CHECK(Parse(With("head_dim", "32"))->head_dim == 32);
  CHECK(Parse(Without("num_key_value_heads"))->kv_heads == 4);
  CHECK(Parse(Without("rope_theta"))->rope_theta == 10000);
  CHECK_FALSE(Parse(Without("tie_word_embeddings"))->tied_head);
  CHECK_FALSE(Parse(Without("bos_token_id"))->bos_id.has_value());
  CHECK(Parse(Without("eos_token_id"))->eos_ids.empty());
}

TEST_CASE("end tokens of generation_config.json win", "[model][config]") {
  CHECK(Parse(Fields(), R"({"eos_token_id":[3,4]})")->eos_ids == std::vector<int32_t>{3, 4});
  CHECK(Parse(Fields(), R"({"eos_token_id":5})")->eos_ids == std::vector<int32_t>{5});
  CHECK(Parse(Fields(), R"({"do_sample":false})")->eos_ids == std::vector<int32_t>{1});
  CHECK(Parse(With("eos_token_id", "[1,2]"))->eos_ids == std::vector<int32_t>{1, 2});
  CHECK(absl::StrContains(Refusal(Fields(), R"({"eos_token_id":"x"})"),
                          "generation_config.json: eos_token_id is \"x\""));
  CHECK(absl::StrContains(Refusal(Fields(), "{"), "generation_config.json is not valid JSON"));
  CHECK(absl::StrContains(Refusal(Fields(), R"({"eos_token_id":80})"),
                          "generation_config.json: eos_token_id is 80, it must be inside the "
                          "vocabulary of 80"));
}

TEST_CASE("RoPE is read from every spelling", "[model][config]") {
  const char* llama3 =
      R"({"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,)"
      R"("original_max_position_embeddings":64})";
  const auto old_style = Parse(With("rope_scaling", llama3));
  REQUIRE(old_style.ok());
  CHECK(old_style->rope_scaling.kind == RopeScaling::Kind::kLlama3);
  CHECK(old_style->rope_scaling.factor == 8);
  CHECK(old_style->rope_scaling.original_max_position == 64);
  const auto old_key = Parse(With("rope_scaling", R"({"type":"linear","factor":2.5})"));
  REQUIRE(old_key.ok());
  CHECK(old_key->rope_scaling.kind == RopeScaling::Kind::kLinear);
  CHECK(old_key->rope_scaling.factor == 2.5);
  json::object fields = With("rope_parameters", R"({"rope_type":"default","rope_theta":5e5})");
  fields.erase("rope_theta");
  fields.erase("rope_scaling");
  const auto new_style = Parse(fields);
  REQUIRE(new_style.ok());
  CHECK(new_style->rope_theta == 5e5);
  CHECK(new_style->rope_scaling.kind == RopeScaling::Kind::kNone);
}

TEST_CASE("RoPE that is not understood is refused", "[model][config]") {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"rope_type":"longrope","factor":4})", "rope_scaling.rope_type is \"longrope\""},
      {R"({"type":"su","factor":4})", "rope_scaling.type is \"su\""},
      {R"({"type":"linear","rope_type":"llama3","factor":4})", "rope_scaling.type is \"linear\""},
      {R"({"rope_type":"linear"})", "rope_scaling.factor is missing"},
      {R"({"rope_type":"linear","factor":"2"})", "rope_scaling.factor is \"2\""},
      {R"({"rope_type":"linear","factor":0.5})", "scaling factor is 0.5"},
      {R"({"rope_type":"llama3","factor":8})", "low_freq_factor is missing"},
      {R"({"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4,)"
       R"("original_max_position_embeddings":64})",
       "0 < low < high"},
      {R"({"rope_type":"default","mystery":3})", "rope_scaling.mystery is 3"},
      {R"({"rope_type":"default","":3})", "rope_scaling. is 3: the field is not known"},
      {R"({"rope_type":"linear","factor":2,"beta_fast":32})",
       "rope_scaling.beta_fast is 32: it has no meaning for linear"},
      {R"({"rope_type":"yarn"})", "rope_scaling.factor is missing for yarn"},
      {R"({"rope_type":"yarn","factor":4,"beta_fast":1,"beta_slow":2})", "0 < slow < fast"},
      {R"({"rope_type":"yarn","factor":4,"attention_factor":0})", "attention factor > 0"},
      {R"({"rope_type":"yarn","factor":4,"original_max_position_embeddings":0})", "original >= 1"},
      {R"({"rope_type":"yarn","original_max_position_embeddings":0})", "scaling factor is inf"},
      {R"({"full_attention":{"rope_type":"default"}})", "rope_scaling.full_attention is {"},
      {R"({"rope_type":"default","partial_rotary_factor":0.5})", "partial_rotary_factor is 5E-1"},
      {R"({"rope_type":"default","rope_theta":5})", "rope_scaling.rope_theta is 5"},
      {R"("linear")", "rope_scaling is \"linear\""},
  };
  for (const auto& [value, message] : cases) {
    INFO(value);
    CHECK(absl::StrContains(Refusal(With("rope_scaling", value)), message));
  }
  json::object both = With("rope_scaling", R"({"type":"linear","factor":2})");
  both["rope_parameters"] = json::parse(R"({"rope_type":"linear","factor":4})");
  CHECK(absl::StrContains(Refusal(both), "rope_scaling is {\"type\":\"linear\""));
}

TEST_CASE("yarn takes every field of its own and fills in the rest", "[model][config]") {
  const auto scaling = [](std::string_view fields) {
    const auto config =
        Parse(With("rope_scaling", "{\"rope_type\":\"yarn\"," + std::string(fields) + "}"));
    INFO(config.status());
    REQUIRE(config.ok());
    return config->rope_scaling;
  };
  // The tiny model's context is 256.
  const RopeScaling plain = scaling(R"("factor":4)");
  CHECK(plain.kind == RopeScaling::Kind::kYarn);
  CHECK(plain.original_max_position == 256);
  CHECK(plain.beta_fast == 32);
  CHECK(plain.beta_slow == 1);
  CHECK(plain.truncate);
  CHECK(plain.attention_factor == Approx(0.1 * std::log(4) + 1).epsilon(1e-12));
  const RopeScaling full =
      scaling(R"("factor":4,"attention_factor":0.75,"beta_fast":16,"beta_slow":2,"truncate":false,)"
              R"("original_max_position_embeddings":64)");
  CHECK(full.original_max_position == 64);
  CHECK(full.beta_fast == 16);
  CHECK(full.beta_slow == 2);
  CHECK_FALSE(full.truncate);
  CHECK(full.attention_factor == 0.75);
  CHECK(scaling(R"("original_max_position_embeddings":64)").factor == 4);
  CHECK(scaling(R"("factor":4,"mscale":1.0,"mscale_all_dim":1.0)").attention_factor == 1);
  CHECK(scaling(R"("factor":4,"mscale":2.0,"mscale_all_dim":1.0)").attention_factor ==
        Approx((0.2 * std::log(4) + 1) / (0.1 * std::log(4) + 1)).epsilon(1e-12));
  CHECK(scaling(R"("factor":4,"mscale":2.0)").attention_factor == plain.attention_factor);
}

TEST_CASE("yarn's context is the original one times the factor, where that is given",
          "[model][config]") {
  const auto context = [](const char* fields) {
    return Parse(With("rope_scaling", fields))->max_position;
  };
  CHECK(context(R"({"type":"yarn","factor":4,"original_max_position_embeddings":256})") == 1024);
  CHECK(context(R"({"type":"yarn","factor":4,"original_max_position_embeddings":32})") == 256);
  CHECK(context(R"({"type":"yarn","factor":4})") == 256);
}

TEST_CASE("dynamic scaling is the default up to the context it is for", "[model][config]") {
  const auto config = Parse(With("rope_scaling", R"({"type":"dynamic","factor":4})"));
  REQUIRE(config.ok());
  CHECK(config->rope_scaling.kind == RopeScaling::Kind::kNone);
  CHECK(config->max_position == 256);
  CHECK(absl::StrContains(
      Refusal(With("rope_scaling",
                   R"({"type":"dynamic","factor":4,"original_max_position_embeddings":64})")),
      "rope_scaling.original_max_position_embeddings is 64"));
}

TEST_CASE("attention biases are where the architecture has them", "[model][config]") {
  const auto of = [](const char* architecture, const char* attention_bias) {
    json::object fields = json::parse(TinyModel::Of(architecture).ConfigJson()).as_object();
    fields["attention_bias"] = json::parse(attention_bias);
    const auto config = Parse(fields);
    INFO(config.status());
    REQUIRE(config.ok());
    return std::pair(config->has_qkv_bias, config->has_out_bias);
  };
  for (const char* name : {"LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"}) {
    CHECK(of(name, "true") == std::pair(true, true));
    CHECK(of(name, "false") == std::pair(false, false));
  }
  CHECK(of("Qwen2ForCausalLM", "null") == std::pair(true, false));
}

// The windows of 3 layers, or what is wrong with them.
std::string Windows(const char* architecture, const char* changes) {
  json::object fields = json::parse(TinyModel::Of(architecture).ConfigJson()).as_object();
  for (const char* key :
       {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"}) {
    fields.erase(key);
  }
  const json::value changed = json::parse(changes);
  for (const auto& entry : changed.as_object()) fields[entry.key()] = entry.value();
  const auto config = Parse(fields);
  if (!config.ok()) return std::string(config.status().message());
  return absl::StrJoin(config->layer_windows, " ");
}

TEST_CASE("Mistral's window is every layer's", "[model][config]") {
  const char* const mistral = "MistralForCausalLM";
  CHECK(Windows(mistral, R"({"sliding_window":null})").empty());
  // Other programs take 4096 then.
  CHECK(absl::StrContains(Windows(mistral, "{}"), "sliding_window is missing"));
  CHECK(Windows(mistral, R"({"sliding_window":8})") == "8 8 8");
  CHECK(absl::StrContains(Windows(mistral, R"({"sliding_window":0})"), "sliding_window is 0"));
  CHECK(absl::StrContains(Windows(mistral, R"({"sliding_window":-1})"), "sliding_window is -1"));
  CHECK(absl::StrContains(Windows(mistral, R"({"sliding_window":8,"use_sliding_window":false})"),
                          "use_sliding_window is false: it contradicts"));
  CHECK(absl::StrContains(
      Windows(
          mistral,
          R"({"sliding_window":8,"layer_types":["full_attention","full_attention","full_attention"]})"),
      "the layers of a MistralForCausalLM are alike"));
}

TEST_CASE("Ministral's windows are those of layer_types", "[model][config]") {
  const char* const ministral = "MinistralForCausalLM";
  CHECK(Windows(ministral, R"({"sliding_window":8})") == "8 8 8");
  CHECK(Windows(ministral, R"({"sliding_window":8,"layer_types":["sliding_attention",)"
                           R"("full_attention","sliding_attention"]})") == "8 0 8");
  CHECK(absl::StrContains(Windows(ministral, R"({"sliding_window":null,"layer_types":)"
                                             R"(["sliding_attention","full_attention",)"
                                             R"("full_attention"]})"),
                          "a sliding layer needs a sliding_window"));
  CHECK(absl::StrContains(
      Windows(ministral, R"({"sliding_window":8,"layer_types":["full_attention"]})"),
      "must be a list of 3 layers"));
  CHECK(
      absl::StrContains(Windows(ministral, R"({"sliding_window":8,"layer_types":["full_attention",)"
                                           R"("full_attention","chunked_attention"]})"),
                        "\"full_attention\" and \"sliding_attention\" are supported"));
}

TEST_CASE("Qwen's window is on only where it is switched on, from max_window_layers",
          "[model][config]") {
  for (const char* qwen : {"Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    INFO(qwen);
    CHECK(Windows(qwen, R"({"sliding_window":8})").empty());
    CHECK(Windows(qwen, R"({"sliding_window":8,"use_sliding_window":false})").empty());
    CHECK(Windows(qwen, R"({"sliding_window":8,"use_sliding_window":true})").empty());
    CHECK(Windows(qwen, R"({"sliding_window":8,"use_sliding_window":true,)"
                        R"("max_window_layers":1})") == "0 8 8");
    CHECK(Windows(qwen, R"({"sliding_window":8,"use_sliding_window":true,)"
                        R"("max_window_layers":3})")
              .empty());
    CHECK(Windows(qwen, R"({"sliding_window":8,"use_sliding_window":true,"layer_types":)"
                        R"(["full_attention","sliding_attention","full_attention"]})") == "0 8 0");
    CHECK(absl::StrContains(
        Windows(qwen, R"({"sliding_window":8,"use_sliding_window":false,"layer_types":)"
                      R"(["full_attention","sliding_attention","full_attention"]})"),
        "a sliding layer needs a sliding_window"));
  }
}

TEST_CASE("a Llama has no window", "[model][config]") {
  CHECK(absl::StrContains(Windows("LlamaForCausalLM", R"({"sliding_window":8})"),
                          "sliding_window is 8"));
  CHECK(Windows("LlamaForCausalLM", R"({"sliding_window":null,"layer_types":)"
                                    R"(["full_attention","full_attention","full_attention"]})")
            .empty());
}

TEST_CASE("sampling defaults are generation_config.json's numbers, in their ranges",
          "[model][config]") {
  const auto defaults = [](std::string_view generation) {
    return Parse(Fields(), generation)->sampling_defaults;
  };
  const SamplingDefaults all =
      defaults(R"({"do_sample":false,"temperature":0,"top_k":5,"top_p":1,"min_p":0.5,)"
               R"("repetition_penalty":1.5,"max_new_tokens":7})");
  CHECK(all.temperature == 0.0f);
  CHECK(all.top_k == 5);
  CHECK(all.top_p == 1.0f);
  CHECK(all.min_p == 0.5f);
  CHECK(all.repetition_penalty == 1.5f);
  const SamplingDefaults none = defaults(R"({"temperature":null,"do_sample":false})");
  CHECK_FALSE(none.temperature.has_value());
  CHECK_FALSE(none.top_k.has_value());
  CHECK(defaults(R"({"top_k":-1})").top_k == 0);  // off, as 0
  CHECK(Parse(Fields(), R"({"bos_token_id":[7]})")->bos_id == 7);
  const std::pair<const char*, const char*> cases[] = {
      {R"({"temperature":-1})", "temperature is -1, it must be in [0, "},
      {R"({"temperature":"hot"})", "temperature is \"hot\", it must be a number"},
      {R"({"temperature":1e300})", "temperature is 1E300"},
      {R"({"top_p":0})", "top_p is 0, it must be in (0, 1]"},
      {R"({"top_p":1.5})", "top_p is 1.5E0"},
      {R"({"min_p":-0.5})", "min_p is -5E-1"},
      {R"({"top_k":-2})", "top_k is -2"},
      {R"({"top_k":1.5})", "top_k is 1.5E0"},
      {R"({"top_k":4294967296})", "top_k is 4294967296"},
      {R"({"repetition_penalty":0})", "repetition_penalty is 0"},
      {R"({"bos_token_id":80})", "bos_token_id is 80, it must be inside the vocabulary of 80"},
  };
  for (const auto& [generation, message] : cases) {
    INFO(generation);
    CHECK(absl::StrContains(Refusal(Fields(), generation),
                            std::string("generation_config.json: ") + message));
  }
}

TEST_CASE("a field of config.json that nobody knows is refused, bookkeeping is not",
          "[model][config]") {
  CHECK(absl::StrContains(Refusal(With("use_sparse_magic", "false")),
                          "config.json: use_sparse_magic is false: the field is not known"));
  CHECK(absl::StrContains(Refusal(With("text_config", R"({"a":1})")), "text_config is {\"a\":1}"));
  CHECK(Refusal(With("use_sparse_magic", "null")).empty());
  for (const char* key :
       {"transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range",
        "attention_dropout", "pretraining_tp", "_name_or_path", "pad_token_id", "temperature"}) {
    INFO(key);
    CHECK(Refusal(With(key, "1")).empty());
  }
  CHECK(Refusal(With("pruned_heads", "{}")).empty());
  CHECK(absl::StrContains(Refusal(With("pruned_heads", R"({"0":[1]})")), "pruned_heads is"));
}

TEST_CASE("config.json fields that change the result are refused by name and value",
          "[model][config]") {
  const std::pair<const char*, const char*> cases[] = {
      {"architectures", R"(["GemmaForCausalLM"])"},
      {"architectures", R"(["LlamaForCausalLM","X"])"},
      {"architectures", "[]"},
      {"model_type", R"("qwen2")"},
      {"mlp_bias", "true"},
      {"hidden_act", R"("gelu")"},
      {"sliding_window", "4096"},
      {"quantization_config", R"({"bits":4})"},
      {"partial_rotary_factor", "0.5"},
      {"layer_types", R"(["full_attention","sliding_attention"])"},
      {"num_local_experts", "8"},
      {"logits_scaling", "8"},
  };
  for (const auto& [key, value] : cases) {
    INFO(key << " " << value);
    const absl::StatusOr<ModelConfig> config = Parse(With(key, value));
    CHECK(config.status().code() == absl::StatusCode::kUnimplemented);
    CHECK(absl::StrContains(config.status().message(), std::string("config.json: ") + key));
  }
  CHECK(Parse(With("layer_types", R"(["full_attention","full_attention"])")).ok());
  CHECK(Parse(With("attention_bias", "false")).ok());
}

TEST_CASE("config.json that is malformed is refused with the field", "[model][config]") {
  const std::pair<json::object, const char*> cases[] = {
      {Without("architectures"), "architectures is missing"},
      {Without("hidden_size"), "hidden_size is missing"},
      {With("hidden_size", "\"64\""), "hidden_size is \"64\", it must be an integer"},
      {With("hidden_size", "64.5"), "hidden_size is"},
      {With("hidden_size", "0"), "hidden_size is 0, it must be positive"},
      {With("hidden_size", "9223372036854775807"), "hidden size is 9223372036854775807"},
      {With("num_hidden_layers", "-1"), "num_hidden_layers is -1, it must be positive"},
      {With("num_attention_heads", "0"), "num_attention_heads is 0, it must be positive"},
      {With("num_attention_heads", "3"), "3 attention heads are not a multiple of 2"},
      {With("head_dim", "15"), "head dimension is 15"},
      {With("rms_norm_eps", "-1"), "epsilon is -1"},
      {With("rope_theta", "0"), "RoPE base is 0"},
      {With("tie_word_embeddings", "1"), "tie_word_embeddings is 1"},
      {With("eos_token_id", "[1,[2]]"), "eos_token_id is [1,[2]]"},
      {With("eos_token_id", "-1"), "eos_token_id is -1"},
      {With("bos_token_id", "99"), "bos_token_id is 99, it must be inside the vocabulary"},
  };
  for (const auto& [fields, message] : cases) {
    INFO(message);
    CHECK(absl::StrContains(Refusal(fields), message));
  }
  CHECK_FALSE(ParseHfConfig("", "").ok());
  CHECK_FALSE(ParseHfConfig("[]", "").ok());
  CHECK_FALSE(ParseHfConfig(std::string(100'000, '['), "").ok());
}

}  // namespace
}  // namespace fastgen
