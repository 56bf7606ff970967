// PrefixIndex: which entries (KV blocks, host chunks) hold the KV of which tokens.
//
// An entry stands for `tokens_per_entry` tokens that follow those of its parent; the chain up to
// the root is a prefix of a text. Entries are numbers that the caller chooses, in [0, capacity).
// Lookup goes by a hash chained from the root and then compares parent, tokens and (at the root)
// salt: two texts are never taken for one another, whatever their hashes do. An entry whose hash is
// another's already is not inserted, which costs a hit and nothing else.
//
// Invariant: an entry's parent is in the index as long as it is itself. No allocation after
// construction, but for salts. Thread rule: engine thread only. Tested by
// tests/engine/schedule/prefix_index_test.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace fastgen {

class PrefixIndex {
 public:
  static constexpr int32_t kRoot = -1;
  static constexpr int32_t kNone = -2;

  // `hash_key` makes hashes unpredictable: nobody can craft a text that takes another's place.
  // REQUIRES: capacity >= 0, tokens_per_entry >= 1.
  PrefixIndex(int32_t capacity, int32_t tokens_per_entry, uint64_t hash_key = 0);

  int32_t tokens_per_entry() const { return tokens_per_entry_; }
  int32_t size() const { return static_cast<int32_t>(by_hash_.size()); }

  // The entry that holds `tokens` after `parent`, or kNone. `salt` counts at the root only.
  // REQUIRES: tokens.size() == tokens_per_entry(); parent is kRoot or in the index.
  int32_t Find(int32_t parent, std::string_view salt, std::span<const int32_t> tokens) const;

  // False when the hash is taken. REQUIRES: as Find, which returns kNone; entry is not in the
  // index.
  bool Insert(int32_t entry, int32_t parent, std::string_view salt,
              std::span<const int32_t> tokens);
  // REQUIRES: it is in the index and has no children.
  void Erase(int32_t entry);
  void Clear();

  bool Contains(int32_t entry) const { return is_in_[entry] != 0; }
  // Of an entry in the index.
  int32_t parent(int32_t entry) const { return parent_[entry]; }
  int32_t num_children(int32_t entry) const { return num_children_[entry]; }
  uint64_t hash(int32_t entry) const { return hash_[entry]; }

 private:
  uint64_t ChainHash(int32_t parent, std::string_view salt, std::span<const int32_t> tokens) const;

  const int32_t tokens_per_entry_;
  const uint64_t hash_key_;
  absl::flat_hash_map<uint64_t, int32_t> by_hash_;
  // By entry.
  std::vector<uint8_t> is_in_;
  std::vector<int32_t> parent_;
  std::vector<int32_t> num_children_;
  std::vector<uint64_t> hash_;
  std::vector<int32_t> tokens_;     // [capacity * tokens_per_entry]
  std::vector<std::string> salts_;  // of entries at the root
};

}  // namespace fastgen
