// Workspace: the activations of one step, taken once, sized by the plan.
//
// One tensor a role rather than a pool: the sizes follow from the model, the sum is the plan's
// workspace_bytes to the byte, and a reader sees what is alive. T = max_num_batched_tokens,
// L = max_logit_rows.
// Thread rule: the thread that owns the backend.
// Tested by tests/engine/model/memory_plan_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "kernels/backend.h"

namespace fastgen {

struct MemoryPlan;

class Workspace {
 public:
  // What Create will allocate.
  static int64_t Bytes(const ModelConfig& config, DType activation_dtype, const MemoryPlan& plan);
  static absl::StatusOr<Workspace> Create(const ModelConfig& config, const MemoryPlan& plan,
                                          Backend* backend);

  Tensor residual;     // [T, hidden] activations
  Tensor logit_rows;   // [T, hidden] activations: what becomes logits, gathered in the last layer
  Tensor qkv;          // [T, qkv_width] activations
  Tensor attention;    // [T, q_heads * head_dim] activations
  Tensor gate_up;      // [T, 2 * ffn] activations
  Tensor logit_input;  // [L, hidden] activations
  Tensor logits;       // [L, vocab] f32
  Tensor cos_sin;      // [max_model_len, head_dim] f32

 private:
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

}  // namespace fastgen
