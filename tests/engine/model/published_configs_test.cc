// Configurations as they are published, field by field: every family that the engine is for must be
// read, and mean what its publisher meant.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "engine/model/model_config.h"

namespace fastgen {
namespace {

struct Published {
  const char* name;
  const char* config;
  const char* generation;  // may be empty
};

const Published kPublished[] = {
    {"Llama-2-7b-chat",
     R"({"_name_or_path":"meta-llama/Llama-2-7b-chat-hf","architectures":["LlamaForCausalLM"],)"
     R"("bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":4096,)"
     R"("initializer_range":0.02,"intermediate_size":11008,"max_position_embeddings":4096,)"
     R"("model_type":"llama","num_attention_heads":32,"num_hidden_layers":32,)"
     R"("num_key_value_heads":32,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":null,)"
     R"("tie_word_embeddings":false,"torch_dtype":"float16","transformers_version":"4.32.0.dev0",)"
     R"("use_cache":true,"vocab_size":32000})",
     R"({"bos_token_id":1,"do_sample":true,"eos_token_id":2,"pad_token_id":0,"temperature":0.6,)"
     R"("max_length":4096,"top_p":0.9,"transformers_version":"4.32.0.dev0"})"},
    {"Llama-3.1-8B-Instruct",
     R"({"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,)"
     R"("bos_token_id":128000,"eos_token_id":[128001,128008,128009],"hidden_act":"silu",)"
     R"("hidden_size":4096,"initializer_range":0.02,"intermediate_size":14336,)"
     R"("max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama",)"
     R"("num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,)"
     R"("pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":{"factor":8.0,)"
     R"("low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192,)"
     R"("rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":false,)"
     R"("torch_dtype":"bfloat16","transformers_version":"4.42.3","use_cache":true,)"
     R"("vocab_size":128256})",
     R"({"bos_token_id":128000,"do_sample":true,"eos_token_id":[128001,128008,128009],)"
     R"("temperature":0.6,"top_p":0.9,"transformers_version":"4.42.3"})"},
    {"Llama-3.2-1B",
     R"({"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,)"
     R"("bos_token_id":128000,"eos_token_id":128001,"head_dim":64,"hidden_act":"silu",)"
     R"("hidden_size":2048,"initializer_range":0.02,"intermediate_size":8192,)"
     R"("max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama",)"
     R"("num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,)"
     R"("pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":{"factor":32.0,)"
     R"("high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,)"
     R"("rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":true,)"
     R"("torch_dtype":"bfloat16","transformers_version":"4.45.0.dev0","use_cache":true,)"
     R"("vocab_size":128256})",
     ""},
    {"SmolLM2-135M-Instruct",
     R"({"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,)"
     R"("bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":576,)"
     R"("initializer_range":0.041666666666666664,"intermediate_size":1536,)"
     R"("is_llama_config":true,"max_position_embeddings":8192,"mlp_bias":false,)"
     R"("model_type":"llama","num_attention_heads":9,"num_hidden_layers":30,)"
     R"("num_key_value_heads":3,"pad_token_id":2,"pretraining_tp":1,"rms_norm_eps":1e-05,)"
     R"("rope_interleaved":false,"rope_scaling":null,"rope_theta":100000,)"
     R"("tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.42.3",)"
     R"("transformers.js_config":{"kv_cache_dtype":{"q4f16":"float16","fp16":"float16"}},)"
     R"("use_cache":true,"vocab_size":49152})",
     ""},
    {"Mistral-7B-v0.1",
     R"({"architectures":["MistralForCausalLM"],"bos_token_id":1,"eos_token_id":2,)"
     R"("hidden_act":"silu","hidden_size":4096,"initializer_range":0.02,)"
     R"("intermediate_size":14336,"max_position_embeddings":32768,"model_type":"mistral",)"
     R"("num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,)"
     R"("rms_norm_eps":1e-05,"rope_theta":10000.0,"sliding_window":4096,)"
     R"("tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.34.0.dev0",)"
     R"("use_cache":true,"vocab_size":32000})",
     R"({"_from_model_config":true,"bos_token_id":1,"eos_token_id":2,)"
     R"("transformers_version":"4.34.0.dev0"})"},
    {"Mistral-7B-Instruct-v0.3",
     R"({"architectures":["MistralForCausalLM"],"attention_dropout":0.0,"bos_token_id":1,)"
     R"("eos_token_id":2,"hidden_act":"silu","hidden_size":4096,"initializer_range":0.02,)"
     R"("intermediate_size":14336,"max_position_embeddings":32768,"model_type":"mistral",)"
     R"("num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,)"
     R"("rms_norm_eps":1e-05,"rope_theta":1000000.0,"sliding_window":null,)"
     R"("tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.42.0.dev0",)"
     R"("use_cache":true,"vocab_size":32768})",
     ""},
    {"Ministral-8B-Instruct-2410",
     R"({"architectures":["MistralForCausalLM"],"attention_dropout":0.0,"bos_token_id":1,)"
     R"("eos_token_id":2,"head_dim":128,"hidden_act":"silu","hidden_size":4096,)"
     R"("initializer_range":0.02,"intermediate_size":12288,"max_position_embeddings":32768,)"
     R"("model_type":"mistral","num_attention_heads":32,"num_hidden_layers":36,)"
     R"("num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":100000000.0,)"
     R"("sliding_window":32768,"tie_word_embeddings":false,"torch_dtype":"bfloat16",)"
     R"("transformers_version":"4.46.0.dev0","use_cache":true,"vocab_size":131072})",
     ""},
    {"Qwen2.5-7B-Instruct",
     R"({"architectures":["Qwen2ForCausalLM"],"attention_dropout":0.0,"bos_token_id":151643,)"
     R"("eos_token_id":151645,"hidden_act":"silu","hidden_size":3584,"initializer_range":0.02,)"
     R"("intermediate_size":18944,"max_position_embeddings":32768,"max_window_layers":28,)"
     R"("model_type":"qwen2","num_attention_heads":28,"num_hidden_layers":28,)"
     R"("num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_theta":1000000.0,)"
     R"("sliding_window":131072,"tie_word_embeddings":false,"torch_dtype":"bfloat16",)"
     R"("transformers_version":"4.43.1","use_cache":true,"use_sliding_window":false,)"
     R"("vocab_size":152064})",
     R"({"bos_token_id":151643,"pad_token_id":151643,"do_sample":true,)"
     R"("eos_token_id":[151645,151643],"repetition_penalty":1.05,"temperature":0.7,"top_p":0.8,)"
     R"("top_k":20,"transformers_version":"4.37.0"})"},
    {"Qwen2.5-14B-Instruct with yarn",
     R"({"architectures":["Qwen2ForCausalLM"],"attention_dropout":0.0,"bos_token_id":151643,)"
     R"("eos_token_id":151645,"hidden_act":"silu","hidden_size":5120,"initializer_range":0.02,)"
     R"("intermediate_size":13824,"max_position_embeddings":32768,"max_window_layers":70,)"
     R"("model_type":"qwen2","num_attention_heads":40,"num_hidden_layers":48,)"
     R"("num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_theta":1000000.0,)"
     R"("sliding_window":131072,"tie_word_embeddings":false,"torch_dtype":"bfloat16",)"
     R"("transformers_version":"4.43.1","use_cache":true,"use_sliding_window":false,)"
     R"("vocab_size":152064,"rope_scaling":{"factor":4.0,)"
     R"("original_max_position_embeddings":32768,"type":"yarn"}})",
     ""},
    {"DeepSeek-R1-Distill-Qwen-7B",
     R"({"architectures":["Qwen2ForCausalLM"],"attention_dropout":0.0,"bos_token_id":151643,)"
     R"("eos_token_id":151643,"hidden_act":"silu","hidden_size":3584,"initializer_range":0.02,)"
     R"("intermediate_size":18944,"max_position_embeddings":131072,"max_window_layers":28,)"
     R"("model_type":"qwen2","num_attention_heads":28,"num_hidden_layers":28,)"
     R"("num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_theta":10000,"sliding_window":4096,)"
     R"("tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.44.0",)"
     R"("use_cache":true,"use_mrope":false,"use_sliding_window":false,"vocab_size":152064})",
     R"({"_from_model_config":true,"bos_token_id":151646,"eos_token_id":151643,)"
     R"("do_sample":true,"temperature":0.6,"top_p":0.95,"transformers_version":"4.39.3"})"},
    {"Qwen3-8B",
     R"({"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,)"
     R"("bos_token_id":151643,"eos_token_id":151645,"head_dim":128,"hidden_act":"silu",)"
     R"("hidden_size":4096,"initializer_range":0.02,"intermediate_size":12288,)"
     R"("max_position_embeddings":40960,"max_window_layers":36,"model_type":"qwen3",)"
     R"("num_attention_heads":32,"num_hidden_layers":36,"num_key_value_heads":8,)"
     R"("rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000,"sliding_window":null,)"
     R"("tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.51.0",)"
     R"("use_cache":true,"use_sliding_window":false,"vocab_size":151936})",
     R"({"bos_token_id":151643,"do_sample":true,"eos_token_id":[151645,151643],)"
     R"("pad_token_id":151643,"temperature":0.6,"top_k":20,"top_p":0.95,)"
     R"("transformers_version":"4.51.0"})"},
};

ModelConfig Read(const std::string& name) {
  for (const Published& published : kPublished) {
    if (name != published.name) continue;
    const auto config = ParseHfConfig(published.config, published.generation);
    INFO(name << ": " << config.status());
    REQUIRE(config.ok());
    return *config;
  }
  FAIL(name << " is not in the table");
  return {};
}

TEST_CASE("every published configuration is read", "[model][config]") {
  for (const Published& published : kPublished) Read(published.name);
}

TEST_CASE("published Llamas have their heads, scaling and end tokens", "[model][config]") {
  const ModelConfig llama31 = Read("Llama-3.1-8B-Instruct");
  CHECK(llama31.head_dim == 128);
  CHECK(llama31.rope_scaling.kind == RopeScaling::Kind::kLlama3);
  CHECK(llama31.rope_scaling.original_max_position == 8192);
  CHECK(llama31.max_position == 131072);
  CHECK(llama31.eos_ids == std::vector<int32_t>{128001, 128008, 128009});
  CHECK(llama31.sampling_defaults.temperature == 0.6f);
  CHECK(llama31.sampling_defaults.top_p == 0.9f);
  CHECK_FALSE(llama31.sampling_defaults.top_k.has_value());
  CHECK_FALSE(llama31.has_qkv_bias);
  CHECK(llama31.layer_windows.empty());
  const ModelConfig llama32 = Read("Llama-3.2-1B");
  CHECK(llama32.tied_head);
  CHECK(llama32.head_dim == 64);
  CHECK(llama32.rope_scaling.factor == 32);
  CHECK(Read("SmolLM2-135M-Instruct").kv_heads == 3);
}

TEST_CASE("published Mistrals have the windows of their version", "[model][config]") {
  const ModelConfig first = Read("Mistral-7B-v0.1");
  CHECK(first.layer_windows == std::vector<int64_t>(32, 4096));
  CHECK(Read("Mistral-7B-Instruct-v0.3").layer_windows.empty());
  const ModelConfig ministral = Read("Ministral-8B-Instruct-2410");
  CHECK(ministral.layer_windows == std::vector<int64_t>(36, 32768));
  CHECK(ministral.rope_theta == 1e8);
  CHECK_FALSE(ministral.sampling_defaults.temperature.has_value());
}

TEST_CASE("published Qwens have biases or norms, and no window that is switched off",
          "[model][config]") {
  const ModelConfig qwen2 = Read("Qwen2.5-7B-Instruct");
  CHECK(qwen2.has_qkv_bias);
  CHECK_FALSE(qwen2.has_out_bias);
  CHECK_FALSE(qwen2.has_qk_norm);
  CHECK(qwen2.layer_windows.empty());
  CHECK(qwen2.eos_ids == std::vector<int32_t>{151645, 151643});
  CHECK(qwen2.sampling_defaults.repetition_penalty == 1.05f);
  CHECK(qwen2.sampling_defaults.top_k == 20);
  const ModelConfig r1 = Read("DeepSeek-R1-Distill-Qwen-7B");
  CHECK(r1.layer_windows.empty());
  CHECK(r1.rope_theta == 10000);
  CHECK(r1.bos_id == 151646);
  const ModelConfig qwen3 = Read("Qwen3-8B");
  CHECK(qwen3.has_qk_norm);
  CHECK_FALSE(qwen3.has_qkv_bias);
  CHECK(qwen3.qkv_width() == (32 + 16) * 128);
}

TEST_CASE("yarn reaches beyond the context that the file names", "[model][config]") {
  const ModelConfig qwen = Read("Qwen2.5-14B-Instruct with yarn");
  CHECK(qwen.rope_scaling.kind == RopeScaling::Kind::kYarn);
  CHECK(qwen.rope_scaling.factor == 4);
  CHECK(qwen.rope_scaling.original_max_position == 32768);
  CHECK(qwen.rope_scaling.attention_factor == Approx(1.1386294).epsilon(1e-7));
  CHECK(qwen.max_position == 131072);
}

}  // namespace
}  // namespace fastgen
