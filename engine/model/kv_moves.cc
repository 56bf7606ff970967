#include "engine/model/kv_moves.h"

#include <algorithm>

#include "base/check.h"

namespace fastgen {

KvMoves::KvMoves(const MemoryPlan& plan)
    : num_blocks_(plan.num_blocks), num_host_blocks_(plan.num_host_blocks) {
  // A block is written once in a list at most.
  page_outs_.reserve(static_cast<size_t>(num_host_blocks_));
  page_ins_.reserve(static_cast<size_t>(num_host_blocks_ > 0 ? num_blocks_ : 0));
  copies_.reserve(static_cast<size_t>(num_blocks_));
  is_written_.resize(static_cast<size_t>(std::max(num_blocks_, num_host_blocks_)));
}

void KvMoves::Build(const StepPlan& plan) {
  // In stream order both kinds of moves to the host may go first.
  page_outs_.clear();
  Append(plan.page_outs, num_blocks_, num_host_blocks_, &page_outs_);
  Append(plan.swap_outs, num_blocks_, num_host_blocks_, &page_outs_);
  CheckIndependent(page_outs_, false);
  for (int32_t block : plan.poisoned_blocks) {
    CHECK(block >= 0 && block < num_blocks_) << "poisoned block " << block << " of " << num_blocks_;
  }
  poisoned_blocks_ = plan.poisoned_blocks;
  page_ins_.clear();
  Append(plan.page_ins, num_host_blocks_, num_blocks_, &page_ins_);
  CheckIndependent(page_ins_, false);
  copies_.clear();
  Append(plan.copies, num_blocks_, num_blocks_, &copies_);
  CheckIndependent(copies_, true);
}

void KvMoves::Append(const std::vector<KvBlockMove>& moves, int32_t num_from, int32_t num_to,
                     std::vector<BlockCopy>* copies) {
  CHECK_LE(moves.size(), static_cast<size_t>(num_to)) << "moves of KV blocks";
  for (const KvBlockMove& move : moves) {
    CHECK(move.from >= 0 && move.from < num_from) << "KV block " << move.from << " of " << num_from;
    CHECK(move.to >= 0 && move.to < num_to) << "KV block " << move.to << " of " << num_to;
    copies->push_back({move.from, move.to});
  }
}

void KvMoves::CheckIndependent(const std::vector<BlockCopy>& copies, bool is_one_cache) {
  for (const BlockCopy& copy : copies) {
    uint8_t& is_written = is_written_[static_cast<size_t>(copy.to)];
    CHECK_EQ(int{is_written}, 0) << "KV block " << copy.to << " is written twice";
    is_written = 1;
  }
  for (const BlockCopy& copy : copies) {
    if (!is_one_cache) break;
    CHECK_EQ(int{is_written_[static_cast<size_t>(copy.from)]}, 0)
        << "KV block " << copy.from << " is both read and written";
  }
  for (const BlockCopy& copy : copies) is_written_[static_cast<size_t>(copy.to)] = 0;
}

void KvMoves::Apply(Tensor device, Tensor host, Backend* backend) const {
  if (!page_outs_.empty()) backend->CopyBlocks(page_outs_, device, host);
  if (!poisoned_blocks_.empty()) backend->PoisonBlocks(poisoned_blocks_, device);
  if (!page_ins_.empty()) backend->CopyBlocks(page_ins_, host, device);
  if (!copies_.empty()) backend->CopyBlocks(copies_, device, device);
}

}  // namespace fastgen
