// ModelConfig from config.json and generation_config.json: the spellings that occur, published
// files, and what is refused by name and value.
#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <string>

#include "absl/strings/match.h"
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
      {R"({"rope_type":"default","partial_rotary_factor":0.5})", "partial_rotary_factor is 5E-1"},
      {R"({"rope_type":"default","rope_theta":5})", "rope_scaling.rope_theta is 5"},
      {R"("linear")", "rope_scaling is \"linear\""},
  };
  for (const auto& [value, message] : cases) {
    INFO(value);
    CHECK(absl::StrContains(Refusal(With("rope_scaling", value)), message));
  }
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
      {With("hidden_size", "0"), "hidden size is 0"},
      {With("hidden_size", "9223372036854775807"), "hidden size is 9223372036854775807"},
      {With("num_hidden_layers", "-1"), "number of layers is -1"},
      {With("num_attention_heads", "0"), "number of attention heads is 0"},
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
