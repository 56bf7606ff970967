// Random rows of SampleRows: any of the rules that change what is chosen from, of sizes from a few
// tokens to the whole vocabulary.
// Thread rule: pure functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/backend.h"

namespace fastgen::testing {

enum Rule : unsigned {
  kPresence = 1,
  kFrequency = 2,
  kRepetition = 4,
  kBias = 8,
  kMask = 16,
  kBanned = 32,
  kAllRules = 63,
};

// A row and what its spans point at.
struct OwnedRow {
  OwnedRow() = default;
  OwnedRow(OwnedRow&&) = default;

  SampleRow row;
  std::vector<TokenCount> history;
  std::vector<LogitBias> bias;
  std::vector<uint32_t> mask;
  std::vector<int32_t> banned;

  // The row with its spans set.
  SampleRow Bind() {
    row.history = absl::MakeSpan(history);
    row.logit_bias = absl::MakeSpan(bias);
    row.allowed_mask = absl::MakeSpan(mask);
    row.banned_tokens = absl::MakeSpan(banned);
    return row;
  }
};

inline std::vector<uint32_t> MaskOf(int64_t vocab, const std::vector<int32_t>& allowed) {
  std::vector<uint32_t> mask(static_cast<size_t>((vocab + 31) / 32));
  for (int32_t id : allowed) mask[static_cast<size_t>(id / 32)] |= 1u << id % 32;
  return mask;
}

// Every id once in ascending order, each with the probability `part`; never none.
inline std::vector<int32_t> Subset(int64_t vocab, double part, std::mt19937* random) {
  std::vector<int32_t> ids;
  for (int64_t id = 0; id < vocab; ++id) {
    if (std::uniform_real_distribution<>()(*random) < part) ids.push_back(static_cast<int32_t>(id));
  }
  if (ids.empty()) ids.push_back(static_cast<int32_t>(vocab / 2));
  return ids;
}

// A row with those rules, its filters off. Whatever the seed, some token is left.
inline OwnedRow RandomRow(int64_t vocab, unsigned rules, uint32_t seed) {
  std::mt19937 random(seed);
  const auto uniform = [&](float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(random);
  };
  OwnedRow owned;
  SampleRow& row = owned.row;
  row.seed = seed;
  row.output_position = seed % 17;
  row.num_top_logprobs = static_cast<int32_t>(seed % 6) - 1;
  if ((rules & (kPresence | kFrequency | kRepetition)) != 0) {
    // From a handful of tokens to the whole vocabulary.
    const double parts[] = {5.0 / static_cast<double>(vocab), 0.1, 0.5, 2};
    for (int32_t id : Subset(vocab, parts[seed % 4], &random)) {
      owned.history.push_back({id, static_cast<int32_t>(random() % 4)});
    }
  }
  if ((rules & kPresence) != 0) row.presence_penalty = uniform(-2, 2);
  if ((rules & kFrequency) != 0) row.frequency_penalty = uniform(-2, 2);
  if ((rules & kRepetition) != 0) row.repetition_penalty = uniform(0.5f, 2);
  if ((rules & kBias) != 0) {
    std::vector<int32_t> ids =
        Subset(vocab, std::min(0.5, 300.0 / static_cast<double>(vocab)), &random);
    std::shuffle(ids.begin(), ids.end(), random);
    for (int32_t id : ids) owned.bias.push_back({id, uniform(-6, 6)});
  }
  if ((rules & kMask) != 0)
    owned.mask = MaskOf(vocab, Subset(vocab, seed % 2 == 0 ? 0.5 : 0.02, &random));
  if ((rules & kBanned) != 0) {
    // Best tokens included; id 1 stays, so that something is left.
    owned.banned = Subset(vocab, 0.3, &random);
    owned.banned.erase(std::remove(owned.banned.begin(), owned.banned.end(), 1),
                       owned.banned.end());
    if (!owned.mask.empty()) owned.mask[0] |= 2;
  }
  return owned;
}

}  // namespace fastgen::testing
