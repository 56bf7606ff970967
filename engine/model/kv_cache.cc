#include "engine/model/kv_cache.h"

#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace fastgen {

absl::StatusOr<KvCache> KvCache::Create(const ModelConfig& config, const MemoryPlan& plan,
                                        Backend* backend) {
  const DType dtype = backend->kv_dtype();
  const int64_t side_bytes = BytesOf(
      dtype, int64_t{plan.num_blocks} * config.kv_heads * plan.block_size * config.head_dim);
  CHECK_EQ(2 * config.num_layers * side_bytes, plan.kv_bytes);
  KvCache cache;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    Layer layer;
    ASSIGN_OR_RETURN(layer.key_buffer, backend->Allocate(static_cast<size_t>(side_bytes)));
    ASSIGN_OR_RETURN(layer.value_buffer, backend->Allocate(static_cast<size_t>(side_bytes)));
    layer.keys = Tensor(layer.key_buffer->data(), dtype,
                        {plan.num_blocks, config.kv_heads, plan.block_size, config.head_dim});
    layer.values = Tensor(layer.value_buffer->data(), dtype,
                          {plan.num_blocks, config.kv_heads, plan.block_size, config.head_dim});
    cache.layers_.push_back(std::move(layer));
  }
  return cache;
}

}  // namespace fastgen
