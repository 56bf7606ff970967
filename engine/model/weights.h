// Weights: a model's parameters on a device, in the arrangement that the backend's kernels want.
//
// q, k and v are stacked into one matrix, gate and up into another, so that a layer takes four
// products. A tied head is the embedding's matrix itself. Each tensor is read from the mapping
// once, packed, and its pages are dropped: at no time does a second copy of the model stay
// resident. Vectors (norms, biases) become fp32; the biases of q, k and v are stacked as their rows
// are.
// The identity of a set of weights is Checkpoint::Hash(), which says what it covers.
// Thread rule: LoadWeights from the thread that owns the backend; immutable afterwards.
// Tested by tests/engine/model/weights_test.cc and the goldens of forward_test.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/checkpoint.h"
#include "kernels/backend.h"

namespace fastgen {

struct LayerWeights {
  std::unique_ptr<Buffer> attention_norm;       // [hidden] f32
  std::unique_ptr<PackedMatrix> qkv;            // [qkv_width, hidden]
  std::unique_ptr<Buffer> qkv_bias;             // [qkv_width] f32; null: none
  std::unique_ptr<Buffer> q_norm;               // [head_dim] f32; null: none
  std::unique_ptr<Buffer> k_norm;               // [head_dim] f32; null: none
  std::unique_ptr<PackedMatrix> attention_out;  // [hidden, q_heads * head_dim]
  std::unique_ptr<Buffer> attention_out_bias;   // [hidden] f32; null: none
  std::unique_ptr<Buffer> ffn_norm;             // [hidden] f32
  std::unique_ptr<PackedMatrix> gate_up;        // [2 * ffn, hidden]
  std::unique_ptr<PackedMatrix> down;           // [hidden, ffn]
};

struct Weights {
  std::unique_ptr<PackedMatrix> embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  std::unique_ptr<Buffer> final_norm;         // [hidden] f32
  std::unique_ptr<PackedMatrix> untied_head;  // [vocab, hidden]; null: the embedding

  const PackedMatrix& head() const { return untied_head != nullptr ? *untied_head : *embedding; }
  // Device memory that they hold.
  int64_t bytes() const;
};

// RESOURCE_EXHAUSTED with both figures when the device has less than the weights need free;
// otherwise the backend's errors, with the tensor's name. `progress` may be empty; it gets bytes of
// the file, at least every 64 MiB, and ends at (total, total).
//
// Matrices become `form` as they are packed; vectors (norms, biases) are fp32 always. Embedding and
// head, which are one matrix where the head is tied, keep 8 bits with the same groups where `form`
// has 4. fp8 is for the feed-forward matrices of all layers but the first and the last: the rest is
// bf16.
absl::StatusOr<Weights> LoadWeights(
    const Checkpoint& checkpoint, Backend* backend,
    const std::function<void(int64_t done_bytes, int64_t total_bytes)>& progress,
    WeightForm form = WeightForm::kAsStored);

// What the weights are for people: "Q4_1", "bf16", "int4 (from bf16)".
std::string DescribeWeights(const Checkpoint& checkpoint, WeightForm form);

}  // namespace fastgen
