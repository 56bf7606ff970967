// Checkpoint: one view over a model's files, whatever their format: its configuration and its
// tensors by Hugging Face name, mapped, not copied.
//
// Open is the preflight: when it returns OK, every tensor that the model needs is there, in its
// shape, and nothing is there that the model has no use for. The first thing that is wrong is
// named, before any weight is read.
//
// GGUF orders the rows of the query and key weights so that RoPE turns neighbouring pairs; this
// engine turns the first half of a head against the second. Row h * d + half * d/2 + i of ours is
// row h * d + 2 * i + half of the file (d = head_dim), of the weights and of their biases. Only
// files of the architecture "llama" have that order. Matrix() carries it; no element is touched.
// Thread rule: immutable after Open; DropPages from the loading thread.
// Tested by tests/engine/model/checkpoint_test.cc.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/model/gguf.h"
#include "engine/model/model_config.h"
#include "engine/model/safetensors.h"
#include "engine/model/stored_tensor.h"
#include "kernels/backend.h"

namespace fastgen {

class Checkpoint {
 public:
  // `path`: a directory with config.json and safetensors, or a .gguf file. Errors are one sentence
  // that opens with the path of the file at fault.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& path);
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  const ModelConfig& config() const { return config_; }
  const GgufFile* gguf() const { return gguf_.has_value() ? &*gguf_ : nullptr; }
  const std::string& path() const { return path_; }

  // A tensor that the model needs. REQUIRES: `name` is one of RequiredTensors(config()).
  const StoredTensor& Tensor(std::string_view name) const;
  // The same as a source for Backend::PackMatrix, rows in this engine's order. REQUIRES: two
  // dimensions.
  MatrixSource Matrix(std::string_view name) const;
  // Which row (of a vector: element) of the stored tensor each of ours is; empty: the same.
  absl::Span<const int32_t> RowOrder(std::string_view name) const;

  // Of the tensors that the model needs.
  int64_t total_bytes() const { return total_bytes_; }
  // The type that most bytes have: "Q4_1", "bf16", ...
  std::string dtype_name() const;
  // 32 hex digits that tell checkpoints apart: of every needed tensor, in order of name, its name,
  // dtype and shape and three runs of at most 4096 bytes (first, middle, last). Not cryptographic.
  std::string Hash() const;

  // The tensor was packed: its pages need not stay resident.
  void DropPages(const StoredTensor& tensor) const { MappedFile::DropPages(tensor.span()); }

 private:
  Checkpoint() = default;
  absl::Status OpenDirectory();
  absl::Status OpenGguf();
  // Enters a file's tensor under its Hugging Face name.
  absl::Status Add(const std::string& name, const StoredTensor& tensor);
  // Path of the file that holds one of tensors_.
  const std::string& FileOf(const StoredTensor& tensor) const;
  // Compares what the files have with what the model needs.
  absl::Status Preflight();

  std::string path_;
  ModelConfig config_;
  std::optional<GgufFile> gguf_;
  std::optional<SafetensorsSet> safetensors_;
  absl::flat_hash_map<std::string, const StoredTensor*> tensors_;  // by Hugging Face name
  int64_t total_bytes_ = 0;
  std::vector<int32_t> q_row_order_;  // empty: as in the file
  std::vector<int32_t> k_row_order_;
};

}  // namespace fastgen
