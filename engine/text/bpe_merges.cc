#include "engine/text/bpe_merges.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "base/check.h"

namespace fastgen {
namespace {

constexpr uint64_t kNoMerge = std::numeric_limits<uint64_t>::max();

// Up to here the scan is faster than the heap.
constexpr size_t kMaxShortWord = 48;

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// The lower half of what the table holds, and of a candidate.
constexpr uint64_t kIdMask = 0xFFFFFFFF;

}  // namespace

void BpeMerges::Add(int32_t left, int32_t right, uint32_t rank, int32_t merged) {
  merges_[PairKey(left, right)] = uint64_t{rank} << 32 | static_cast<uint32_t>(merged);
}

uint64_t BpeMerges::Find(int32_t left, int32_t right) const {
  const auto merge = merges_.find(PairKey(left, right));
  return merge == merges_.end() ? kNoMerge : merge->second;
}

void BpeMerges::Merge(std::vector<int32_t>* ids, Scratch* scratch) const {
  if (ids->size() < 2) return;
  if (ids->size() <= kMaxShortWord) {
    MergeShort(ids, scratch);
  } else {
    MergeLong(ids, scratch);
  }
}

void BpeMerges::MergeShort(std::vector<int32_t>* ids, Scratch* scratch) const {
  std::vector<uint64_t>& pairs = scratch->pairs_;  // pairs[i]: the merge of symbols i and i + 1
  pairs.clear();
  for (size_t i = 0; i + 1 < ids->size(); ++i) pairs.push_back(Find((*ids)[i], (*ids)[i + 1]));
  while (!pairs.empty()) {
    const auto lowest = std::min_element(pairs.begin(), pairs.end());
    if (*lowest == kNoMerge) return;
    const size_t i = static_cast<size_t>(lowest - pairs.begin());
    (*ids)[i] = static_cast<int32_t>(*lowest & kIdMask);
    ids->erase(ids->begin() + static_cast<ptrdiff_t>(i) + 1);
    pairs.erase(lowest);
    if (i > 0) pairs[i - 1] = Find((*ids)[i - 1], (*ids)[i]);
    if (i < pairs.size()) pairs[i] = Find((*ids)[i], (*ids)[i + 1]);
  }
}

uint64_t BpeMerges::FindAt(int32_t position, const Scratch& scratch) const {
  const Scratch::Symbol& left = scratch.symbols_[static_cast<size_t>(position)];
  if (left.next < 0) return kNoMerge;
  return Find(left.id, scratch.symbols_[static_cast<size_t>(left.next)].id);
}

void BpeMerges::MergeLong(std::vector<int32_t>* ids, Scratch* scratch) const {
  CHECK_LE(ids->size(), static_cast<size_t>(std::numeric_limits<int32_t>::max()));
  const int32_t num_symbols = static_cast<int32_t>(ids->size());
  std::vector<Scratch::Symbol>& symbols = scratch->symbols_;
  std::vector<uint64_t>& heap = scratch->heap_;
  symbols.clear();
  heap.clear();
  for (int32_t i = 0; i < num_symbols; ++i) {
    symbols.push_back({(*ids)[static_cast<size_t>(i)], i - 1, i + 1 < num_symbols ? i + 1 : -1});
  }
  const auto append_candidate = [&](int32_t position) {
    const uint64_t merge = FindAt(position, *scratch);
    if (merge == kNoMerge) return false;
    heap.push_back((merge & ~kIdMask) | static_cast<uint32_t>(position));
    return true;
  };
  for (int32_t i = 0; i < num_symbols; ++i) append_candidate(i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());

  const auto push_candidate = [&](int32_t position) {
    if (append_candidate(position)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t candidate = heap.back();
    heap.pop_back();
    const int32_t position = static_cast<int32_t>(candidate & kIdMask);
    Scratch::Symbol& left = symbols[static_cast<size_t>(position)];
    // Candidates are not removed when a neighbour takes one of their symbols. They are recognised
    // here: a symbol that was taken has id -1, and a pair that has changed has another rank.
    if (left.id < 0) continue;
    const uint64_t merge = FindAt(position, *scratch);
    if (merge == kNoMerge || (merge ^ candidate) >> 32 != 0) continue;
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = static_cast<int32_t>(merge & kIdMask);
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = position;
    push_candidate(position);
    if (left.previous >= 0) push_candidate(left.previous);
  }

  ids->clear();
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    ids->push_back(symbols[static_cast<size_t>(i)].id);
  }
  // One huge word must not pin its memory while the rest of the text is read.
  if (symbols.capacity() > (1u << 20)) {
    std::vector<Scratch::Symbol>().swap(symbols);
    std::vector<uint64_t>().swap(heap);
  }
}

}  // namespace fastgen
