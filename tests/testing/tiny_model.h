// TinyModel: a small random model of any architecture that the engine runs, made from a seed and
// written as a Hugging Face directory or a GGUF file, so that a clone alone can load both and
// compute with them.
//
// The same seed gives the same weights in every format that stores them exactly. Block types get
// random blocks instead (their values are whatever the blocks mean). Weights are scaled so that
// logits are peaked and the next token depends on the context.
// Thread rule: value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model_config.h"
#include "tests/testing/weight_file_writer.h"

namespace fastgen::testing {

struct TinyModel {
  // Sizes, biases, windows, tied_head and rope_scaling may be changed before writing, as far as the
  // format can say it.
  ModelConfig config;
  DType matrix_dtype = DType::kF32;
  DType embedding_dtype = DType::kF32;  // and the untied head's
  uint64_t seed = 1;

  // A Llama: hidden 64, 2 layers, 4 / 2 heads of 16, ffn 96, vocabulary 80, context 256.
  TinyModel();
  // The same with what is particular to an architecture ("Qwen3ForCausalLM"): biases, norms of q
  // and k, heads of their own size, windows of 24, yarn.
  static TinyModel Of(std::string_view architecture);

  // Every tensor by its Hugging Face name, rows in Hugging Face's order.
  std::vector<FileTensor> Tensors() const;

  std::string ConfigJson() const;
  // config.json, generation_config.json, model.safetensors. REQUIRES: dtypes F32, F16 or BF16.
  void WriteDirectory(const std::filesystem::path& directory) const;
  // The same in num_files files and an index.
  void WriteSharded(const std::filesystem::path& directory, int num_files) const;

  // Metadata and tensors; for a Llama or Mistral the rows of q and k are in GGUF's order. Hostile
  // tests add to it. REQUIRES: all layers have the same window.
  GgufWriter Gguf() const;
  void WriteGguf(const std::filesystem::path& path) const;
};

}  // namespace fastgen::testing
