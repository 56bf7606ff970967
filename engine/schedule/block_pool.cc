#include "engine/schedule/block_pool.h"

#include <algorithm>

#include "base/check.h"

namespace fastgen {

BlockPool::BlockPool(int32_t num_blocks, int32_t tokens_per_block, int32_t keep_percent,
                     uint64_t hash_key)
    : max_kept_(static_cast<int32_t>(int64_t{num_blocks} * keep_percent / 100)),
      index_(num_blocks, tokens_per_block, hash_key) {
  CHECK(keep_percent >= 1 && keep_percent <= 100) << keep_percent;
  holders_.assign(num_blocks, 0);
  state_.assign(num_blocks, State::kFree);
  is_filling_.assign(num_blocks, 0);
  release_step_.assign(num_blocks, 0);
  lru_next_.assign(num_blocks + 1, num_blocks);
  lru_previous_.assign(num_blocks + 1, num_blocks);
  retiring_.reserve(2 * num_blocks);
  free_.reserve(num_blocks);
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

int32_t BlockPool::TryTake() {
  if (free_.empty()) Evict();
  if (free_.empty()) return kNone;
  const int32_t block = free_.back();
  free_.pop_back();
  state_[block] = State::kHeld;
  holders_[block] = 1;
  return block;
}

int32_t BlockPool::Take() {
  const int32_t block = TryTake();
  CHECK_NE(block, kNone) << "none of " << num_blocks() << " blocks can be had";
  return block;
}

void BlockPool::Share(int32_t block) {
  CHECK(holders_[block] > 0 || index_.Contains(block))
      << "block " << block << " is shared and holds nothing";
  if (state_[block] == State::kCached) RemoveFromLru(block);
  if (state_[block] == State::kRetiring) --num_retiring_;
  state_[block] = State::kHeld;
  ++holders_[block];
}

void BlockPool::Release(int32_t block, uint64_t step) {
  CHECK_GT(holders_[block], 0) << "block " << block << " is released and not held";
  if (--holders_[block] > 0) return;
  if (step <= retired_step_) {
    LeaveHolders(block);
    return;
  }
  state_[block] = State::kRetiring;
  ++num_retiring_;
  release_step_[block] = step;
  retiring_.push_back({step, block});
}

void BlockPool::Retire(uint64_t step) {
  CHECK_GE(step, retired_step_);
  retired_step_ = step;
  size_t num_done = 0;
  for (; num_done < retiring_.size() && retiring_[num_done].step <= step; ++num_done) {
    const auto [released, block] = retiring_[num_done];
    if (state_[block] != State::kRetiring || release_step_[block] != released) continue;
    --num_retiring_;
    LeaveHolders(block);
  }
  retiring_.erase(retiring_.begin(), retiring_.begin() + static_cast<int64_t>(num_done));
}

void BlockPool::LeaveHolders(int32_t block) {
  if (index_.Contains(block)) {
    AppendToLru(block);
  } else {
    BecomeFree(block);
  }
}

void BlockPool::BecomeFree(int32_t block) {
  state_[block] = State::kFree;
  free_.push_back(block);
  if (freed_log_ != nullptr) freed_log_->push_back(block);
}

int32_t BlockPool::OldestLeaf() const {
  const int32_t head = num_blocks();
  for (int32_t block = lru_next_[head]; block != head; block = lru_next_[block]) {
    if (index_.num_children(block) == 0) return block;
  }
  return kNone;
}

void BlockPool::Evict() {
  do {
    const int32_t block = OldestLeaf();
    if (block == kNone) return;
    RemoveFromLru(block);
    index_.Erase(block);
    BecomeFree(block);
  } while (num_blocks() - static_cast<int32_t>(free_.size()) > max_kept_);
}

int32_t BlockPool::Find(int32_t parent, std::string_view salt,
                        std::span<const int32_t> tokens) const {
  const int32_t block = index_.Find(parent, salt, tokens);
  return block == kNone || is_filling_[block] != 0 ? kNone : block;
}

bool BlockPool::Insert(int32_t block, int32_t parent, std::string_view salt,
                       std::span<const int32_t> tokens, Content content) {
  CHECK_GT(holders_[block], 0) << "block " << block << " is indexed and not held";
  is_filling_[block] = content == Content::kFilling ? 1 : 0;
  return index_.Insert(block, parent, salt, tokens);
}

void BlockPool::Forget(int32_t block) {
  CHECK_GT(holders_[block], 0) << "block " << block << " is forgotten and not held";
  if (index_.Contains(block) && index_.num_children(block) == 0) index_.Erase(block);
}

void BlockPool::Touch(int32_t block) {
  // From the leaf up, so that the root is the youngest and evicted last.
  for (; block != PrefixIndex::kRoot; block = index_.parent(block)) {
    if (state_[block] != State::kCached) continue;
    RemoveFromLru(block);
    AppendToLru(block);
  }
}

int32_t BlockPool::Flush() {
  const int32_t num_indexed = index_.size();
  index_.Clear();
  const int32_t head = num_blocks();
  while (lru_next_[head] != head) {
    const int32_t block = lru_next_[head];
    RemoveFromLru(block);
    BecomeFree(block);
  }
  return num_indexed;
}

void BlockPool::AppendToLru(int32_t block) {
  const int32_t head = num_blocks();
  const int32_t last = lru_previous_[head];
  lru_next_[last] = block;
  lru_previous_[block] = last;
  lru_next_[block] = head;
  lru_previous_[head] = block;
  state_[block] = State::kCached;
  ++num_cached_;
}

void BlockPool::RemoveFromLru(int32_t block) {
  lru_next_[lru_previous_[block]] = lru_next_[block];
  lru_previous_[lru_next_[block]] = lru_previous_[block];
  --num_cached_;
}

void BlockPool::CheckInvariants(std::span<const int32_t> expected_holders) const {
  CHECK_EQ(static_cast<int32_t>(expected_holders.size()), num_blocks());
  int32_t num_in_state[4] = {};
  for (int32_t block = 0; block < num_blocks(); ++block) {
    CHECK_EQ(holders_[block], expected_holders[block]) << "holders of block " << block;
    const State state = state_[block];
    ++num_in_state[static_cast<int>(state)];
    CHECK_EQ(holders_[block] > 0, state == State::kHeld) << "block " << block;
    const bool is_indexed = index_.Contains(block);
    CHECK(state != State::kCached || is_indexed) << "block " << block << " is cached without text";
    CHECK(state != State::kFree || !is_indexed) << "block " << block << " is free and indexed";
    if (is_indexed && index_.parent(block) != PrefixIndex::kRoot) {
      CHECK(index_.Contains(index_.parent(block))) << "block " << block << " has lost its parent";
    }
  }
  CHECK_EQ(num_in_state[0], static_cast<int32_t>(free_.size()));
  CHECK_EQ(num_in_state[2], num_retiring_);
  CHECK_EQ(num_in_state[3], num_cached_);
  for (const int32_t block : free_) {
    CHECK(state_[block] == State::kFree) << "block " << block << " is on the free list";
  }
}

}  // namespace fastgen
