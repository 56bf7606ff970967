// KvMoves: the KV blocks that a step moves, checked, as arrays that the backend's copies read.
//
// Per layer and side, in this order: page_outs and swap_outs (device -> host), poisoned blocks,
// page_ins (host -> device), copies (device -> device). Apply does it for one cache, so that a
// layer's moves can be issued just before the layer itself.
// Copies of one call run in any order, hence in each list no block is written twice, nor both read
// and written; that, and every number's range, is CHECKed: a scheduler's mistake must not become
// another sequence's memory. Arrays are reserved for the largest step at construction.
// Thread rule: the executor's thread; the arrays must stay as they are until Synchronize().
// Tested by tests/engine/model/kv_moves_test.cc and paging_test.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/memory_plan.h"
#include "engine/schedule/step_plan.h"
#include "kernels/backend.h"

namespace fastgen {

class KvMoves {
 public:
  explicit KvMoves(const MemoryPlan& plan);

  // Replaces the contents by the moves of `plan`, which must outlive their use.
  void Build(const StepPlan& plan);

  bool empty() const {
    return page_outs_.empty() && poisoned_blocks_.empty() && page_ins_.empty() && copies_.empty();
  }

  // Issues the moves of one layer's keys or values.
  void Apply(Tensor device,  // [num_blocks, kv_heads, block_size, head_dim] kv_dtype
             Tensor host,    // [num_host_blocks, ...]; null without a host tier
             Backend* backend) const;

 private:
  void Append(const std::vector<KvBlockMove>& moves, int32_t num_from, int32_t num_to,
              std::vector<BlockCopy>* copies);
  // CHECKs that no block is twice in `copies` as it may not be.
  void CheckIndependent(const std::vector<BlockCopy>& copies, bool is_one_cache);

  const int32_t num_blocks_;
  const int32_t num_host_blocks_;
  std::vector<BlockCopy> page_outs_;
  absl::Span<const int32_t> poisoned_blocks_;
  std::vector<BlockCopy> page_ins_;
  std::vector<BlockCopy> copies_;
  std::vector<uint8_t> is_written_;  // by block; all 0 between calls
};

}  // namespace fastgen
