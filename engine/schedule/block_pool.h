// BlockPool: which KV blocks are free. Blocks are numbers in [0, num_blocks); what they hold is the
// executor's.
//
// The free ones form a stack, lowest number on top at the start: the block returned last is taken
// first, because its memory is the likeliest to be in cache, and equal histories give equal tables
// (scripts and simulation rely on it). Invariant: a block is free or taken, never both; returning a
// free block is a CHECK failure. Thread rule: engine thread only. Tested by
// tests/engine/schedule/block_pool_test.cc.
#pragma once

#include <cstdint>
#include <vector>

namespace fastgen {

class BlockPool {
 public:
  // REQUIRES: num_blocks >= 1.
  explicit BlockPool(int32_t num_blocks);

  int32_t num_blocks() const { return static_cast<int32_t>(taken_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }

  // Takes a block. REQUIRES: num_free() > 0.
  int32_t Take();

  // Returns every block of a table and empties it. REQUIRES: all of them taken.
  void ReturnAll(std::vector<int32_t>* block_table);

  // True when `block` is in range and taken.
  bool IsTaken(int32_t block) const;

 private:
  std::vector<int32_t> free_;   // top of the stack last
  std::vector<uint8_t> taken_;  // by block
};

}  // namespace fastgen
