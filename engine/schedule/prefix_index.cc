#include "engine/schedule/prefix_index.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace fastgen {
namespace {

// A bijective mix of 64 bits (multiply, fold, multiply), so that chains of equal tokens do not
// collide.
uint64_t Mix(uint64_t value) {
  value *= 0x9fb21c651e98df25u;
  value ^= value >> 35;
  value *= 0xd1342543de82ef95u;
  return value ^ (value >> 32);
}

}  // namespace

PrefixIndex::PrefixIndex(int32_t capacity, int32_t tokens_per_entry, uint64_t hash_key)
    : tokens_per_entry_(tokens_per_entry), hash_key_(hash_key) {
  CHECK_GE(capacity, 0);
  CHECK_GE(tokens_per_entry, 1);
  by_hash_.reserve(capacity);
  is_in_.assign(capacity, 0);
  parent_.assign(capacity, kNone);
  num_children_.assign(capacity, 0);
  hash_.assign(capacity, 0);
  tokens_.assign(int64_t{1} * capacity * tokens_per_entry, 0);
  salts_.resize(capacity);
}

uint64_t PrefixIndex::ChainHash(int32_t parent, std::string_view salt,
                                std::span<const int32_t> tokens) const {
  uint64_t hash =
      parent == kRoot ? Mix(hash_key_ ^ (std::hash<std::string_view>()(salt) + 1)) : hash_[parent];
  // The key goes in at every step: the chain alone could be run backwards from a hash.
  for (const int32_t token : tokens) hash = Mix(hash ^ hash_key_ ^ static_cast<uint32_t>(token));
  return hash;
}

int32_t PrefixIndex::Find(int32_t parent, std::string_view salt,
                          std::span<const int32_t> tokens) const {
  CHECK_EQ(static_cast<int32_t>(tokens.size()), tokens_per_entry_);
  if (by_hash_.empty()) return kNone;
  const auto it = by_hash_.find(ChainHash(parent, salt, tokens));
  if (it == by_hash_.end()) return kNone;
  const int32_t entry = it->second;
  if (parent_[entry] != parent || (parent == kRoot && salts_[entry] != salt)) return kNone;
  const auto held = tokens_.begin() + int64_t{1} * entry * tokens_per_entry_;
  return std::equal(tokens.begin(), tokens.end(), held) ? entry : kNone;
}

bool PrefixIndex::Insert(int32_t entry, int32_t parent, std::string_view salt,
                         std::span<const int32_t> tokens) {
  CHECK_EQ(static_cast<int32_t>(tokens.size()), tokens_per_entry_);
  CHECK(!Contains(entry)) << "entry " << entry << " is in the index";
  CHECK(parent == kRoot || Contains(parent)) << "entry " << entry << " has no parent " << parent;
  const uint64_t hash = ChainHash(parent, salt, tokens);
  if (!by_hash_.emplace(hash, entry).second) return false;
  is_in_[entry] = 1;
  parent_[entry] = parent;
  hash_[entry] = hash;
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + int64_t{1} * entry * tokens_per_entry_);
  if (parent == kRoot) {
    salts_[entry] = salt;
  } else {
    ++num_children_[parent];
  }
  return true;
}

void PrefixIndex::Erase(int32_t entry) {
  CHECK(Contains(entry)) << "entry " << entry << " is not in the index";
  CHECK_EQ(num_children_[entry], 0) << "entry " << entry;
  by_hash_.erase(hash_[entry]);
  if (parent_[entry] == kRoot) {
    salts_[entry].clear();
  } else {
    --num_children_[parent_[entry]];
  }
  is_in_[entry] = 0;
  parent_[entry] = kNone;
}

void PrefixIndex::Clear() {
  by_hash_.clear();
  std::fill(is_in_.begin(), is_in_.end(), 0);
  std::fill(parent_.begin(), parent_.end(), kNone);
  std::fill(num_children_.begin(), num_children_.end(), 0);
  for (std::string& salt : salts_) salt.clear();
}

}  // namespace fastgen
