// PrefixIndex: an entry is found by the whole text before it, and by nothing else.
#include "engine/schedule/prefix_index.h"

#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/aborts.h"

namespace fastgen {
namespace {

using testing::Aborts;
using Tokens = std::vector<int32_t>;

constexpr int32_t kRoot = PrefixIndex::kRoot;
constexpr int32_t kNone = PrefixIndex::kNone;

TEST_CASE("a chain is found entry by entry", "[schedule]") {
  PrefixIndex index(8, 2);
  REQUIRE(index.Insert(5, kRoot, "", Tokens{1, 2}));
  REQUIRE(index.Insert(3, 5, "", Tokens{3, 4}));
  REQUIRE(index.Insert(7, 3, "", Tokens{5, 6}));
  CHECK(index.size() == 3);
  CHECK(index.Find(kRoot, "", Tokens{1, 2}) == 5);
  CHECK(index.Find(5, "", Tokens{3, 4}) == 3);
  CHECK(index.Find(3, "", Tokens{5, 6}) == 7);
  CHECK(index.parent(7) == 3);
  CHECK(index.parent(5) == kRoot);
  CHECK(index.num_children(5) == 1);
  CHECK(index.num_children(7) == 0);
}

TEST_CASE("equal tokens after different texts are different entries", "[schedule]") {
  PrefixIndex index(8, 2);
  REQUIRE(index.Insert(0, kRoot, "", Tokens{1, 1}));
  REQUIRE(index.Insert(1, kRoot, "", Tokens{2, 2}));
  CHECK(index.Find(0, "", Tokens{9, 9}) == kNone);
  REQUIRE(index.Insert(2, 0, "", Tokens{9, 9}));
  CHECK(index.Find(1, "", Tokens{9, 9}) == kNone);
  CHECK(index.Find(kRoot, "", Tokens{9, 9}) == kNone);
  REQUIRE(index.Insert(3, 1, "", Tokens{9, 9}));
  REQUIRE(index.Insert(4, kRoot, "", Tokens{9, 9}));
  // Also of one text that repeats itself.
  REQUIRE(index.Insert(5, 4, "", Tokens{9, 9}));
  CHECK(index.Find(0, "", Tokens{9, 9}) == 2);
  CHECK(index.Find(1, "", Tokens{9, 9}) == 3);
  CHECK(index.Find(kRoot, "", Tokens{9, 9}) == 4);
  CHECK(index.Find(4, "", Tokens{9, 9}) == 5);
}

TEST_CASE("tokens are compared in order and in full", "[schedule]") {
  PrefixIndex index(4, 3);
  REQUIRE(index.Insert(0, kRoot, "", Tokens{1, 2, 3}));
  CHECK(index.Find(kRoot, "", Tokens{1, 2, 4}) == kNone);
  CHECK(index.Find(kRoot, "", Tokens{3, 2, 1}) == kNone);
  CHECK(index.Find(kRoot, "", Tokens{0, 0, 0}) == kNone);
  CHECK(index.Find(kRoot, "", Tokens{1, 2, 3}) == 0);
}

TEST_CASE("salts part texts from their root on", "[schedule]") {
  PrefixIndex index(8, 1);
  REQUIRE(index.Insert(0, kRoot, "red", Tokens{1}));
  REQUIRE(index.Insert(1, kRoot, "blue", Tokens{1}));
  REQUIRE(index.Insert(2, kRoot, "", Tokens{1}));
  REQUIRE(index.Insert(3, 0, "red", Tokens{2}));
  CHECK(index.Find(kRoot, "red", Tokens{1}) == 0);
  CHECK(index.Find(kRoot, "blue", Tokens{1}) == 1);
  CHECK(index.Find(kRoot, "", Tokens{1}) == 2);
  CHECK(index.Find(kRoot, "re", Tokens{1}) == kNone);
  CHECK(index.Find(kRoot, std::string("red\0", 4), Tokens{1}) == kNone);
  CHECK(index.Find(0, "red", Tokens{2}) == 3);
  CHECK(index.Find(1, "blue", Tokens{2}) == kNone);
}

TEST_CASE("an erased entry is gone, and its number can stand for another text", "[schedule]") {
  PrefixIndex index(2, 1);
  REQUIRE(index.Insert(0, kRoot, "salt", Tokens{1}));
  REQUIRE(index.Insert(1, 0, "salt", Tokens{2}));
  index.Erase(1);
  CHECK_FALSE(index.Contains(1));
  CHECK(index.num_children(0) == 0);
  CHECK(index.Find(0, "salt", Tokens{2}) == kNone);
  index.Erase(0);
  CHECK(index.size() == 0);
  REQUIRE(index.Insert(0, kRoot, "", Tokens{2}));
  CHECK(index.Find(kRoot, "", Tokens{2}) == 0);
  CHECK(index.Find(kRoot, "salt", Tokens{1}) == kNone);
}

TEST_CASE("a child of an erased parent's number is not taken for the new one's", "[schedule]") {
  PrefixIndex index(4, 1);
  REQUIRE(index.Insert(0, kRoot, "", Tokens{1}));
  REQUIRE(index.Insert(1, 0, "", Tokens{5}));
  index.Erase(1);
  index.Erase(0);
  REQUIRE(index.Insert(0, kRoot, "", Tokens{2}));
  CHECK(index.Find(0, "", Tokens{5}) == kNone);
}

TEST_CASE("a cleared index finds nothing and takes everything again", "[schedule]") {
  PrefixIndex index(3, 1);
  for (int round = 0; round < 3; ++round) {
    REQUIRE(index.Insert(2, kRoot, "s", Tokens{1}));
    REQUIRE(index.Insert(1, 2, "s", Tokens{2}));
    REQUIRE(index.Insert(0, 1, "s", Tokens{3}));
    index.Clear();
    CHECK(index.size() == 0);
    CHECK_FALSE(index.Contains(2));
    CHECK(index.Find(kRoot, "s", Tokens{1}) == kNone);
  }
}

TEST_CASE("an index of capacity 0 finds nothing", "[schedule]") {
  const PrefixIndex index(0, 4);
  CHECK(index.Find(kRoot, "", Tokens{1, 2, 3, 4}) == kNone);
}

TEST_CASE("misuse of a prefix index aborts", "[schedule]") {
  PrefixIndex index(4, 2);
  REQUIRE(index.Insert(0, kRoot, "", Tokens{1, 2}));
  REQUIRE(index.Insert(1, 0, "", Tokens{3, 4}));
  CHECK(Aborts([&] { index.Insert(0, kRoot, "", Tokens{5, 6}); }));  // in the index already
  CHECK(Aborts([&] { index.Insert(2, 3, "", Tokens{5, 6}); }));      // no such parent
  CHECK(Aborts([&] { index.Insert(2, kRoot, "", Tokens{5}); }));     // not full
  CHECK(Aborts([&] { index.Find(kRoot, "", Tokens{1, 2, 3}); }));
  CHECK(Aborts([&] { index.Erase(0); }));  // has a child
  CHECK(Aborts([&] { index.Erase(3); }));  // not in the index
  CHECK(Aborts([] { PrefixIndex(-1, 1); }));
  CHECK(Aborts([] { PrefixIndex(1, 0); }));
}

// An oracle that keeps whole texts.
TEST_CASE("a prefix index agrees with a map of whole texts", "[schedule]") {
  constexpr int32_t kCapacity = 40;
  std::mt19937 random(7);
  const auto below = [&](int32_t limit) { return static_cast<int32_t>(random() % limit); };
  PrefixIndex index(kCapacity, 2);
  std::vector<Tokens> texts(kCapacity);  // by entry; empty: not in the index
  std::map<Tokens, int32_t> entries;
  for (int step = 0; step < 20000; ++step) {
    int32_t parent = below(kCapacity + 8);
    if (parent >= kCapacity || texts[parent].empty()) parent = kRoot;
    Tokens text = parent == kRoot ? Tokens{} : texts[parent];
    const Tokens tokens = {below(3), below(2)};
    text.insert(text.end(), tokens.begin(), tokens.end());
    const auto known = entries.find(text);
    const int32_t found = index.Find(parent, "", tokens);
    REQUIRE(found == (known == entries.end() ? kNone : known->second));
    const int32_t entry = below(kCapacity);
    if (found == kNone && texts[entry].empty() && text.size() < 12) {
      REQUIRE(index.Insert(entry, parent, "", tokens));
      texts[entry] = text;
      entries[text] = entry;
    } else if (!texts[entry].empty() && index.num_children(entry) == 0 && below(3) == 0) {
      index.Erase(entry);
      entries.erase(texts[entry]);
      texts[entry].clear();
    }
    REQUIRE(index.size() == static_cast<int32_t>(entries.size()));
  }
}

}  // namespace
}  // namespace fastgen
