#include "engine/text/bpe_merges.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace fastgen {
namespace {

using Ids = std::vector<int32_t>;

// The rule as it is written down: one merge after another, each found by looking at every pair.
Ids MergeSlowly(Ids ids,
                const std::map<std::pair<int32_t, int32_t>, std::pair<uint32_t, int32_t>>& merges) {
  while (true) {
    size_t best = ids.size();
    uint32_t best_rank = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto merge = merges.find({ids[i], ids[i + 1]});
      if (merge == merges.end()) continue;
      if (best == ids.size() || merge->second.first < best_rank) {
        best = i;
        best_rank = merge->second.first;
      }
    }
    if (best == ids.size()) return ids;
    ids[best] = merges.at({ids[best], ids[best + 1]}).second;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

}  // namespace

TEST_CASE("short and long words merge by the rule", "[text]") {
  const uint32_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    // Ids 0 to 3 are symbols; each merge makes a new id of two that exist. Ranks are shuffled, so
    // that a merge may open the way to one of a lower rank.
    const int32_t num_merges = 1 + static_cast<int32_t>(random() % 30);
    std::vector<uint32_t> ranks;
    for (int32_t i = 0; i < num_merges; ++i) ranks.push_back(static_cast<uint32_t>(i));
    if (round % 2 == 0) std::shuffle(ranks.begin(), ranks.end(), random);
    std::map<std::pair<int32_t, int32_t>, std::pair<uint32_t, int32_t>> merges;
    BpeMerges fast;
    for (int32_t i = 0; i < num_merges; ++i) {
      const uint32_t num_ids = static_cast<uint32_t>(4 + i);
      const std::pair<int32_t, int32_t> pair = {static_cast<int32_t>(random() % num_ids),
                                                static_cast<int32_t>(random() % num_ids)};
      const std::pair<uint32_t, int32_t> merge = {ranks[static_cast<size_t>(i)], 4 + i};
      merges[pair] = merge;
      fast.Add(pair.first, pair.second, merge.first, merge.second);
    }
    BpeMerges::Scratch scratch;
    for (const size_t length : {0, 1, 2, 5, 20, 47, 48, 49, 100, 400}) {
      Ids ids;
      for (size_t i = 0; i < length; ++i) ids.push_back(static_cast<int32_t>(random() % 4));
      const Ids expected = MergeSlowly(ids, merges);
      fast.Merge(&ids, &scratch);
      REQUIRE(ids == expected);
    }
  }
}

TEST_CASE("equal pairs merge from the left", "[text]") {
  BpeMerges merges;
  merges.Add(0, 0, 0, 1);
  BpeMerges::Scratch scratch;
  for (const size_t length : {3, 49, 101}) {
    Ids ids(length, 0);
    merges.Merge(&ids, &scratch);
    CHECK(ids.size() == length / 2 + 1);
    CHECK(ids.front() == 1);
    CHECK(ids.back() == 0);
  }
}

TEST_CASE("doubling a huge word about doubles the time", "[text]") {
  // 20 merges, each of two equal tokens: a word of n symbols takes n merges in all.
  BpeMerges merges;
  for (int32_t i = 0; i < 20; ++i) merges.Add(i, i, static_cast<uint32_t>(i), i + 1);
  std::string times;
  for (const int32_t log2_length : {18, 19, 20}) {
    Ids ids(size_t{1} << log2_length, 0);
    BpeMerges::Scratch scratch;
    const auto begin = std::chrono::steady_clock::now();
    merges.Merge(&ids, &scratch);
    times += " " + std::to_string(std::chrono::duration<double, std::milli>(
                                      std::chrono::steady_clock::now() - begin)
                                      .count());
    CHECK(ids == Ids{log2_length});
  }
  INFO("milliseconds:" << times);
  SUCCEED();
}

}  // namespace fastgen
