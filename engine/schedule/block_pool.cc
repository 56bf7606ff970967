#include "engine/schedule/block_pool.h"

#include "base/check.h"

namespace fastgen {

BlockPool::BlockPool(int32_t num_blocks) {
  CHECK_GE(num_blocks, 1) << "a pool needs a block";
  taken_.assign(num_blocks, 0);
  free_.reserve(num_blocks);
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

int32_t BlockPool::Take() {
  CHECK(!free_.empty()) << "all " << num_blocks() << " blocks are taken";
  const int32_t block = free_.back();
  free_.pop_back();
  taken_[block] = 1;
  return block;
}

void BlockPool::ReturnAll(std::vector<int32_t>* block_table) {
  // Backwards, so that a table taken again right away comes out in the same order.
  for (auto it = block_table->rbegin(); it != block_table->rend(); ++it) {
    CHECK(IsTaken(*it)) << "block " << *it << " is returned but not taken";
    taken_[*it] = 0;
    free_.push_back(*it);
  }
  block_table->clear();
}

bool BlockPool::IsTaken(int32_t block) const {
  return block >= 0 && block < num_blocks() && taken_[block] != 0;
}

}  // namespace fastgen
