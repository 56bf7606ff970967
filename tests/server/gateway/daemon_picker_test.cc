#include "server/gateway/daemon_picker.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <set>
#include <string>

namespace fastgen::gateway {
namespace {

using Use = Candidate::Use;

std::vector<Candidate> Daemons(size_t n) {
  std::vector<Candidate> daemons(n);
  for (size_t i = 0; i < n; ++i) daemons[i].name_hash = HashOf("10.0.0." + std::to_string(i));
  return daemons;
}

// A text of the given length, other than that of another seed from the first byte on.
std::string Text(uint64_t seed, size_t num_bytes) {
  std::mt19937_64 random(seed);
  std::string text(num_bytes, ' ');
  for (char& c : text) c = static_cast<char>('a' + random() % 26);
  return text;
}

PrefixHashes HashesOf(const std::string& text, const std::string& salt = "",
                      const Headers& metadata = {}) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.set_cache_salt(salt);
  return HashesOfPrompt(request, metadata);
}

// ---- hashes

TEST_CASE("prompts share the hashes of what they have in common", "[gateway]") {
  const std::string common = Text(1, 3000);
  const PrefixHashes one = HashesOf(common + Text(2, 3000));
  const PrefixHashes other = HashesOf(common + Text(3, 9000));
  REQUIRE(one.size() == 5);    // 256 512 1024 2048 4096
  REQUIRE(other.size() == 6);  // and 8192
  for (size_t i = 0; i < one.size(); ++i) CHECK((one[i] == other[i]) == (i < 4));
  CHECK(HashesOf(Text(1, 255)).empty());
  CHECK(HashesOf(Text(1, 256)).size() == 1);
  CHECK(HashesOf(Text(1, 4 << 20)).size() == kMaxPrefixes);
}

TEST_CASE("what salt and key keep apart has no hash in common", "[gateway]") {
  const std::string text = Text(1, 600);
  std::set<uint64_t> seen;
  for (const PrefixHashes& hashes :
       {HashesOf(text), HashesOf(text, "salt"), HashesOf(text, "", {{"authorization", "Bearer a"}}),
        HashesOf(text, "", {{"authorization", "Bearer b"}}),
        HashesOf(text, "", {{"x-api-key", "a"}, {"authorization", "Bearer a"}})}) {
    seen.insert(hashes.begin(), hashes.end());
  }
  CHECK(seen.size() == 5 * 2);
  CHECK(HashesOf(text, "", {{"traceparent", "00-1-2-03"}}) == HashesOf(text));
}

TEST_CASE("a conversation's next turn has the hashes of the one before", "[gateway]") {
  v1::GenerateRequest turn;
  const auto say = [&turn](const std::string& role, const std::string& content) {
    auto* message = turn.mutable_chat()->add_messages();
    message->set_role(role);
    message->set_content(content);
  };
  say("system", Text(1, 700));
  say("user", Text(2, 100));
  const PrefixHashes before = HashesOfPrompt(turn, {});
  say("assistant", Text(3, 400));
  say("user", Text(4, 900));
  const PrefixHashes after = HashesOfPrompt(turn, {});
  REQUIRE(before.size() == 2);
  REQUIRE(after.size() == 4);
  CHECK(std::equal(before.begin(), before.end(), after.begin()));
  turn.mutable_chat()->mutable_messages(0)->set_role("user");
  CHECK(HashesOfPrompt(turn, {})[0] != before[0]);
  turn.mutable_chat()->mutable_messages(0)->set_role("system");
  turn.mutable_chat()->add_tools_json("{}");
  CHECK(HashesOfPrompt(turn, {})[0] != before[0]);
}

TEST_CASE("prompts of token ids are hashed by their ids", "[gateway]") {
  v1::GenerateRequest one, other;
  for (int i = 0; i < 128; ++i) {
    one.mutable_token_ids()->add_ids(i * 7);
    other.mutable_token_ids()->add_ids(i < 64 ? i * 7 : i * 70000);
  }
  const PrefixHashes a = HashesOfPrompt(one, {}), b = HashesOfPrompt(other, {});
  REQUIRE(a.size() == 2);  // 64 ids of four bytes, and 128
  REQUIRE(b.size() == 2);
  CHECK(a[0] == b[0]);
  CHECK(a[1] != b[1]);
}

// ---- picks

TEST_CASE("a daemon that is unwell is not picked while another is well", "[gateway]") {
  std::mt19937_64 random(7);
  DaemonPicker picker({});
  for (int round = 0; round < 5000; ++round) {
    std::vector<Candidate> daemons = Daemons(1 + random() % 6);
    Use best = Use::kNever;
    for (Candidate& daemon : daemons) {
      daemon.use = static_cast<Use>(random() % 3);
      daemon.load = static_cast<int32_t>(random() % 50);
      best = std::max(best, daemon.use);
    }
    const auto picked = picker.Pick(daemons, HashesOf(Text(random() % 20, random() % 3000)));
    REQUIRE(picked.has_value() == (best != Use::kNever));
    if (picked.has_value()) REQUIRE(daemons[*picked].use == best);
  }
  CHECK_FALSE(picker.Pick({}, {}).has_value());
}

TEST_CASE("the same beginning goes to the same daemon while loads are even", "[gateway]") {
  const std::vector<Candidate> daemons = Daemons(5);
  DaemonPicker picker({}), another_gateway({});
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::string system = Text(seed, 300);
    const auto first = picker.Pick(daemons, HashesOf(system));
    for (uint64_t user = 0; user < 5; ++user) {
      CHECK(picker.Pick(daemons, HashesOf(system + Text(user, 100 * user))) == first);
    }
    CHECK(another_gateway.Pick(daemons, HashesOf(system)) == first);
  }
}

TEST_CASE("beginnings are spread over all daemons", "[gateway]") {
  const std::vector<Candidate> daemons = Daemons(4);
  DaemonPicker picker({});
  std::vector<int> count(4);
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    ++count[*picker.Pick(daemons, HashesOf(Text(seed, 256)))];
  }
  for (int n : count) {
    CHECK(n > 850);
    CHECK(n < 1150);
  }
}

TEST_CASE("no daemon's load passes the bound, whatever all begin with", "[gateway]") {
  const size_t num_daemons = GENERATE(2u, 3u, 7u);
  const double load_bound = GENERATE(1.0, 1.25, 2.0);
  std::vector<Candidate> daemons = Daemons(num_daemons);
  PickerOptions options;
  options.load_bound = load_bound;
  DaemonPicker picker(options);
  const PrefixHashes hot = HashesOf(Text(1, GENERATE(256u, 5000u)));
  const auto first = picker.Pick(daemons, hot);
  for (int total = 1; total <= 500; ++total) {
    ++daemons[*picker.Pick(daemons, hot)].load;
    const int limit =
        static_cast<int>(std::ceil(load_bound * total / static_cast<double>(num_daemons))) +
        options.slack;
    for (const Candidate& daemon : daemons) REQUIRE(daemon.load <= limit);
  }
  // Where the bound is the load of all, there is nothing to keep from its daemon.
  CHECK((picker.num_spills() > 0) == (load_bound < static_cast<double>(num_daemons)));
  if (hot.size() > 1) return;
  // Its own daemon is kept as busy as the bound lets it be.
  for (const Candidate& daemon : daemons) CHECK(daemon.load <= daemons[*first].load);
}

TEST_CASE("a daemon that goes or comes moves its share of beginnings and no other", "[gateway]") {
  DaemonPicker picker({});
  const std::vector<Candidate> all = Daemons(5);
  std::vector<Candidate> without = all;
  without[2].use = Use::kNever;
  int moved = 0;
  const int num_prefixes = 3000;
  for (uint64_t seed = 0; seed < num_prefixes; ++seed) {
    const PrefixHashes prefix = HashesOf(Text(seed, 256));
    const size_t before = *picker.Pick(all, prefix);
    const size_t after = *picker.Pick(without, prefix);
    REQUIRE(after != 2);
    if (before != 2) REQUIRE(after == before);
    moved += before == 2 ? 1 : 0;
    REQUIRE(*picker.Pick(all, prefix) == before);
  }
  CHECK(moved > num_prefixes / 5 * 8 / 10);
  CHECK(moved < num_prefixes / 5 * 12 / 10);
}

TEST_CASE("a conversation stays where its earlier turns ran", "[gateway]") {
  std::vector<Candidate> daemons = Daemons(3);
  DaemonPicker picker({});
  const std::string system = Text(1, 400);
  const size_t home = *picker.Pick(daemons, HashesOf(system + Text(2, 400)));
  daemons[home].load = 40;
  const std::string conversation = system + Text(3, 400);
  const size_t moved = *picker.Pick(daemons, HashesOf(conversation));
  REQUIRE(moved != home);
  daemons[home].load = 0;
  CHECK(*picker.Pick(daemons, HashesOf(conversation + Text(4, 2000))) == moved);
  CHECK(*picker.Pick(daemons, HashesOf(conversation + Text(4, 2000) + Text(5, 300))) == moved);
  // Other conversations of the same opening are where they were.
  CHECK(*picker.Pick(daemons, HashesOf(system + Text(6, 400))) == home);
  // Until the bound says no.
  daemons[moved].load = 40;
  CHECK(*picker.Pick(daemons, HashesOf(conversation + Text(4, 2000))) != moved);
}

TEST_CASE("what is remembered of conversations is bounded", "[gateway]") {
  std::vector<Candidate> daemons = Daemons(3);
  PickerOptions options;
  options.max_remembered = 8;
  DaemonPicker picker(options);
  const PrefixHashes conversation = HashesOf(Text(1, 512));
  const size_t home = *picker.Pick(daemons, conversation);
  daemons[home].load = 40;
  const size_t moved = *picker.Pick(daemons, conversation);
  daemons[home].load = 0;
  REQUIRE(*picker.Pick(daemons, conversation) == moved);
  for (uint64_t seed = 2; seed < 11; ++seed) picker.Pick(daemons, HashesOf(Text(seed, 512)));
  CHECK(*picker.Pick(daemons, conversation) == home);
}

TEST_CASE("short prompts go to the least loaded, in turn where several are", "[gateway]") {
  std::vector<Candidate> daemons = Daemons(3);
  DaemonPicker picker({});
  std::vector<int> count(3);
  for (int i = 0; i < 30; ++i) ++count[*picker.Pick(daemons, {})];
  CHECK(count == std::vector<int>{10, 10, 10});
  daemons[0].load = 5;
  daemons[1].load = 4;
  daemons[2].load = 5;
  for (int i = 0; i < 5; ++i) CHECK(*picker.Pick(daemons, {}) == 1);
}

}  // namespace
}  // namespace fastgen::gateway
