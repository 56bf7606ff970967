// BlockPool: who holds which KV blocks, and which of the unheld ones still hold a prefix worth
// keeping. The scheduler has two: device blocks, and host chunks.
//
// A block is in one of four states:
//   free      holds nothing
//   held      has holders: tables that name it, a swapped sequence, a copy under way
//   retiring  has none, but steps in flight may still touch it; they end with Retire(step)
//   cached    has none and no step touches it; it is in the prefix index and may be shared again,
//   or evicted
// What nobody holds and is not in the index becomes free, in the order of a stack: the block
// returned last is taken first, because its memory is the likeliest to be in cache, and equal
// histories give equal tables (scripts and simulation rely on it). When no block is free the cached
// ones are evicted, least recently used first and leaves before their parents, until at most
// keep_percent of all are in use (at least one is evicted).
//
// Thread rule: engine thread only. Tested by tests/engine/schedule/block_pool_test.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/schedule/prefix_index.h"

namespace fastgen {

class BlockPool {
 public:
  static constexpr int32_t kNone = PrefixIndex::kNone;
  enum class Content { kReady, kFilling };

  // REQUIRES: num_blocks >= 0, tokens_per_block >= 1, keep_percent in [1, 100].
  BlockPool(int32_t num_blocks, int32_t tokens_per_block, int32_t keep_percent,
            uint64_t hash_key = 0);

  int32_t num_blocks() const { return static_cast<int32_t>(holders_.size()); }
  // Free or cached. Where a child may be held and its parent not (host chunks), not all of it may
  // be had.
  int32_t num_available() const { return static_cast<int32_t>(free_.size()) + num_cached_; }
  int32_t num_cached() const { return num_cached_; }
  int32_t num_retiring() const { return num_retiring_; }
  int32_t num_holders(int32_t block) const { return holders_[block]; }
  bool IsCached(int32_t block) const { return state_[block] == State::kCached; }

  // A block with one holder, or kNone when none can be had.
  int32_t TryTake();
  // Likewise. REQUIRES: it can be had.
  int32_t Take();
  // One holder more, of a block that is held, or in the index.
  void Share(int32_t block);
  // One holder less. Without any, the block retires with `step`, the last one planned: at once when
  // it is committed.
  void Release(int32_t block, uint64_t step);
  // Steps up to `step` are committed.
  void Retire(uint64_t step);

  // The prefix index. Find sees ready blocks only.
  int32_t Find(int32_t parent, std::string_view salt, std::span<const int32_t> tokens) const;
  int32_t FindEvenFilling(int32_t parent, std::string_view salt,
                          std::span<const int32_t> tokens) const {
    return index_.Find(parent, salt, tokens);
  }
  // False when it cannot be (PrefixIndex::Insert). REQUIRES: `block` is held.
  bool Insert(int32_t block, int32_t parent, std::string_view salt, std::span<const int32_t> tokens,
              Content content);
  void SetReady(int32_t block) { is_filling_[block] = 0; }
  // Takes a held block out of the index, where it is in it and has no children there.
  void Forget(int32_t block);
  // The whole chain down to `block` was used just now.
  void Touch(int32_t block);
  // Takes everything out of the index. Returns how many blocks that were.
  int32_t Flush();
  const PrefixIndex& index() const { return index_; }

  // Blocks that became free are appended to `log` from now on; null: to nothing.
  void LogFreed(std::vector<int32_t>* log) { freed_log_ = log; }

  // CHECKs the lists against the states, and the holders against `expected` [num_blocks].
  void CheckInvariants(std::span<const int32_t> expected_holders) const;

 private:
  enum class State : uint8_t { kFree, kHeld, kRetiring, kCached };
  struct Retiring {
    uint64_t step = 0;
    int32_t block = 0;
  };

  void BecomeFree(int32_t block);
  void LeaveHolders(int32_t block);  // retired, and nobody holds it: cached or free
  void Evict();
  int32_t OldestLeaf() const;
  void AppendToLru(int32_t block);
  void RemoveFromLru(int32_t block);

  const int32_t max_kept_;
  PrefixIndex index_;
  std::vector<int32_t> free_;  // top of the stack last
  // By block.
  std::vector<int32_t> holders_;
  std::vector<State> state_;
  std::vector<uint8_t> is_filling_;
  std::vector<uint64_t> release_step_;
  // The cached ones, least recently used first: a doubly linked list, [num_blocks] is its head.
  std::vector<int32_t> lru_next_;
  std::vector<int32_t> lru_previous_;
  int32_t num_cached_ = 0;
  std::vector<Retiring>
      retiring_;              // in order of release; a block shared again in between is skipped
  int32_t num_retiring_ = 0;  // blocks in that state
  uint64_t retired_step_ = 0;
  std::vector<int32_t>* freed_log_ = nullptr;
};

}  // namespace fastgen
