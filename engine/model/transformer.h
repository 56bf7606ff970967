// Transformer: the layers of a model of the Llama kind as a sequence of backend ops.
//
//   x = embedding[ids]
//   every layer:  q, k, v = Wqkv norm(x) (+ bias);  q, k = norm(q), norm(k) per head (Qwen3)
//                 x += Wo attention(rope(q), rope(k), v) (+ bias), windowed as the layer says
//                 x += Wdown (silu(Wgate norm(x)) * Wup norm(x))
//   logits = Whead norm(x)
// A layer's KV moves are issued just before the layer, so that a device may copy the next layer's
// pages while it computes this one.
// The residual stream has the activations' dtype. Nothing here waits for the device.
// Of the last layer, what follows the keys and values is computed for rows whose logits are asked
// for: most rows of a prompt end there.
// Thread rule: the thread that owns the backend.
// Tested by tests/engine/model/forward_test.cc against goldens and tests/testing/reference_forward.
#pragma once

#include "absl/status/statusor.h"
#include "engine/model/host_kv_cache.h"
#include "engine/model/kv_cache.h"
#include "engine/model/kv_moves.h"
#include "engine/model/memory_plan.h"
#include "engine/model/model_config.h"
#include "engine/model/step_inputs.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"
#include "kernels/backend.h"

namespace fastgen {

class Transformer {
 public:
  // Takes workspace and KV memory as planned and has the backend reserve its scratch.
  static absl::StatusOr<Transformer> Create(Backend* backend, ModelConfig config, Weights weights,
                                            const MemoryPlan& plan);

  // Moves the step's KV blocks, writes the keys and values of every row and computes the hidden
  // state of its logit rows. A step may be moves alone.
  void Forward(const StepInputs& inputs);

  // Moves blocks of all layers.
  void MoveBlocks(const KvMoves& moves);

  // Logits of inputs.logit_rows()[begin, begin + count); overwritten by the next call.
  // REQUIRES: `inputs` were the last Forward's; 1 <= count <= max_logit_rows().
  Tensor Logits(const StepInputs& inputs, int64_t begin,
                int64_t count);  // returns [count, vocab] f32

  int64_t max_logit_rows() const { return workspace_.logits.rows(); }
  const ModelConfig& config() const { return config_; }
  const KvCache& cache() const { return cache_; }

 private:
  Transformer(Backend* backend, ModelConfig config, Weights weights, Workspace workspace,
              KvCache cache, HostKvCache host_cache);

  // RMSNorm of x, on its way into a product.
  MatMulInput Normed(Tensor x, const std::unique_ptr<Buffer>& weight) const;
  void MoveLayer(int64_t index, const KvMoves& moves);
  void RunLayer(int64_t index, const StepInputs& inputs);
  // q, k and v of the rows, as attention wants them, into workspace and cache.
  void ComputeQkv(int64_t index, const StepInputs& inputs);
  // Everything of a layer behind its attention.
  void FinishLayer(const LayerWeights& layer,
                   Tensor attention,  // [rows, q_heads * head_dim] activations
                   Tensor x);         // [rows, hidden] activations
  // The same of the last layer, for the logit rows alone; they are hidden_ afterwards.
  void FinishLogitRows(const LayerWeights& layer, absl::Span<const int32_t> rows,
                       Tensor attention);  // [all rows, q_heads * head_dim] activations

  Backend* backend_;
  ModelConfig config_;
  Weights weights_;
  Workspace workspace_;
  KvCache cache_;
  HostKvCache host_cache_;
  int64_t num_rows_ = 0;  // of the last Forward
  Tensor hidden_;         // [num_rows_ or logit rows, hidden] of the last Forward, before the norm
};

}  // namespace fastgen
