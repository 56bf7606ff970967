// HostKvCache: the second tier's storage: key and value blocks of every layer in host memory.
//
// A block here is laid out as one of KvCache, so that moving one is a copy a layer and side
// (Backend::CopyBlocks), and a layer's copies need no other layer's: pages come in just ahead of
// the layer that reads them. Which tokens a block holds is the scheduler's to know.
// Thread rule: the thread that owns the backend.
// Tested by tests/engine/model/kv_moves_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/memory_plan.h"
#include "engine/model/model_config.h"
#include "kernels/backend.h"

namespace fastgen {

class HostKvCache {
 public:
  // Takes exactly plan.host_kv_bytes; nothing where that is 0.
  static absl::StatusOr<HostKvCache> Create(const ModelConfig& config, const MemoryPlan& plan,
                                            Backend* backend);

  // [num_host_blocks, kv_heads, block_size, head_dim] kv_dtype; null views without a host tier.
  Tensor keys(int64_t layer) const { return Side(2 * layer); }
  Tensor values(int64_t layer) const { return Side(2 * layer + 1); }

 private:
  Tensor Side(int64_t index) const {
    return sides_.empty() ? Tensor() : sides_[static_cast<size_t>(index)];
  }

  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::vector<Tensor> sides_;  // keys and values of layer 0, of layer 1, ...
};

}  // namespace fastgen
