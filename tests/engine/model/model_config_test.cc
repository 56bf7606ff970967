// ModelConfig from GGUF metadata, and the checks that both formats share.
#include "engine/model/model_config.h"

#include <catch2/catch.hpp>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "engine/model/gguf.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using ::fastgen::testing::GgufWriter;
using ::fastgen::testing::LittleEndian;
using ::fastgen::testing::TinyModel;

absl::StatusOr<ModelConfig> Parse(const GgufWriter& writer) {
  const std::string bytes = writer.Bytes();
  const absl::StatusOr<GgufFile> file =
      GgufFile::Parse(absl::MakeConstSpan(bytes.data(), bytes.size()), "x.gguf");
  if (!file.ok()) return file.status();
  return ParseGgufConfig(*file);
}

std::string Refusal(const GgufWriter& writer) {
  const absl::StatusOr<ModelConfig> config = Parse(writer);
  return config.ok() ? "" : std::string(config.status().message());
}

TEST_CASE("GGUF metadata gives the same shape as config.json", "[model][config]") {
  TinyModel tiny;
  tiny.config.rope_scaling.kind = RopeScaling::Kind::kLinear;
  tiny.config.rope_scaling.factor = 4;
  const auto gguf = Parse(tiny.Gguf());
  const auto hf = ParseHfConfig(tiny.ConfigJson(), "");
  REQUIRE(gguf.ok());
  REQUIRE(hf.ok());
  CHECK(gguf->architecture == hf->architecture);
  CHECK(gguf->hidden == hf->hidden);
  CHECK(gguf->ffn == hf->ffn);
  CHECK(gguf->num_layers == hf->num_layers);
  CHECK(gguf->q_heads == hf->q_heads);
  CHECK(gguf->kv_heads == hf->kv_heads);
  CHECK(gguf->head_dim == hf->head_dim);
  CHECK(gguf->vocab == hf->vocab);
  CHECK(gguf->max_position == hf->max_position);
  CHECK(gguf->rms_eps == hf->rms_eps);
  CHECK(gguf->rope_theta == hf->rope_theta);
  CHECK(gguf->rope_scaling.kind == hf->rope_scaling.kind);
  CHECK(gguf->rope_scaling.factor == hf->rope_scaling.factor);
  CHECK(gguf->tied_head == hf->tied_head);
  CHECK(gguf->bos_id == hf->bos_id);
  CHECK(gguf->eos_ids == hf->eos_ids);
}

TEST_CASE("GGUF files of every architecture give what config.json gives", "[model][config]") {
  for (const char* name :
       {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    INFO(name);
    TinyModel tiny = TinyModel::Of(name);
    if (std::string(name) == "Qwen3ForCausalLM") tiny.config.layer_windows = {};
    const auto gguf = Parse(tiny.Gguf());
    const auto hf = ParseHfConfig(tiny.ConfigJson(), "");
    REQUIRE(gguf.ok());
    REQUIRE(hf.ok());
    // Mistral's tensors are a Llama's, and GGUF calls it so.
    CHECK(gguf->architecture ==
          (hf->architecture == "MistralForCausalLM" ? "LlamaForCausalLM" : hf->architecture));
    CHECK(gguf->head_dim == hf->head_dim);
    CHECK(gguf->layer_windows == hf->layer_windows);
    CHECK(gguf->has_qkv_bias == hf->has_qkv_bias);
    CHECK(gguf->has_out_bias == hf->has_out_bias);
    CHECK(gguf->has_qk_norm == hf->has_qk_norm);
    CHECK(gguf->max_position == hf->max_position);
    CHECK(gguf->rope_scaling.kind == hf->rope_scaling.kind);
    CHECK(gguf->rope_scaling.factor == hf->rope_scaling.factor);
    CHECK(gguf->rope_scaling.original_max_position == hf->rope_scaling.original_max_position);
    CHECK(gguf->rope_scaling.attention_factor == Approx(hf->rope_scaling.attention_factor));
  }
}

TEST_CASE("GGUF yarn keys change the ramp and the attention factor", "[model][config]") {
  TinyModel tiny = TinyModel::Of("Qwen2ForCausalLM");
  GgufWriter writer = tiny.Gguf();
  writer.F32("qwen2.rope.scaling.attn_factor", 2);
  writer.F32("qwen2.rope.scaling.yarn_beta_fast", 16);
  writer.F32("qwen2.rope.scaling.yarn_beta_slow", 2);
  writer.F32("qwen2.rope.scaling.yarn_ext_factor", 1);
  const auto config = Parse(writer);
  REQUIRE(config.ok());
  CHECK(config->rope_scaling.beta_fast == 16);
  CHECK(config->rope_scaling.beta_slow == 2);
  CHECK(config->rope_scaling.attention_factor ==
        Approx(2 * tiny.config.rope_scaling.attention_factor));
  GgufWriter other = tiny.Gguf();
  other.F32("qwen2.rope.scaling.yarn_ext_factor", 0.5f);
  CHECK(absl::StrContains(Refusal(other), "qwen2.rope.scaling.yarn_ext_factor is 0.5: only 1"));
}

TEST_CASE("a GGUF RoPE factor is linear scaling in every spelling", "[model][config]") {
  const auto factor = [](auto add) {
    GgufWriter writer = TinyModel().Gguf();
    add(&writer);
    const auto config = Parse(writer);
    REQUIRE(config.ok());
    const bool is_linear = config->rope_scaling.kind == RopeScaling::Kind::kLinear;
    return is_linear ? config->rope_scaling.factor : 1;
  };
  CHECK(factor([](GgufWriter* w) { w->F32("llama.rope.scaling.factor", 4); }) == 4);
  CHECK(factor([](GgufWriter* w) { w->F32("llama.rope.scale_linear", 2); }) == 2);
  CHECK(factor([](GgufWriter* w) {
          w->String("llama.rope.scaling.type", "linear");
          w->F32("llama.rope.scale_linear", 2);
        }) == 2);
  CHECK(factor([](GgufWriter* w) {
          w->String("llama.rope.scaling.type", "none");
          w->F32("llama.rope.scaling.factor", 4);
        }) == 1);
  GgufWriter odd = TinyModel().Gguf();
  odd.F32("llama.rope.scaling.attn_factor", 2);
  CHECK(absl::StrContains(Refusal(odd), "llama.rope.scaling.attn_factor is 2: only 1"));
}

TEST_CASE("a GGUF window is read for Llamas and Mistrals alone", "[model][config]") {
  const auto windows = [](const char* architecture, const char* key, uint32_t window) {
    TinyModel tiny = TinyModel::Of(architecture);
    tiny.config.layer_windows = {};
    GgufWriter writer = tiny.Gguf();
    writer.U32(key, window);
    const auto config = Parse(writer);
    return config.ok() ? absl::StrJoin(config->layer_windows, " ")
                       : std::string(config.status().message());
  };
  CHECK(windows("MistralForCausalLM", "llama.attention.sliding_window", 8) == "8 8 8");
  CHECK(windows("MistralForCausalLM", "llama.attention.sliding_window", 0).empty());
  CHECK(absl::StrContains(windows("Qwen3ForCausalLM", "qwen3.attention.sliding_window", 8),
                          "qwen3.attention.sliding_window is 8"));
}

TEST_CASE("GGUF head is tied where the file has no output.weight", "[model][config]") {
  TinyModel tiny;
  CHECK_FALSE(Parse(tiny.Gguf())->tied_head);
  tiny.config.tied_head = true;
  CHECK(Parse(tiny.Gguf())->tied_head);
}

TEST_CASE("GGUF frequency divisors are read, odd ones refused", "[model][config]") {
  GgufWriter writer = TinyModel().Gguf();
  std::string divisors;
  for (int i = 0; i < 8; ++i) divisors += LittleEndian(1.0f + static_cast<float>(i));
  writer.Tensor({"rope_freqs.weight", DType::kF32, {8}, divisors});
  const auto config = Parse(writer);
  REQUIRE(config.ok());
  CHECK(config->rope_scaling.kind == RopeScaling::Kind::kDivisors);
  CHECK(config->rope_scaling.divisors == std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
  GgufWriter short_one = TinyModel().Gguf();
  short_one.Tensor({"rope_freqs.weight", DType::kF32, {4}, divisors.substr(0, 16)});
  CHECK(absl::StrContains(Refusal(short_one), "rope_freqs.weight has type F32 and shape [4]"));
  GgufWriter zero = TinyModel().Gguf();
  zero.Tensor({"rope_freqs.weight", DType::kF32, {8}, std::string(32, '\0')});
  CHECK(absl::StrContains(Refusal(zero), "rope_freqs.weight holds 0"));
}

TEST_CASE("GGUF metadata that is not understood is refused by key and value", "[model][config]") {
  GgufWriter gemma;
  gemma.String("general.architecture", "gemma");
  CHECK(absl::StrContains(Refusal(gemma),
                          "general.architecture is \"gemma\": one of llama, qwen2, qwen3 is"));
  CHECK(absl::StrContains(Refusal(GgufWriter()), "general.architecture is missing"));
  const auto with_u32 = [](const char* key, uint32_t value) {
    GgufWriter writer = TinyModel().Gguf();
    writer.U32(key, value);
    return Refusal(writer);
  };
  CHECK(absl::StrContains(with_u32("llama.attention.mystery", 128),
                          "llama.attention.mystery is 128: the key is not known"));
  CHECK(absl::StrContains(with_u32("llama.expert_count", 8), "llama.expert_count is 8"));
  CHECK(with_u32("llama.expert_count", 0).empty());
  CHECK(absl::StrContains(with_u32("llama.rope.dimension_count", 8),
                          "llama.rope.dimension_count is 8"));
  CHECK(absl::StrContains(with_u32("llama.rope.scaling.type", 1), "llama.rope.scaling.type is 1"));
  GgufWriter longrope = TinyModel().Gguf();
  longrope.String("llama.rope.scaling.type", "longrope");
  CHECK(absl::StrContains(Refusal(longrope), "llama.rope.scaling.type is \"longrope\""));
  GgufWriter array;
  array.String("general.architecture", "llama");
  array.I32Array("llama.embedding_length", {1, 2});
  CHECK(absl::StrContains(Refusal(array), "llama.embedding_length is an array of i32"));
  GgufWriter empty;
  empty.String("general.architecture", "llama");
  CHECK(absl::StrContains(Refusal(empty), "llama.embedding_length is missing"));
}

}  // namespace
}  // namespace fastgen
