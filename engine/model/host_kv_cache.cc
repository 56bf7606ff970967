#include "engine/model/host_kv_cache.h"

#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace fastgen {

absl::StatusOr<HostKvCache> HostKvCache::Create(const ModelConfig& config, const MemoryPlan& plan,
                                                Backend* backend) {
  HostKvCache cache;
  if (plan.num_host_blocks == 0) return cache;
  const DType dtype = backend->kv_dtype();
  const int64_t side_bytes = BytesOf(
      dtype, int64_t{plan.num_host_blocks} * config.kv_heads * plan.block_size * config.head_dim);
  CHECK_EQ(2 * config.num_layers * side_bytes, plan.host_kv_bytes);
  for (int64_t i = 0; i < 2 * config.num_layers; ++i) {
    ASSIGN_OR_RETURN(std::unique_ptr<Buffer> buffer,
                     backend->AllocateHost(static_cast<size_t>(side_bytes)));
    cache.sides_.push_back(
        Tensor(buffer->data(), dtype,
               {plan.num_host_blocks, config.kv_heads, plan.block_size, config.head_dim}));
    cache.buffers_.push_back(std::move(buffer));
  }
  return cache;
}

}  // namespace fastgen
