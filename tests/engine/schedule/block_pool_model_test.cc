// BlockPool against a naive model of it, under random operations.
//
// The model keeps plain lists and searches them: each block that is taken, and thereby each eviction, has to be the one
// that the model names.
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <utility>
#include <vector>

#include "engine/schedule/block_pool.h"

namespace fastgen {
namespace {

constexpr int32_t kRoot = PrefixIndex::kRoot;
constexpr int32_t kNone = BlockPool::kNone;

struct ModelBlock {
  int32_t holders = 0;
  bool is_indexed = false;
  bool is_filling = false;
  int32_t parent = kRoot;
  int32_t token = 0;
  uint64_t release_step = 0;  // of its last holder
};

class PoolModel {
 public:
  PoolModel(int32_t num_blocks, int32_t keep_percent)
      : blocks_(num_blocks), max_kept_(num_blocks * keep_percent / 100) {
    for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
  }

  const std::vector<ModelBlock>& blocks() const { return blocks_; }
  const std::vector<int32_t>& cached() const { return cached_; }
  size_t num_available() const { return free_.size() + cached_.size(); }
  size_t num_retiring() const {
    return std::count_if(retiring_.begin(), retiring_.end(),
                         [&](const auto& entry) { return IsRetiring(entry); });
  }
  std::vector<int32_t> Holders() const {
    std::vector<int32_t> holders;
    for (const ModelBlock& block : blocks_) holders.push_back(block.holders);
    return holders;
  }

  int32_t TryTake() {
    if (free_.empty()) Evict();
    if (free_.empty()) return kNone;
    const int32_t block = free_.back();
    free_.pop_back();
    blocks_[block].holders = 1;
    return block;
  }

  void Share(int32_t block) {
    std::erase(cached_, block);
    ++blocks_[block].holders;
  }

  void Release(int32_t block, uint64_t step) {
    if (--blocks_[block].holders > 0) return;
    if (step <= retired_step_) {
      Leave(block);
      return;
    }
    blocks_[block].release_step = step;
    // Shared and released again in one step, it keeps its first place in the order.
    const std::pair<uint64_t, int32_t> entry = {step, block};
    if (std::count(retiring_.begin(), retiring_.end(), entry) == 0) retiring_.push_back(entry);
  }

  void Retire(uint64_t step) {
    retired_step_ = step;
    const auto retiring = std::exchange(retiring_, {});
    for (const auto& entry : retiring) {
      if (entry.first <= step) {
        if (IsRetiring(entry)) Leave(entry.second);
      } else {
        retiring_.push_back(entry);
      }
    }
  }

  void Insert(int32_t block, int32_t parent, int32_t token, bool is_filling) {
    blocks_[block] = {blocks_[block].holders, true, is_filling, parent, token, 0};
  }
  void SetReady(int32_t block) { blocks_[block].is_filling = false; }

  void Forget(int32_t block) {
    if (!HasChildren(block)) blocks_[block].is_indexed = false;
  }

  void Touch(int32_t block) {
    for (; block != kRoot; block = blocks_[block].parent) {
      if (std::erase(cached_, block) > 0) cached_.push_back(block);
    }
  }

  int32_t Flush() {
    int32_t num_indexed = 0;
    for (ModelBlock& block : blocks_) num_indexed += std::exchange(block.is_indexed, false);
    for (const int32_t block : std::exchange(cached_, {})) free_.push_back(block);
    return num_indexed;
  }

 private:
  bool IsRetiring(const std::pair<uint64_t, int32_t>& entry) const {
    const ModelBlock& block = blocks_[entry.second];
    return block.holders == 0 && block.release_step == entry.first;
  }

  void Leave(int32_t block) {
    blocks_[block].release_step = 0;
    (blocks_[block].is_indexed ? cached_ : free_).push_back(block);
  }

  bool HasChildren(int32_t parent) const {
    return std::any_of(blocks_.begin(), blocks_.end(), [&](const ModelBlock& block) {
      return block.is_indexed && block.parent == parent;
    });
  }

  void Evict() {
    do {
      const auto leaf = std::find_if(cached_.begin(), cached_.end(),
                                     [&](int32_t block) { return !HasChildren(block); });
      if (leaf == cached_.end()) return;
      blocks_[*leaf].is_indexed = false;
      free_.push_back(*leaf);
      cached_.erase(leaf);
    } while (static_cast<int32_t>(blocks_.size() - free_.size()) > max_kept_);
  }

  std::vector<ModelBlock> blocks_;
  const int32_t max_kept_;
  std::vector<int32_t> free_;
  std::vector<int32_t> cached_;  // least recently used first
  std::vector<std::pair<uint64_t, int32_t>> retiring_;
  uint64_t retired_step_ = 0;
};

class RandomOperations {
 public:
  RandomOperations(uint32_t seed, int32_t num_blocks, int32_t keep_percent)
      : random_(seed),
        num_blocks_(num_blocks),
        pool_(num_blocks, 1, keep_percent),
        model_(num_blocks, keep_percent) {}

  void Step() {
    const int32_t block = Below(num_blocks_);
    const ModelBlock& state = model_.blocks()[block];
    switch (Below(12)) {
      case 0:
      case 1:
      case 2:
        REQUIRE(pool_.TryTake() == model_.TryTake());
        break;
      case 3:
        if (state.holders > 0 || state.is_indexed) Both([&](auto* pool) { pool->Share(block); });
        break;
      case 4:
      case 5:
      case 6:
        // Mostly of the step that was planned last, now and then of one that was committed.
        if (state.holders > 0) {
          const uint64_t step = Below(4) == 0 ? committed_ : planned_;
          Both([&](auto* pool) { pool->Release(block, step); });
        }
        break;
      case 7:
      case 8:
        if (state.holders > 0 && !state.is_indexed) Insert(block);
        break;
      case 9:
        if (state.is_indexed) Both([&](auto* pool) { pool->Touch(block); });
        if (state.is_indexed) Both([&](auto* pool) { pool->SetReady(block); });
        break;
      case 10:
        if (planned_ < committed_ + 2) {
          ++planned_;
        } else {
          ++committed_;
          Both([&](auto* pool) { pool->Retire(committed_); });
        }
        break;
      default:
        if (Below(20) == 0) REQUIRE(pool_.Flush() == model_.Flush());
        if (state.holders > 0) Both([&](auto* pool) { pool->Forget(block); });
    }
    Compare();
  }

 private:
  int32_t Below(int32_t limit) { return static_cast<int32_t>(random_() % limit); }

  template <typename Operation>
  void Both(Operation operation) {
    operation(&pool_);
    operation(&model_);
  }

  void Insert(int32_t block) {
    int32_t parent = Below(num_blocks_);
    if (!model_.blocks()[parent].is_indexed || Below(3) == 0) parent = kRoot;
    const int32_t token = ++last_token_;
    const bool is_filling = Below(4) == 0;
    REQUIRE(pool_.Insert(block, parent, "", std::vector<int32_t>{token},
                         is_filling ? BlockPool::Content::kFilling : BlockPool::Content::kReady));
    model_.Insert(block, parent, token, is_filling);
  }

  void Compare() {
    const std::vector<int32_t> holders = model_.Holders();
    pool_.CheckInvariants(holders);
    REQUIRE(pool_.num_available() == static_cast<int32_t>(model_.num_available()));
    REQUIRE(pool_.num_cached() == static_cast<int32_t>(model_.cached().size()));
    REQUIRE(pool_.num_retiring() == static_cast<int32_t>(model_.num_retiring()));
    const int32_t block = Below(num_blocks_);
    const ModelBlock& state = model_.blocks()[block];
    REQUIRE(pool_.index().Contains(block) == state.is_indexed);
    if (!state.is_indexed) return;
    const std::vector<int32_t> tokens = {state.token};
    REQUIRE(pool_.FindEvenFilling(state.parent, "", tokens) == block);
    REQUIRE(pool_.Find(state.parent, "", tokens) == (state.is_filling ? kNone : block));
  }

  std::mt19937 random_;
  const int32_t num_blocks_;
  BlockPool pool_;
  PoolModel model_;
  uint64_t planned_ = 0;
  uint64_t committed_ = 0;
  int32_t last_token_ = 0;
};

TEST_CASE("a pool does what the naive model of it does", "[schedule]") {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    INFO("seed " << seed);
    RandomOperations operations(seed, 1 + static_cast<int32_t>(seed) % 24,
                                seed % 3 == 0 ? 75 : 100);
    for (int step = 0; step < 1500; ++step) operations.Step();
  }
}

}  // namespace
}  // namespace fastgen
