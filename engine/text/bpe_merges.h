// BpeMerges: the merge rules of a byte-pair vocabulary, and applying them to one word.
//
// The rule: of all adjacent pairs that have a merge, the one of the lowest rank is replaced, the
// leftmost first, until no pair has one. Short words look for it by scanning; long ones keep the
// pairs in a heap and the symbols in a linked list, so that n symbols take O(n log n) whatever they
// are.
// Thread rule: Merge is const; a Scratch belongs to one call at a time.
// Tested by tests/engine/text/bpe_merges_test.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace fastgen {

class BpeMerges {
 public:
  // Memory that calls reuse from word to word.
  class Scratch {
   private:
    friend class BpeMerges;
    struct Symbol {
      int32_t id;
      int32_t previous;  // -1: none
      int32_t next;      // -1: none
    };
    std::vector<uint64_t> pairs_;
    std::vector<Symbol> symbols_;
    std::vector<uint64_t> heap_;  // rank << 32 | position of the left symbol
  };

  // The pair (left, right) becomes `merged`. A pair that is added again takes the later rank.
  void Add(int32_t left, int32_t right, uint32_t rank, int32_t merged);
  void Reserve(size_t num_merges) { merges_.reserve(num_merges); }

  // Replaces pairs in `ids` until none is left to merge. REQUIRES: fewer than 2^31 ids.
  void Merge(std::vector<int32_t>* ids, Scratch* scratch) const;

 private:
  // rank << 32 | merged id; kNoMerge where the pair has none.
  uint64_t Find(int32_t left, int32_t right) const;
  void MergeShort(std::vector<int32_t>* ids, Scratch* scratch) const;
  void MergeLong(std::vector<int32_t>* ids, Scratch* scratch) const;
  // The merge of the symbol at `position` with the next one.
  uint64_t FindAt(int32_t position, const Scratch& scratch) const;

  absl::flat_hash_map<uint64_t, uint64_t> merges_;
};

}  // namespace fastgen
