#include <algorithm>
#include <limits>

#include "kernels/cpu/philox.h"
#include "tests/kernels/random_sample_row.h"
#include "tests/kernels/sampling_under_test.h"

namespace fastgen::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The token is the one that the oracle's distribution has at this row's draw. Both sides round, so
// the ends of a token's interval are soft.
void CheckDrawn(const SampleResult& result, const std::vector<float>& logits,
                const SampleRow& row) {
  const std::vector<double> p = ReferenceDistribution(logits, row);
  const double draw = cpu::UniformDraw(row.seed, row.choice_index, row.output_position);
  double before = 0;
  for (int32_t id = 0; id < result.token; ++id) before += p[static_cast<size_t>(id)];
  CHECK(p[static_cast<size_t>(result.token)] > 0);
  CHECK(draw > before - 1e-5);
  CHECK(draw < before + p[static_cast<size_t>(result.token)] + 1e-5);
}

void CheckGreedy(const SampleResult& result, const std::vector<float>& logits,
                 const SampleRow& row) {
  const std::vector<double> ruled = ReferenceRuledLogits(logits, row);
  const double best = *std::max_element(ruled.begin(), ruled.end());
  CHECK(ruled[static_cast<size_t>(result.token)] >= best - 1e-5 * std::max(1.0, std::fabs(best)));
}

// What the row reports is what it would report of that token without any rule, bit by bit.
void CheckReport(Backend* backend, const SampleResult& result, const std::vector<float>& logits,
                 const SampleRow& row) {
  SampleRow plain;
  plain.target_token = result.token;
  plain.num_top_logprobs = row.num_top_logprobs;
  const SampleResult expected = SampleOne(backend, logits, plain);
  CHECK(result.logprob == expected.logprob);
  CHECK(result.rank == expected.rank);
  for (int32_t i = 0; i < row.num_top_logprobs; ++i) {
    CHECK(result.top[i].token == expected.top[i].token);
    CHECK(result.top[i].logprob == expected.top[i].logprob);
  }
}

std::vector<std::unique_ptr<Backend>> AllPaths() {
  std::vector<std::unique_ptr<Backend>> backends;
  for (const std::string& path : Paths()) {
    backends.push_back(Open(OptionsFor(path, ComputeDType::kAuto, 2)));
  }
  return backends;
}

TEST_CASE("every rule, alone and with all others, chooses as the oracle does", "[kernels]") {
  const std::vector<std::unique_ptr<Backend>> backends = AllPaths();
  const int64_t vocab = GENERATE(24, 1000, 49152);
  const uint32_t num_seeds = vocab > 10000 ? 4 : 24;
  for (unsigned rules : {0u, 1u, 2u, 4u, 8u, 16u, 32u, 63u}) {
    for (uint32_t seed = 0; seed < num_seeds; ++seed) {
      const std::vector<float> logits = Gaussian(vocab, seed + 100, 3);
      OwnedRow owned = RandomRow(vocab, rules, seed);
      SampleRow row = owned.Bind();
      for (int mode = 0; mode < 3; ++mode) {
        row.temperature = mode == 0 ? 0.0f : 0.9f;
        row.top_k = mode == 2 ? static_cast<int32_t>(3 + seed * 5) : 0;
        row.top_p = mode == 2 ? 0.93f : 1.0f;
        row.min_p = mode == 2 && seed % 3 == 0 ? 0.01f : 0.0f;
        INFO("vocab " << vocab << " rules " << rules << " seed " << seed << " mode " << mode);
        for (const auto& backend : backends) {
          const SampleResult result = SampleOne(backend.get(), logits, row);
          REQUIRE((result.token >= 0 && result.token < vocab && !result.is_nan));
          mode == 0 ? CheckGreedy(result, logits, row) : CheckDrawn(result, logits, row);
          if (row.num_top_logprobs >= 0) CheckReport(backend.get(), result, logits, row);
        }
      }
    }
  }
}

TEST_CASE("penalties follow the sign of the logit and the place where a token was seen",
          "[kernels]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  const auto greedy = [&](std::vector<float> logits, std::vector<TokenCount> history,
                          float repetition, float presence, float frequency) {
    SampleRow row;
    row.history = absl::MakeSpan(history);
    row.repetition_penalty = repetition;
    row.presence_penalty = presence;
    row.frequency_penalty = frequency;
    return SampleOne(backend.get(), logits, row).token;
  };
  // Repetition divides what is positive, multiplies what is not, in the prompt too.
  CHECK(greedy({2, 1.1f}, {{0, 0}}, 2, 0, 0) == 1);
  CHECK(greedy({2, 0.9f}, {{0, 0}}, 2, 0, 0) == 0);
  CHECK(greedy({-1, -1.9f}, {{0, 1}}, 2, 0, 0) == 1);
  CHECK(greedy({-1, -2.1f}, {{0, 1}}, 2, 0, 0) == 0);
  CHECK(greedy({-1, -2}, {{1, 1}}, 0.25f, 0, 0) == 1);
  CHECK(greedy({0, -1}, {{0, 1}}, 2, 0, 0) == 0);
  // Presence counts once, frequency every time, neither in the prompt.
  CHECK(greedy({3, 2}, {{0, 5}}, 1, 1.1f, 0) == 1);
  CHECK(greedy({3, 2}, {{0, 5}}, 1, 0.9f, 0) == 0);
  CHECK(greedy({3, 2}, {{0, 0}}, 1, 2, 2) == 0);
  CHECK(greedy({3, 2}, {{1, 1}}, 1, -1.1f, 0) == 1);
  CHECK(greedy({5, 2}, {{0, 2}}, 1, 0, 1.4f) == 0);
  CHECK(greedy({5, 2}, {{0, 2}}, 1, 0, 1.6f) == 1);
  CHECK(greedy({9, 2}, {{1, 4}}, 1, 0, -2) == 1);
  // Repetition comes first: 4 / 2 - 1.5 - 1 = -0.5, not (4 - 2.5) / 2.
  CHECK(greedy({4, -0.4f}, {{0, 1}}, 2, 1.5f, 1) == 1);
  CHECK(greedy({4, -0.6f}, {{0, 1}}, 2, 1.5f, 1) == 0);
  // Of equals the lowest id, as without rules.
  CHECK(greedy({1, 3, 3}, {{1, 1}, {2, 1}}, 1, 1, 0) == 1);
  CHECK(greedy({2, 3, 3}, {{1, 1}, {2, 1}}, 1, 1, 0) == 0);
}

TEST_CASE("rules that change nothing change no draw", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 2));
  const int64_t vocab = 1000;
  const std::vector<float> logits = Gaussian(vocab, 4);
  OwnedRow idle;
  for (int32_t id = 0; id < vocab; id += 3) idle.history.push_back({id, id % 2});
  OwnedRow everything;
  everything.mask.assign(static_cast<size_t>((vocab + 31) / 32), ~0u);
  everything.bias = {{7, 0.0f}, {-1, 50.0f}, {1000, 50.0f}, {1 << 30, 50.0f}};
  everything.history = {{std::numeric_limits<int32_t>::min(), 3}, {1000, 2}, {1 << 30, 2}};
  everything.row.presence_penalty = 2;
  everything.banned = {-1, 1000, std::numeric_limits<int32_t>::min()};
  for (uint32_t position = 0; position < 100; ++position) {
    SampleRow plain;
    plain.temperature = 1;
    plain.output_position = position;
    plain.top_p = position % 2 == 0 ? 1.0f : 0.7f;
    const int32_t token = SampleOne(backend.get(), logits, plain).token;
    for (OwnedRow* owned : {&idle, &everything}) {
      owned->row.temperature = 1;
      owned->row.output_position = position;
      owned->row.top_p = plain.top_p;
      CHECK(SampleOne(backend.get(), logits, owned->Bind()).token == token);
    }
  }
}

TEST_CASE("a bias of 100 forces a token and one of -100 forbids it", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  for (int64_t vocab : {24, 1000, 49152}) {
    const std::vector<float> logits = Gaussian(vocab, 6);
    for (float temperature : {0.0f, 1.0f}) {
      for (int32_t id : {0, 17, static_cast<int32_t>(vocab - 1)}) {
        SampleRow row;
        row.temperature = temperature;
        row.top_p = 0.9f;
        const LogitBias forced = {id, 100};
        row.logit_bias = {&forced, 1};
        CHECK(SampleOne(backend.get(), logits, row).token == id);
        std::vector<float> tempting = logits;
        tempting[static_cast<size_t>(id)] = 20;
        const LogitBias forbidden = {id, -100};
        row.logit_bias = {&forbidden, 1};
        CHECK(SampleOne(backend.get(), tempting, row).token != id);
      }
    }
  }
}

TEST_CASE("a mask with one token gives that token, whatever lies past the vocabulary",
          "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  for (int64_t vocab : {1, 24, 32, 33, 64, 65, 1000, 49152}) {
    const std::vector<float> logits = Gaussian(vocab, 6);
    for (int64_t at : {int64_t{0}, int64_t{15}, int64_t{31}, int64_t{32}, int64_t{63}, int64_t{64},
                       vocab / 2, vocab - 1}) {
      if (at >= vocab) continue;
      std::vector<uint32_t> mask = MaskOf(vocab, {static_cast<int32_t>(at)});
      if (vocab % 32 != 0) mask.back() |= ~0u << vocab % 32;
      for (int mode = 0; mode < 4; ++mode) {
        SampleRow row;
        row.allowed_mask = absl::MakeSpan(mask);
        row.temperature = mode == 0 ? 0.0f : 1.0f;
        row.top_k = mode == 2 ? 40 : 0;
        row.top_p = mode == 3 ? 0.9f : 1.0f;
        row.num_top_logprobs = 0;
        INFO(path << " vocab " << vocab << " token " << at << " mode " << mode);
        const SampleResult result = SampleOne(backend.get(), logits, row);
        CHECK(result.token == at);
        CheckReport(backend.get(), result, logits, row);
      }
    }
  }
}

TEST_CASE("where nothing may be chosen the lowest allowed id is, or of the mask, or 0", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  const int64_t vocab = 1000;
  const auto token = [&](const std::vector<float>& logits, std::vector<int32_t> allowed,
                         std::vector<int32_t> banned, float temperature) {
    std::vector<uint32_t> mask = MaskOf(vocab, allowed);
    mask.back() |= ~0u << vocab % 32;
    SampleRow row;
    row.allowed_mask = absl::MakeSpan(mask);
    row.banned_tokens = absl::MakeSpan(banned);
    row.temperature = temperature;
    row.top_k = 3;
    row.top_p = 0.5f;
    return SampleOne(backend.get(), logits, row).token;
  };
  std::vector<float> logits = Gaussian(vocab, 1);
  std::vector<float> impossible(static_cast<size_t>(vocab), -kInfinity);
  impossible[3] = 1;
  for (float temperature : {0.0f, 1.0f}) {
    CHECK(token(logits, {}, {}, temperature) == 0);
    // Never outside the mask.
    CHECK(token(logits, {500, 600}, {600, 500}, temperature) == 500);
    CHECK(token(impossible, {700, 800, 900}, {700, 5}, temperature) == 800);
    CHECK(token(impossible, {0, 3}, {3}, temperature) == 0);
  }
}

TEST_CASE("a NaN is reported though rules forbid its token, its neighbours are not touched",
          "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 2));
  const int64_t vocab = 1000;
  std::vector<float> logits = Gaussian(3 * vocab, 1);
  logits[vocab + 70] = std::numeric_limits<float>::quiet_NaN();
  std::vector<OwnedRow> owned;
  std::vector<SampleRow> rows;
  for (int i = 0; i < 3; ++i) {
    owned.push_back(RandomRow(vocab, kAllRules, 3));
    owned.back().mask = MaskOf(vocab, {9, 400});
    owned.back().banned = {70};
    owned.back().row.num_top_logprobs = 3;
    rows.push_back(owned.back().Bind());
  }
  const std::vector<SampleResult> results = Sample(backend.get(), logits, rows);
  CHECK(results[1].is_nan);
  for (int i = 0; i < 3; ++i) CHECK(results[1].top[i].token == -1);
  for (size_t i : {0, 2}) {
    CHECK_FALSE(results[i].is_nan);
    CHECK((results[i].token == 9 || results[i].token == 400));
  }
}

TEST_CASE("infinite rules neither crash nor give a token that they forbid", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> logits = Gaussian(1000, 8);
  logits[10] = kInfinity;
  logits[11] = -kInfinity;
  for (float temperature : {0.0f, 1.0f}) {
    for (float top_p : {1.0f, 0.5f}) {
      SampleRow row;
      row.temperature = temperature;
      row.top_p = top_p;
      row.top_k = 20;
      const auto biased = [&](std::vector<LogitBias> bias) {
        row.logit_bias = absl::MakeSpan(bias);
        const int32_t token = SampleOne(backend.get(), logits, row).token;
        row.logit_bias = {};
        return token;
      };
      CHECK(biased({}) == 10);
      CHECK(biased({{5, kInfinity}}) == 5);  // beside 10 the lower id
      CHECK(biased({{50, kInfinity}}) == 10);
      CHECK(biased({{50, kInfinity}, {10, -kInfinity}}) == 50);  // inf - inf: gone
      CHECK(biased({{50, kInfinity}, {10, nan}}) == 50);
      CHECK(biased({{11, kInfinity}, {10, nan}}) != 11);  // what is impossible stays so
      std::vector<TokenCount> history;
      for (int32_t id = 0; id < 1000; ++id) history.push_back({id, id % 3});
      row.history = absl::MakeSpan(history);
      for (float penalty : {kInfinity, -kInfinity, nan, 3e38f, -3e38f}) {
        row.presence_penalty = row.frequency_penalty = penalty;
        row.repetition_penalty = std::fabs(penalty);
        const SampleResult result = SampleOne(backend.get(), logits, row);
        CHECK((result.token >= 0 && result.token < 1000 && !result.is_nan));
      }
      row.history = {};
      row.repetition_penalty = 1;
    }
  }
}

TEST_CASE("what a rule makes NaN is gone, and what is masked no penalty brings back", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  const int64_t vocab = 1000;
  const std::vector<float> logits = Gaussian(vocab, 8);
  const std::vector<LogitBias> to_nan = {{3, std::numeric_limits<float>::quiet_NaN()}};
  const std::vector<int32_t> banned = {3};
  std::vector<TokenCount> history;
  for (int32_t id = 0; id < vocab; ++id) history.push_back({id, id % 3});
  const std::vector<uint32_t> mask = MaskOf(vocab, {17, 600, 601});
  for (uint32_t position = 0; position < 30; ++position) {
    SampleRow gone, absent, masked;
    for (SampleRow* row : {&gone, &absent, &masked}) {
      row->temperature = 1;
      row->output_position = position;
      row->top_p = position % 3 == 0 ? 0.9f : 1.0f;
      row->top_k = position % 3 == 1 ? 500 : 0;
    }
    gone.logit_bias = absl::MakeSpan(to_nan);
    absent.banned_tokens = absl::MakeSpan(banned);
    CHECK(SampleOne(backend.get(), logits, gone).token ==
          SampleOne(backend.get(), logits, absent).token);
    // A penalty below 0 is refused upstream; it would make -infinity the best of all.
    masked.allowed_mask = absl::MakeSpan(mask);
    masked.history = absl::MakeSpan(history);
    masked.repetition_penalty = -1;
    const int32_t token = SampleOne(backend.get(), logits, masked).token;
    CHECK((token == 17 || token == 600 || token == 601));
  }
}

TEST_CASE("a row with rules gives the same token alone and in any company", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto crowd = Open(OptionsFor(path, ComputeDType::kAuto, 2));
  const auto alone = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  const int64_t vocab = 5000, num_rows = 16;
  const std::vector<float> logits = Gaussian(vocab * num_rows, 12, 2);
  const auto logits_of = [&](size_t i) {
    return std::vector<float>(logits.begin() + static_cast<int64_t>(i) * vocab,
                              logits.begin() + static_cast<int64_t>(i + 1) * vocab);
  };
  std::vector<OwnedRow> owned;
  std::vector<SampleRow> rows;
  std::vector<SampleResult> expected;
  for (uint32_t i = 0; i < num_rows; ++i) {
    // Rows without rules stand among them.
    owned.push_back(RandomRow(vocab, i % 5 == 4 ? 0u : i % 4 == 0 ? kAllRules : 1u << i % 6, i));
    owned.back().row.temperature = i % 7 == 0 ? 0.0f : 1.0f;
    owned.back().row.top_p = i % 3 == 0 ? 0.9f : 1.0f;
    rows.push_back(owned.back().Bind());
    expected.push_back(SampleOne(alone.get(), logits_of(i), rows.back()));
  }
  std::vector<size_t> order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (uint32_t round = 0; round < 8; ++round) {
    std::vector<float> all;
    std::vector<SampleRow> permuted;
    for (size_t i : order) {
      const std::vector<float> one = logits_of(i);
      all.insert(all.end(), one.begin(), one.end());
      permuted.push_back(rows[i]);
    }
    const std::vector<SampleResult> results = Sample(crowd.get(), all, permuted);
    for (size_t at = 0; at < order.size(); ++at) {
      INFO(path << " round " << round << " row " << order[at]);
      CHECK(results[at].token == expected[order[at]].token);
      CHECK(results[at].logprob == expected[order[at]].logprob);
    }
    std::shuffle(order.begin(), order.end(), std::mt19937(round));
    order.resize(std::max<size_t>(1, order.size() - 2));
  }
}

TEST_CASE("20,000 draws follow the softmax under rules and filters", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 2));
  const int64_t vocab = 300;
  const std::vector<float> logits = Gaussian(vocab, 23, 2);
  const struct {
    unsigned rules;
    int32_t top_k;
    float top_p, min_p, temperature;
  } cases[] = {{kPresence | kFrequency | kRepetition, 0, 1, 0, 1},
               {kPresence | kFrequency | kRepetition, 25, 1, 0, 1.4f},
               {kPresence | kFrequency | kRepetition, 0, 0.8f, 0, 1},
               {kPresence | kFrequency | kRepetition, 0, 1, 0.03f, 0.8f},
               {kBias | kMask | kBanned, 0, 0.95f, 0, 1},
               {kAllRules, 60, 0.95f, 0.01f, 1.2f}};
  for (const auto& one : cases) {
    // Seed 2: half of the vocabulary is history, half is allowed.
    OwnedRow owned = RandomRow(vocab, one.rules, 2);
    SampleRow row = owned.Bind();
    row.temperature = one.temperature;
    row.top_k = one.top_k;
    row.top_p = one.top_p;
    row.min_p = one.min_p;
    INFO(path << " rules " << one.rules << " top_k " << one.top_k << " top_p " << one.top_p);
    CheckDraws(backend.get(), logits, row, 20000);
  }
}

}  // namespace
}  // namespace fastgen::testing
