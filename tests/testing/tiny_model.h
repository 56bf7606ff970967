// TinyModel: a small random Llama, made from a seed and written as a Hugging Face directory or a
// GGUF file, so that a clone alone can load both and compute with them.
//
// The same seed gives the same weights in every format that stores them exactly. Block types get
// random blocks instead (their values are whatever the blocks mean). Weights are scaled so that
// logits are peaked and the next token depends on the context.
// Thread rule: value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "tests/testing/weight_file_writer.h"

namespace fastgen::testing {

struct TinyModel {
  ModelConfig config;  // tied_head and rope_scaling may be changed before writing
  DType matrix_dtype = DType::kF32;
  DType embedding_dtype = DType::kF32;  // and the untied head's
  uint64_t seed = 1;

  // hidden 64, 2 layers, 4 / 2 heads of 16, ffn 96, vocabulary 80, context 256.
  TinyModel();

  // Every tensor by its Hugging Face name, rows in Hugging Face's order.
  std::vector<FileTensor> Tensors() const;

  std::string ConfigJson() const;
  // config.json, generation_config.json, model.safetensors. REQUIRES: dtypes F32, F16 or BF16.
  void WriteDirectory(const std::filesystem::path& directory) const;
  // The same in num_files files and an index.
  void WriteSharded(const std::filesystem::path& directory, int num_files) const;

  // Metadata and tensors, the rows of q and k in GGUF's order. Hostile tests add to it.
  GgufWriter Gguf() const;
  void WriteGguf(const std::filesystem::path& path) const;
};

}  // namespace fastgen::testing
