// KvCache: the key and value pages of every layer, one allocation a layer and side, never resized.
//
// A block is block_size consecutive positions of one sequence in all layers; block tables map
// positions to blocks, slot = block * block_size + position % block_size.
// Thread rule: the thread that owns the backend.
// Tested by tests/engine/model/forward_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/memory_plan.h"
#include "engine/model/model_config.h"
#include "kernels/backend.h"

namespace fastgen {

class KvCache {
 public:
  // Takes exactly plan.kv_bytes.
  static absl::StatusOr<KvCache> Create(const ModelConfig& config, const MemoryPlan& plan,
                                        Backend* backend);

  // [num_blocks, kv_heads, block_size, head_dim] kv_dtype.
  const Tensor& keys(int64_t layer) const { return layers_[static_cast<size_t>(layer)].keys; }
  const Tensor& values(int64_t layer) const { return layers_[static_cast<size_t>(layer)].values; }

 private:
  struct Layer {
    Tensor keys;
    Tensor values;
    std::unique_ptr<Buffer> key_buffer;
    std::unique_ptr<Buffer> value_buffer;
  };
  std::vector<Layer> layers_;
};

}  // namespace fastgen
