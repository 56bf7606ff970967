// What computed KV is shared: forks, the prefix index, the host tier.
#include <algorithm>
#include <limits>
#include <span>
#include <utility>

#include "base/check.h"
#include "engine/schedule/scheduler.h"

namespace fastgen {
namespace {

std::span<const int32_t> Piece(const std::vector<int32_t>& tokens, int32_t index, int32_t size) {
  return std::span<const int32_t>(tokens).subspan(int64_t{1} * index * size, size);
}

}  // namespace

void Scheduler::FindStart(const Sequence& sequence, Start* start) const {
  start->num_computed = 0;
  start->num_device_tokens = 0;
  start->shared_blocks.clear();
  start->copy_source = -1;
  start->host_chunks.clear();
  start->is_cacheable = options_.prefix_cache;
  if (!sequence.swap_chunks.empty() || FindFork(sequence, start) || !options_.prefix_cache) return;
  const int32_t limit = PrefixLimit(sequence);
  FindDevicePrefix(sequence.tokens, sequence.cache_salt, limit, &start->shared_blocks);
  start->num_device_tokens =
      static_cast<int32_t>(start->shared_blocks.size()) * options_.block_size;
  start->num_computed = start->num_device_tokens;
  const double token_us = step_cost_.us_per_token();
  if (token_us > 0 && options_.page_us_per_token >= token_us) return;
  FindHostPrefix(sequence.tokens, sequence.cache_salt, limit, &start->host_chunks);
  const int64_t in_host =
      std::min<int64_t>(int64_t{options_.host_chunk_tokens} * start->host_chunks.size(),
                        limit / options_.block_size * options_.block_size);
  if (in_host <= start->num_device_tokens) {
    start->host_chunks.clear();
  } else {
    start->num_computed = static_cast<int32_t>(in_host);
  }
}

bool Scheduler::FindFork(const Sequence& sequence, Start* start) const {
  const Sequence* leader = FindLive(sequence.leader);
  const bool is_there = leader != nullptr && leader->phase == Sequence::Phase::kRunning &&
                        leader->num_committed >= leader->num_prompt;
  if (!is_there || sequence.num_output() > 0) return false;
  const int32_t num_full = (sequence.num_prompt - 1) / options_.block_size;
  // Back from the host tier, its blocks may yet be exchanged for equal ones in the index, which its
  // forks would miss.
  if (leader->is_cacheable && leader->num_indexed < num_full) return false;
  // It feeds the prompt's last token again, to sample after it; that token's block is the one that
  // both would write.
  start->num_computed = sequence.num_prompt - 1;
  start->shared_blocks.assign(leader->block_table.begin(), leader->block_table.begin() + num_full);
  if (start->num_computed % options_.block_size != 0) {
    start->copy_source = leader->block_table[num_full];
  }
  start->num_device_tokens = start->num_computed;
  start->is_cacheable = leader->is_cacheable;
  return true;
}

int32_t Scheduler::PrefixLimit(const Sequence& sequence) const {
  const int32_t limit = sequence.num_tokens() - 1;
  const bool scores = sequence.sampling.num_prompt_top_logprobs >= 0 &&
                      sequence.num_scored < sequence.num_prompt - 1;
  return scores ? std::min(limit, sequence.num_scored) : limit;
}

void Scheduler::FindDevicePrefix(const std::vector<int32_t>& tokens, const std::string& salt,
                                 int32_t limit, std::vector<int32_t>* blocks) const {
  int32_t parent = PrefixIndex::kRoot;
  for (int32_t i = 0; (i + 1) * options_.block_size <= limit; ++i) {
    parent = blocks_.Find(parent, salt, Piece(tokens, i, options_.block_size));
    if (parent == BlockPool::kNone) return;
    blocks->push_back(parent);
  }
}

void Scheduler::FindHostPrefix(const std::vector<int32_t>& tokens, const std::string& salt,
                               int32_t limit, std::vector<int32_t>* chunks) const {
  if (host_.num_blocks() == 0) return;
  const auto num_tokens = static_cast<int32_t>(tokens.size());
  int32_t parent = PrefixIndex::kRoot;
  // The last chunk may reach past the limit: its first blocks are worth having.
  for (int32_t i = 0; i * options_.host_chunk_tokens < limit; ++i) {
    if ((i + 1) * options_.host_chunk_tokens > num_tokens) return;
    parent = host_.Find(parent, salt, Piece(tokens, i, options_.host_chunk_tokens));
    if (parent == BlockPool::kNone) return;
    chunks->push_back(parent);
  }
}

int32_t Scheduler::IndexLimit(const Sequence& sequence) const {
  return sequence.may_be_cut ? sequence.num_prompt : std::numeric_limits<int32_t>::max();
}

void Scheduler::IndexBlocks(Sequence* sequence, int32_t limit) {
  limit = std::min(limit, sequence->num_committed);
  const int32_t size = options_.block_size;
  std::vector<int32_t>& table = sequence->block_table;
  while (sequence->is_cacheable && (sequence->num_indexed + 1) * size <= limit) {
    const int32_t i = sequence->num_indexed;
    const int32_t parent = i == 0 ? PrefixIndex::kRoot : table[i - 1];
    const std::span<const int32_t> tokens = Piece(sequence->tokens, i, size);
    const int32_t found = blocks_.Find(parent, sequence->cache_salt, tokens);
    if (found == BlockPool::kNone) {
      // Another text with the same hash: this one is not kept.
      sequence->is_cacheable = blocks_.Insert(table[i], parent, sequence->cache_salt, tokens,
                                              BlockPool::Content::kReady);
      if (!sequence->is_cacheable) return;
    } else if (found != table[i]) {
      // Two computed the same text at the same time: from here on they share it, so that whoever
      // holds an entry holds its parents.
      blocks_.Share(found);
      blocks_.Release(table[i], last_step_);
      table[i] = found;
    }
    ++sequence->num_indexed;
  }
  if (sequence->is_cacheable) FillHost(sequence, limit);
}

void Scheduler::FillHost(Sequence* sequence, int32_t limit) {
  const int32_t size = options_.host_chunk_tokens;
  const auto has_parent = [&] {
    const int32_t parent = sequence->host_parent;
    return parent == PrefixIndex::kRoot ||
           (host_.index().Contains(parent) &&
            host_.index().hash(parent) == sequence->host_parent_hash);
  };
  const int32_t num_before = sequence->num_host_chunks;
  while (sequence->fills_host && (sequence->num_host_chunks + 1) * size <= limit) {
    const int32_t i = sequence->num_host_chunks;
    const std::span<const int32_t> tokens = Piece(sequence->tokens, i, size);
    // Where the chain was evicted meanwhile, its rest would never be found.
    sequence->fills_host = has_parent();
    if (!sequence->fills_host) break;
    int32_t chunk = host_.FindEvenFilling(sequence->host_parent, sequence->cache_salt, tokens);
    if (chunk == BlockPool::kNone) {
      chunk = host_.TryTake();
      if (chunk == BlockPool::kNone) break;
      sequence->fills_host =
          has_parent() && host_.Insert(chunk, sequence->host_parent, sequence->cache_salt, tokens,
                                       BlockPool::Content::kFilling);
      if (!sequence->fills_host) {
        host_.Release(chunk, committed_step_);
        break;
      }
      const int32_t last_block = sequence->block_table[(i + 1) * blocks_per_chunk_ - 1];
      fills_.push_back({chunk, last_block, blocks_.index().hash(last_block)});
    }
    sequence->host_parent = chunk;
    sequence->host_parent_hash = host_.index().hash(chunk);
    ++sequence->num_host_chunks;
  }
  // A text that is hot in device memory is used here too, or it would be gone when it is needed.
  if (sequence->num_host_chunks > num_before && has_parent()) host_.Touch(sequence->host_parent);
}

bool Scheduler::CanFill(const Fill& fill) const {
  const PrefixIndex& index = blocks_.index();
  if (!index.Contains(fill.last_block) || index.hash(fill.last_block) != fill.hash) return false;
  if (!host_.index().Contains(fill.chunk)) return false;
  const int32_t parent = host_.index().parent(fill.chunk);
  return parent == PrefixIndex::kRoot || !is_dropped_chunk_[parent];
}

void Scheduler::DropStaleFills() {
  bool has_stale = false;
  for (const Fill& fill : fills_) {
    is_dropped_chunk_[fill.chunk] = !CanFill(fill);
    has_stale = has_stale || is_dropped_chunk_[fill.chunk];
  }
  if (!has_stale) return;
  // Backwards: children leave the index before their parents.
  for (auto it = fills_.rbegin(); it != fills_.rend(); ++it) {
    if (!is_dropped_chunk_[it->chunk]) continue;
    host_.Forget(it->chunk);
    host_.Release(it->chunk, committed_step_);
  }
  std::erase_if(fills_, [&](const Fill& fill) {
    return std::exchange(is_dropped_chunk_[fill.chunk], uint8_t{0}) != 0;
  });
}

void Scheduler::TakeFills(StepPlan* plan) {
  DropStaleFills();
  // A step moves about as much as it can compute; the rest waits for the next ones.
  const size_t max_fills = 1 + options_.max_num_batched_tokens / options_.host_chunk_tokens;
  const size_t num_fills = std::min(fills_.size(), max_fills);
  for (size_t i = 0; i < num_fills; ++i) {
    const Fill& fill = fills_[i];
    int32_t block = fill.last_block;
    for (int32_t j = blocks_per_chunk_ - 1; j >= 0; --j, block = blocks_.index().parent(block)) {
      plan->page_outs.push_back({block, fill.chunk * blocks_per_chunk_ + j});
    }
    HoldChain(fill.last_block);
    chunks_in_flight_.emplace_back(last_step_, fill.chunk);
  }
  for (auto it = fill_holds_.rbegin(); it != fill_holds_.rend(); ++it) {
    blocks_.Release(*it, last_step_);
  }
  fill_holds_.clear();
  fills_.erase(fills_.begin(), fills_.begin() + static_cast<int64_t>(num_fills));
}

void Scheduler::HoldChain(int32_t last_block) {
  // The whole chain stays until the step has read its end: an entry that is held has parents that
  // are. What an earlier fill of this plan holds is held with its parents.
  const auto num_before = static_cast<int64_t>(fill_holds_.size());
  for (int32_t block = last_block; block != PrefixIndex::kRoot && hold_step_[block] != last_step_;
       block = blocks_.index().parent(block)) {
    hold_step_[block] = last_step_;
    blocks_.Share(block);
    fill_holds_.push_back(block);
  }
  std::reverse(fill_holds_.begin() + num_before, fill_holds_.end());
}

CachedPrefix Scheduler::Lookup(const std::vector<int32_t>& prompt,
                               const std::string& cache_salt) const {
  CachedPrefix cached;
  if (!options_.prefix_cache) return cached;
  const int32_t limit = static_cast<int32_t>(prompt.size()) - 1;
  std::vector<int32_t> found;
  FindDevicePrefix(prompt, cache_salt, limit, &found);
  cached.num_device_tokens = static_cast<int32_t>(found.size()) * options_.block_size;
  found.clear();
  FindHostPrefix(prompt, cache_salt, limit, &found);
  const int64_t in_host = std::min<int64_t>(int64_t{options_.host_chunk_tokens} * found.size(),
                                            limit / options_.block_size * options_.block_size);
  cached.num_host_tokens =
      static_cast<int32_t>(std::max<int64_t>(0, in_host - cached.num_device_tokens));
  return cached;
}

int32_t Scheduler::FlushPrefixCache() {
  const int32_t num_blocks = ForgetPrefixes();
  CheckInDebug();
  return num_blocks;
}

int32_t Scheduler::ForgetPrefixes() {
  // KV that was computed before the flush may never be found after it.
  for (const auto& [id, sequence] : live_) {
    const bool has_kv =
        sequence->phase == Sequence::Phase::kRunning || !sequence->swap_chunks.empty();
    if (!has_kv) continue;
    sequence->is_cacheable = false;
    sequence->fills_host = false;
    sequence->num_indexed = 0;
  }
  host_.Flush();
  return blocks_.Flush();
}

}  // namespace fastgen
