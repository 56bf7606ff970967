#include "engine/model/workspace.h"

#include <array>
#include <utility>

#include "base/status_macros.h"
#include "engine/model/memory_plan.h"
#include "engine/model/rope_table.h"

namespace fastgen {
namespace {

struct Role {
  Tensor Workspace::*tensor;
  DType dtype;
  int64_t rows;
  int64_t cols;
};

std::array<Role, 8> Roles(const ModelConfig& config, DType activation, const MemoryPlan& plan) {
  const int64_t tokens = plan.max_num_batched_tokens;
  return {{
      {&Workspace::residual, activation, tokens, config.hidden},
      {&Workspace::logit_rows, activation, tokens, config.hidden},
      {&Workspace::qkv, activation, tokens, config.qkv_width()},
      {&Workspace::attention, activation, tokens, config.q_heads * config.head_dim},
      {&Workspace::gate_up, activation, tokens, 2 * config.ffn},
      {&Workspace::logit_input, activation, plan.max_logit_rows, config.hidden},
      {&Workspace::logits, DType::kF32, plan.max_logit_rows, config.vocab},
      {&Workspace::cos_sin, DType::kF32, plan.max_model_len, config.head_dim},
  }};
}

}  // namespace

int64_t Workspace::Bytes(const ModelConfig& config, DType activation_dtype,
                         const MemoryPlan& plan) {
  int64_t sum = 0;
  for (const Role& role : Roles(config, activation_dtype, plan)) {
    sum += BytesOf(role.dtype, role.rows * role.cols);
  }
  return sum;
}

absl::StatusOr<Workspace> Workspace::Create(const ModelConfig& config, const MemoryPlan& plan,
                                            Backend* backend) {
  Workspace workspace;
  for (const Role& role : Roles(config, backend->activation_dtype(), plan)) {
    ASSIGN_OR_RETURN(
        std::unique_ptr<Buffer> buffer,
        backend->Allocate(static_cast<size_t>(BytesOf(role.dtype, role.rows * role.cols))));
    workspace.*role.tensor = Tensor(buffer->data(), role.dtype, {role.rows, role.cols});
    workspace.buffers_.push_back(std::move(buffer));
  }
  FillRopeTable(config, workspace.cos_sin);
  return workspace;
}

}  // namespace fastgen
