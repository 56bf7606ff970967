#include "tests/testing/tiny_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/strings.h"
#include "engine/model/rope_table.h"
#include "engine/model/weight_names.h"
#include "tests/testing/block_scales.h"

namespace fastgen::testing {
namespace {

// splitmix64: small, and the same everywhere, unlike the standard library's distributions.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Uniform in [-1, 1) on a grid of 2^-6, which every float type here stores exactly.
  float Coarse() { return static_cast<float>(static_cast<int>(Next() >> 57) - 64) / 64.0f; }

 private:
  uint64_t state_;
};

// FNV-1a.
uint64_t NameHash(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

uint16_t F16Bits(float value) {
  // Only for values that are normal and exact in f16.
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) == 0) return static_cast<uint16_t>(bits >> 16);
  const uint32_t exponent = ((bits >> 23) & 0xff) - 112;
  CHECK(exponent >= 1 && exponent <= 30 && (bits & 0x1fff) == 0) << value;
  return static_cast<uint16_t>(((bits >> 16) & 0x8000) | (exponent << 10) | ((bits >> 13) & 0x3ff));
}

std::string Element(float value, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return LittleEndian(value);
    case DType::kF16:
      return LittleEndian(F16Bits(value));
    case DType::kBF16:
      CHECK_EQ(std::bit_cast<uint32_t>(value) & 0xffff, 0u);
      return LittleEndian(static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16));
    default:
      CHECK(false) << Info(dtype).name;
  }
  return "";
}

std::string RandomBytes(Random* random, int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i) bytes.push_back(static_cast<char>(random->Next() >> 56));
  return bytes;
}

// What a block's scales multiply (integers, and the scales of a K type) deviates by about 2^this.
int IntegerDeviationLog2(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ4_1: return 2;
    case DType::kQ5_0:
    case DType::kQ5_1: return 3;
    case DType::kQ8_0:
    case DType::kIQ4_NL: return 6;
    case DType::kQ2_K: return 4;
    case DType::kQ3_K: return 5;
    case DType::kQ6_K: return 7;
    case DType::kQ4_K: return 8;
    case DType::kQ5_K: return 9;
    case DType::kIQ4_XS: return 10;
    default: CHECK(false) << Info(dtype).name;
  }
}

// One block whose values have a standard deviation near `deviation`, a power of two: random bits,
// but for f16 scales, and for scales that would be too wild.
std::string RandomBlock(Random* random, DType dtype, float deviation) {
  const DTypeInfo info = Info(dtype);
  std::string block = RandomBytes(random, info.block_bytes);
  if (dtype == DType::kQ6_K) {
    for (size_t i = 192; i < 208; ++i) {
      // Scales of both signs in [4, 11].
      const int scale = static_cast<int>(4 + (random->Next() >> 61));
      block[i] = static_cast<char>(random->Next() >> 63 ? scale : -scale);
    }
  }
  const float d = std::ldexp(deviation, -IntegerDeviationLog2(dtype));
  // A minimum that takes the integers' middle back: m of Q4_1 and Q5_1 is added, that of K types is
  // times another scale of the same kind and subtracted.
  const float m = dtype == DType::kQ4_1   ? -7.5f * d
                  : dtype == DType::kQ5_1 ? -15.5f * d
                  : dtype == DType::kQ2_K ? 1.5f * d
                  : dtype == DType::kQ4_K ? 7.5f * d
                                          : 15.5f * d;
  const std::vector<int> offsets = BlockScaleOffsets(dtype);
  block.replace(static_cast<size_t>(offsets[0]), 2, LittleEndian(F16Bits(d)));
  if (offsets.size() > 1) {
    block.replace(static_cast<size_t>(offsets[1]), 2, LittleEndian(F16Bits(m)));
  }
  return block;
}

std::string MatrixBytes(Random* random, DType dtype, int64_t elements, float deviation) {
  std::string bytes;
  if (IsBlockType(dtype)) {
    for (int64_t i = 0; i < elements; i += Info(dtype).block_elements) {
      bytes += RandomBlock(random, dtype, deviation);
    }
  } else {
    for (int64_t i = 0; i < elements; ++i)
      bytes += Element(random->Coarse() * 2 * deviation, dtype);
  }
  return bytes;
}

// Rows of q and k as GGUF has them: row h * d + 2 * i + half is ours h * d + half * d/2 + i.
std::string GgufRowOrder(const FileTensor& tensor, int64_t head_dim) {
  const int64_t rows = tensor.shape[0];
  const size_t row_bytes = tensor.bytes.size() / static_cast<size_t>(rows);
  std::string bytes;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t in_head = row % head_dim;
    const int64_t source = row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
    bytes += tensor.bytes.substr(static_cast<size_t>(source) * row_bytes, row_bytes);
  }
  return bytes;
}

std::string GgufName(std::string_view hf_name) {
  return absl::StrReplaceAll(ToAbsl(hf_name), {{"model.embed_tokens", "token_embd"},
                                               {"model.norm", "output_norm"},
                                               {"lm_head", "output"},
                                               {"model.layers.", "blk."},
                                               {"input_layernorm", "attn_norm"},
                                               {"post_attention_layernorm", "ffn_norm"},
                                               {"self_attn.q_norm", "attn_q_norm"},
                                               {"self_attn.k_norm", "attn_k_norm"},
                                               {"self_attn.q_proj", "attn_q"},
                                               {"self_attn.k_proj", "attn_k"},
                                               {"self_attn.v_proj", "attn_v"},
                                               {"self_attn.o_proj", "attn_output"},
                                               {"mlp.gate_proj", "ffn_gate"},
                                               {"mlp.up_proj", "ffn_up"},
                                               {"mlp.down_proj", "ffn_down"}});
}

// What stands before "ForCausalLM", in lower case: config.json's model_type.
std::string ModelType(const std::string& architecture) {
  return absl::AsciiStrToLower(architecture.substr(0, architecture.find("ForCausalLM")));
}

// Fields of config.json about windows, each with a comma before it.
std::string WindowFields(const ModelConfig& config) {
  if (config.layer_windows.empty()) return "";
  const auto first = std::find_if(config.layer_windows.begin(), config.layer_windows.end(),
                                  [](int64_t window) { return window != 0; });
  std::string fields = absl::StrCat(R"(,"sliding_window":)", *first);
  if (absl::StartsWith(config.architecture, "Qwen")) {
    absl::StrAppend(&fields, R"(,"use_sliding_window":true,"max_window_layers":)",
                    first - config.layer_windows.begin());
  } else if (config.architecture == "MinistralForCausalLM") {
    std::vector<std::string> types;
    for (int64_t window : config.layer_windows) {
      types.push_back(window == 0 ? "\"full_attention\"" : "\"sliding_attention\"");
    }
    absl::StrAppend(&fields, R"(,"layer_types":[)", absl::StrJoin(types, ","), "]");
  }
  return fields;
}

}  // namespace

TinyModel TinyModel::Of(std::string_view architecture) {
  TinyModel tiny;
  ModelConfig& config = tiny.config;
  config.architecture = architecture;
  config.num_layers = 3;
  if (architecture == "LlamaForCausalLM") {
    config.has_qkv_bias = config.has_out_bias = true;
  } else if (architecture == "MistralForCausalLM") {
    config.head_dim = 32;
    config.layer_windows = {24, 24, 24};
  } else if (architecture == "MinistralForCausalLM") {
    config.layer_windows = {24, 0, 24};
  } else if (architecture == "Qwen2ForCausalLM") {
    config.has_qkv_bias = true;
    config.rope_scaling.kind = RopeScaling::Kind::kYarn;
    config.rope_scaling.factor = 4;
    config.rope_scaling.original_max_position = 64;
    config.rope_scaling.attention_factor = YarnAttentionFactor(4, 1);
  } else {
    CHECK(architecture == "Qwen3ForCausalLM") << architecture;
    config.has_qk_norm = true;
    config.head_dim = 32;
    config.layer_windows = {0, 24, 24};
  }
  return tiny;
}

TinyModel::TinyModel() {
  config.architecture = "LlamaForCausalLM";
  config.name = "tiny";
  config.hidden = 64;
  config.ffn = 96;
  config.num_layers = 2;
  config.q_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.vocab = 80;
  config.max_position = 256;
  config.rope_theta = 10000;
  config.bos_id = 0;
  config.eos_ids = {1};
}

std::vector<FileTensor> TinyModel::Tensors() const {
  std::vector<FileTensor> tensors;
  for (const TensorSpec& spec : RequiredTensors(config)) {
    FileTensor tensor;
    tensor.name = spec.name;
    tensor.shape = spec.shape;
    // Every tensor has its own stream, so that one that is added moves no other.
    Random random(seed ^ NameHash(spec.name));
    if (spec.shape.size() == 1) {
      tensor.dtype = DType::kF32;
      const bool is_bias = absl::EndsWith(spec.name, ".bias");
      for (int64_t i = 0; i < spec.shape[0]; ++i) {
        tensor.bytes += LittleEndian(is_bias ? random.Coarse() : 1 + random.Coarse() / 4);
      }
    } else {
      const bool is_vocab = spec.name == kEmbeddingName || spec.name == kHeadName;
      tensor.dtype = is_vocab ? embedding_dtype : matrix_dtype;
      // Near 1.5 / sqrt(cols), as a power of two; the head a little larger for peaked logits.
      const double target = (is_vocab ? 3.0 : 1.5) / std::sqrt(static_cast<double>(spec.shape[1]));
      const float deviation = static_cast<float>(std::exp2(std::round(std::log2(target))));
      tensor.bytes = MatrixBytes(&random, tensor.dtype, spec.shape[0] * spec.shape[1], deviation);
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::string TinyModel::ConfigJson() const {
  std::string scaling = "null";
  const RopeScaling& rope = config.rope_scaling;
  if (rope.kind == RopeScaling::Kind::kLinear) {
    scaling = absl::StrCat(R"({"rope_type":"linear","factor":)", rope.factor, "}");
  } else if (rope.kind == RopeScaling::Kind::kLlama3) {
    scaling =
        absl::StrCat(R"({"rope_type":"llama3","factor":)", rope.factor, R"(,"low_freq_factor":)",
                     rope.low_freq_factor, R"(,"high_freq_factor":)", rope.high_freq_factor,
                     R"(,"original_max_position_embeddings":)", rope.original_max_position, "}");
  } else if (rope.kind == RopeScaling::Kind::kYarn) {
    scaling =
        absl::StrCat(R"({"type":"yarn","factor":)", rope.factor,
                     R"(,"original_max_position_embeddings":)", rope.original_max_position, "}");
  }
  return absl::StrCat(R"({"architectures":[")", config.architecture, R"("],"model_type":")",
                      ModelType(config.architecture), R"(","hidden_act":"silu",)",
                      R"("hidden_size":)", config.hidden, R"(,"intermediate_size":)", config.ffn,
                      R"(,"num_hidden_layers":)", config.num_layers, R"(,"num_attention_heads":)",
                      config.q_heads, R"(,"num_key_value_heads":)", config.kv_heads,
                      R"(,"head_dim":)", config.head_dim, R"(,"vocab_size":)", config.vocab,
                      R"(,"max_position_embeddings":)", config.max_position, R"(,"rms_norm_eps":)",
                      config.rms_eps, R"(,"rope_theta":)", config.rope_theta, R"(,"rope_scaling":)",
                      scaling, R"(,"tie_word_embeddings":)", config.tied_head ? "true" : "false",
                      config.has_out_bias ? R"(,"attention_bias":true)" : "", WindowFields(config),
                      R"(,"bos_token_id":0,"eos_token_id":1})");
}

void TinyModel::WriteDirectory(const std::filesystem::path& directory) const {
  WriteFile(directory / "config.json", ConfigJson());
  WriteFile(directory / "generation_config.json", R"({"eos_token_id":[1,2]})");
  WriteFile(directory / "model.safetensors", SafetensorsBytes(Tensors()));
}

void TinyModel::WriteSharded(const std::filesystem::path& directory, int num_files) const {
  WriteFile(directory / "config.json", ConfigJson());
  const std::vector<FileTensor> tensors = Tensors();
  std::vector<std::vector<FileTensor>> files(static_cast<size_t>(num_files));
  std::vector<std::string> entries;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const size_t file = i * files.size() / tensors.size();
    files[file].push_back(tensors[i]);
    entries.push_back(absl::StrCat("\"", tensors[i].name, "\":\"part-", file, ".safetensors\""));
  }
  for (size_t i = 0; i < files.size(); ++i) {
    WriteFile(directory / absl::StrCat("part-", i, ".safetensors"), SafetensorsBytes(files[i]));
  }
  WriteFile(directory / "model.safetensors.index.json",
            absl::StrCat(R"({"metadata":{"total_size":1},"weight_map":{)",
                         absl::StrJoin(entries, ","), "}}"));
}

GgufWriter TinyModel::Gguf() const {
  const std::string type = ModelType(config.architecture);
  const bool is_llama = !absl::StartsWith(type, "qwen");
  const std::string prefix = is_llama ? "llama." : type + ".";
  GgufWriter writer;
  const auto u32 = [&](const char* key, int64_t value) {
    writer.U32(prefix + key, static_cast<uint32_t>(value));
  };
  const auto f32 = [&](const char* key, double value) {
    writer.F32(prefix + key, static_cast<float>(value));
  };
  writer.String("general.architecture", is_llama ? "llama" : type);
  writer.String("general.name", config.name);
  u32("block_count", config.num_layers);
  u32("context_length", config.max_position);
  u32("embedding_length", config.hidden);
  u32("feed_forward_length", config.ffn);
  u32("attention.head_count", config.q_heads);
  u32("attention.head_count_kv", config.kv_heads);
  u32("attention.key_length", config.head_dim);
  u32("attention.value_length", config.head_dim);
  writer.F32(prefix + "attention.layer_norm_rms_epsilon", config.rms_eps);
  f32("rope.freq_base", config.rope_theta);
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind == RopeScaling::Kind::kLinear || scaling.kind == RopeScaling::Kind::kYarn) {
    const bool is_yarn = scaling.kind == RopeScaling::Kind::kYarn;
    writer.String(prefix + "rope.scaling.type", is_yarn ? "yarn" : "linear");
    f32("rope.scaling.factor", scaling.factor);
    if (is_yarn) {
      u32("rope.scaling.original_context_length",
          static_cast<int64_t>(scaling.original_max_position));
    }
  }
  if (!config.layer_windows.empty()) u32("attention.sliding_window", config.window(0));
  writer.U32("tokenizer.ggml.bos_token_id", 0);
  writer.U32("tokenizer.ggml.eos_token_id", 1);
  for (FileTensor& tensor : Tensors()) {
    if (is_llama &&
        (absl::StrContains(tensor.name, "q_proj") || absl::StrContains(tensor.name, "k_proj"))) {
      tensor.bytes = GgufRowOrder(tensor, config.head_dim);
    }
    tensor.name = GgufName(tensor.name);
    writer.Tensor(tensor);
  }
  return writer;
}

void TinyModel::WriteGguf(const std::filesystem::path& path) const {
  WriteFile(path, Gguf().Bytes());
}

}  // namespace fastgen::testing
