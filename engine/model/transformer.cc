#include "engine/model/transformer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace fastgen {
namespace {

AttentionShape ShapeOf(const ModelConfig& config, int64_t layer) {
  AttentionShape shape;
  shape.q_heads = config.q_heads;
  shape.kv_heads = config.kv_heads;
  shape.head_dim = config.head_dim;
  shape.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config.head_dim)));
  shape.window = config.window(layer);
  return shape;
}

// A norm's weight or a bias as a tensor; a null one where there is none.
Tensor VectorOf(const std::unique_ptr<Buffer>& buffer) {
  if (buffer == nullptr) return Tensor();
  return Tensor(buffer->data(), DType::kF32,
                {static_cast<int64_t>(buffer->bytes() / sizeof(float))});
}

}  // namespace

absl::StatusOr<Transformer> Transformer::Create(Backend* backend, ModelConfig config,
                                                Weights weights, const MemoryPlan& plan) {
  ASSIGN_OR_RETURN(Workspace workspace, Workspace::Create(config, plan, backend));
  ASSIGN_OR_RETURN(KvCache cache, KvCache::Create(config, plan, backend));
  ASSIGN_OR_RETURN(HostKvCache host_cache, HostKvCache::Create(config, plan, backend));
  Backend::Limits limits;
  limits.max_rows = plan.max_num_batched_tokens;
  limits.max_cols = std::max({config.hidden, config.ffn, config.q_heads * config.head_dim});
  limits.max_context = plan.max_model_len;
  limits.max_sequences = plan.max_num_seqs;
  limits.max_logit_rows = plan.max_logit_rows;
  limits.vocab = config.vocab;
  limits.attention = ShapeOf(config, 0);
  limits.block_size = plan.block_size;
  RETURN_IF_ERROR(backend->Reserve(limits));
  return Transformer(backend, std::move(config), std::move(weights), std::move(workspace),
                     std::move(cache), std::move(host_cache));
}

Transformer::Transformer(Backend* backend, ModelConfig config, Weights weights, Workspace workspace,
                         KvCache cache, HostKvCache host_cache)
    : backend_(backend),
      config_(std::move(config)),
      weights_(std::move(weights)),
      workspace_(std::move(workspace)),
      cache_(std::move(cache)),
      host_cache_(std::move(host_cache)) {}

MatMulInput Transformer::Normed(Tensor x, const std::unique_ptr<Buffer>& weight) const {
  return MatMulInput::RmsNorm(x, VectorOf(weight), config_.rms_eps);
}

void Transformer::Forward(const StepInputs& inputs) {
  num_rows_ = static_cast<int64_t>(inputs.ids().size());
  CHECK_LE(num_rows_, workspace_.residual.rows());
  if (num_rows_ == 0) {
    MoveBlocks(inputs.moves());
    return;
  }
  backend_->EmbedRows(*weights_.embedding, inputs.ids(), workspace_.residual.Rows(0, num_rows_));
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    MoveLayer(i, inputs.moves());
    RunLayer(i, inputs);
  }
}

void Transformer::MoveBlocks(const KvMoves& moves) {
  for (int64_t i = 0; i < config_.num_layers; ++i) MoveLayer(i, moves);
}

void Transformer::MoveLayer(int64_t index, const KvMoves& moves) {
  if (moves.empty()) return;
  moves.Apply(cache_.keys(index), host_cache_.keys(index), backend_);
  moves.Apply(cache_.values(index), host_cache_.values(index), backend_);
}

void Transformer::ComputeQkv(int64_t index, const StepInputs& inputs) {
  const LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
  const AttentionShape shape = ShapeOf(config_, index);
  const Tensor qkv = workspace_.qkv.Rows(0, num_rows_);
  backend_->MatMul(Normed(workspace_.residual.Rows(0, num_rows_), layer.attention_norm), *layer.qkv,
                   VectorOf(layer.qkv_bias), Tensor(), qkv);
  if (config_.has_qk_norm) {
    backend_->RmsNormQueriesAndKeys(qkv, shape, VectorOf(layer.q_norm), VectorOf(layer.k_norm),
                                    config_.rms_eps);
  }
  backend_->RopeAndWriteKv(qkv, shape, workspace_.cos_sin, inputs.positions(), inputs.slots(),
                           cache_.keys(index), cache_.values(index));
}

void Transformer::RunLayer(int64_t index, const StepInputs& inputs) {
  const LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
  const Tensor x = workspace_.residual.Rows(0, num_rows_);
  const Tensor attention = workspace_.attention.Rows(0, num_rows_);

  ComputeQkv(index, inputs);
  const absl::Span<const int32_t> logit_rows = inputs.logit_rows();
  const bool is_last = index + 1 == config_.num_layers;
  if (is_last && logit_rows.empty()) return;
  const Tensor queries =
      workspace_.qkv.Rows(0, num_rows_).Cols(0, config_.q_heads * config_.head_dim);
  backend_->PagedAttention(queries, ShapeOf(config_, index), inputs.attention(), cache_.keys(index),
                           cache_.values(index), attention);
  // Rows that are scored and sampled after appear twice.
  if (is_last && static_cast<int64_t>(logit_rows.size()) < num_rows_) {
    FinishLogitRows(layer, logit_rows, attention);
  } else {
    FinishLayer(layer, attention, x);
    hidden_ = x;
  }
}

void Transformer::FinishLogitRows(const LayerWeights& layer, absl::Span<const int32_t> rows,
                                  Tensor attention) {
  const int64_t num_rows = static_cast<int64_t>(rows.size());
  // qkv has been read, and is at least as wide as its q part, which the gathered rows fill densely.
  const Tensor gathered(workspace_.qkv.data, attention.dtype, {num_rows, attention.cols()});
  hidden_ = workspace_.logit_rows.Rows(0, num_rows);
  backend_->GatherRows(attention, rows, gathered);
  backend_->GatherRows(workspace_.residual.Rows(0, num_rows_), rows, hidden_);
  FinishLayer(layer, gathered, hidden_);
}

void Transformer::FinishLayer(const LayerWeights& layer, Tensor attention, Tensor x) {
  const Tensor gate_up = workspace_.gate_up.Rows(0, x.rows());
  const Tensor none;
  backend_->MatMul(attention, *layer.attention_out, VectorOf(layer.attention_out_bias), x, x);
  backend_->MatMul(Normed(x, layer.ffn_norm), *layer.gate_up, none, none, gate_up);
  backend_->MatMul(MatMulInput::SiluMul(gate_up), *layer.down, none, x, x);
}

Tensor Transformer::Logits(const StepInputs& inputs, int64_t begin, int64_t count) {
  CHECK(count >= 1 && count <= max_logit_rows()) << count;
  const absl::Span<const int32_t> rows = inputs.logit_rows();
  const Tensor logits = workspace_.logits.Rows(0, count);
  Tensor input;
  if (static_cast<int64_t>(rows.size()) < num_rows_) {
    input = hidden_.Rows(begin, count);
  } else {
    input = workspace_.logit_input.Rows(0, count);
    backend_->GatherRows(
        hidden_, rows.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), input);
  }
  backend_->MatMul(Normed(input, weights_.final_norm), weights_.head(), Tensor(), Tensor(), logits);
  return logits;
}

}  // namespace fastgen
