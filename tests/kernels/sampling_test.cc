#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/cpu/philox.h"
#include "tests/kernels/sampling_under_test.h"

namespace fastgen::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST_CASE("Philox gives the paper's known answers", "[kernels]") {
  using cpu::Philox4x32;
  using Words = std::array<uint32_t, 4>;
  const Words zeros = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const Words ones = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  const Words digits_of_pi = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  CHECK((Philox4x32({0, 0, 0, 0}, {0, 0}) == zeros));
  CHECK((Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == ones));
  CHECK((Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
         digits_of_pi));
}

TEST_CASE("greedy takes the lowest id among equal maxima", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (int64_t vocab : {1, 5, 63, 64, 65, 1000, 49152}) {
    std::vector<float> logits = Gaussian(vocab, 3);
    for (int64_t at : {int64_t{0}, vocab / 3, vocab - 1}) {
      std::vector<float> one = logits;
      one[at] = 50;
      INFO("vocab " << vocab << " at " << at);
      CHECK(SampleOne(backend.get(), one, {}).token == at);
      one[vocab - 1] = 50;
      CHECK(SampleOne(backend.get(), one, {}).token == at);
    }
  }
  CHECK(SampleOne(backend.get(), std::vector<float>(100, -kInfinity), {}).token == 0);
  std::vector<float> infinite(100, 1);
  infinite[70] = infinite[90] = kInfinity;
  CHECK(SampleOne(backend.get(), infinite, {}).token == 70);
}

TEST_CASE("banned tokens are never chosen and do not change logprobs", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const std::vector<float> logits = {1, 5, 4, 5, 2};
  const std::vector<int32_t> banned = {1, 3};
  SampleRow row;
  row.banned_tokens = absl::MakeSpan(banned);
  row.num_top_logprobs = 2;
  const SampleResult greedy = SampleOne(backend.get(), logits, row);
  CHECK(greedy.token == 2);
  CHECK(greedy.rank == 3);
  CHECK(greedy.logprob == Approx(ReferenceLogSoftmax(logits)[2]).margin(1e-5));
  CHECK((greedy.top[0].token == 1 && greedy.top[1].token == 3));
  row.temperature = 3;
  CheckDraws(backend.get(), logits, row);
  // Everything else impossible: the lowest allowed id.
  const std::vector<float> impossible = {-kInfinity, 3, -kInfinity, 3, -kInfinity};
  CHECK(SampleOne(backend.get(), impossible, row).token == 0);
}

TEST_CASE("draws follow temperature, top-k, top-p and min-p", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 2));
  const std::vector<float> logits = Gaussian(700, 17, 2.5f);
  const auto check = [&](float temperature, int32_t top_k, float top_p, float min_p) {
    SampleRow row;
    row.temperature = temperature;
    row.top_k = top_k;
    row.top_p = top_p;
    row.min_p = min_p;
    row.seed = 99;
    INFO(path << " temperature " << temperature << " top_k " << top_k << " top_p " << top_p
              << " min_p " << min_p);
    CheckDraws(backend.get(), logits, row);
  };
  check(1, 0, 1, 0);
  check(0.5f, 0, 1, 0);
  check(2, 7, 1, 0);
  check(1, 300, 1, 0);
  check(1, 700, 1, 0);
  check(1, 100000, 0.5f, 0);
  check(1, 0, 0.9f, 0);
  check(1.5f, 0, 0.99f, 0);
  check(1, 0, 1, 0.05f);
  check(1.3f, 40, 0.8f, 0.02f);
}

TEST_CASE("the tightest filters leave the best token", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  std::vector<float> logits = Gaussian(500, 5);
  logits[123] = 7;
  for (int i = 0; i < 4; ++i) {
    SampleRow row;
    row.temperature = i == 3 ? 1e-30f : 1.0f;
    if (i == 0) row.top_k = 1;
    if (i == 1) row.top_p = 0;
    if (i == 2) row.min_p = 1;
    for (uint32_t position = 0; position < 50; ++position) {
      row.output_position = position;
      CHECK(SampleOne(backend.get(), logits, row).token == 123);
    }
  }
}

TEST_CASE("ties at a filter's edge are kept by id", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  const std::vector<float> equal(200, 2.5f);
  SampleRow row;
  row.temperature = 1;
  row.top_k = 3;
  CheckDraws(backend.get(), equal, row);
  row.top_k = 0;
  row.top_p = 0.0475f;  // 9.5 tokens
  CheckDraws(backend.get(), equal, row);
  const std::vector<int> counts = Histogram(backend.get(), equal, row, 1000);
  CHECK(std::count_if(counts.begin(), counts.end(), [](int n) { return n > 0; }) == 10);
}

TEST_CASE("impossible tokens are never drawn", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  std::vector<float> logits(130, -kInfinity);
  logits[64] = 1;
  logits[129] = 0;
  for (float top_p : {1.0f, 0.9999f}) {
    for (int32_t top_k : {0, 5}) {
      SampleRow row;
      row.temperature = 1;
      row.top_p = top_p;
      row.top_k = top_k;
      const std::vector<int> counts = Histogram(backend.get(), logits, row, 800);
      CHECK(counts[64] + counts[129] == 800);
      CHECK((counts[64] > 500 && counts[129] > 130));
    }
  }
}

TEST_CASE("a draw depends on seed, choice and position alone", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 2));
  const auto alone = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  const std::vector<float> logits = Gaussian(2000, 8);
  std::vector<SampleRow> rows(12);
  std::vector<float> all;
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].temperature = 1;
    rows[i].seed = i % 2;
    rows[i].choice_index = i / 2 % 2;
    rows[i].output_position = static_cast<uint32_t>(i / 4);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  const std::vector<SampleResult> batch = Sample(backend.get(), all, rows);
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK(SampleOne(alone.get(), logits, rows[i]).token == batch[i].token);
    tokens.push_back(batch[i].token);
  }
  std::sort(tokens.begin(), tokens.end());
  // 12 keys, 2000 near-flat tokens: a few may coincide, not most.
  CHECK(std::unique(tokens.begin(), tokens.end()) - tokens.begin() > 9);
}

TEST_CASE("a row with a NaN says so and leaves its neighbours alone", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const int64_t vocab = 997;
  for (int64_t at : {0, 500, 996}) {
    for (float temperature : {0.0f, 1.0f}) {
      std::vector<float> logits = Gaussian(3 * vocab, 1);
      logits[vocab + at] = std::numeric_limits<float>::quiet_NaN();
      logits[5] = logits[2 * vocab + 7] = 30;
      std::vector<SampleRow> rows(3);
      for (SampleRow& row : rows) {
        row.temperature = temperature;
        row.num_top_logprobs = 2;
      }
      const std::vector<SampleResult> results = Sample(backend.get(), logits, rows);
      CHECK_FALSE(results[0].is_nan);
      CHECK(results[1].is_nan);
      CHECK_FALSE(results[2].is_nan);
      CHECK((results[0].token == 5 && results[2].token == 7));
    }
  }
}

TEST_CASE("logprobs, ranks and the best tokens come from the unscaled logits", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (int64_t vocab : {30, 1000, 49152}) {
    const std::vector<float> logits = Gaussian(vocab, 2, 3);
    const std::vector<double> expected = ReferenceLogSoftmax(logits);
    std::vector<int32_t> order(vocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    SampleRow row;
    row.temperature = 0.3f;
    row.top_k = 5;
    row.num_top_logprobs = Backend::kMaxTopLogprobs;
    const SampleResult drawn = SampleOne(backend.get(), logits, row);
    CHECK(drawn.logprob == Approx(expected[drawn.token]).margin(2e-5));
    CHECK(order[drawn.rank - 1] == drawn.token);
    for (int i = 0; i < Backend::kMaxTopLogprobs; ++i) {
      CHECK(drawn.top[i].token == order[i]);
      CHECK(drawn.top[i].logprob == Approx(expected[order[i]]).margin(2e-5));
    }
    row.target_token = order[vocab / 2];
    row.num_top_logprobs = 0;
    const SampleResult scored = SampleOne(backend.get(), logits, row);
    CHECK(scored.token == row.target_token);
    CHECK(scored.rank == vocab / 2 + 1);
    CHECK(scored.logprob == Approx(expected[row.target_token]).margin(2e-5));
    CHECK(scored.top == nullptr);
  }
}

TEST_CASE("more top logprobs than tokens leave the rest empty", "[kernels]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  SampleRow row;
  row.num_top_logprobs = 5;
  const SampleResult result = SampleOne(backend.get(), {1, 3, 2}, row);
  CHECK((result.top[0].token == 1 && result.top[1].token == 2 && result.top[2].token == 0));
  CHECK(result.top[3].token == -1);
}

TEST_CASE("an array for top logprobs is used again where it is long enough", "[kernels]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  std::vector<float> logits = {1, 3, 2, 0};
  std::vector<SampleResult> results(1);
  std::vector<SampleRow> rows(1);
  const auto sample = [&](int32_t num_top_logprobs) {
    rows[0].num_top_logprobs = num_top_logprobs;
    backend->SampleRows(View(logits, 1, 4), absl::MakeSpan(rows), absl::MakeSpan(results));
    REQUIRE(backend->Synchronize().ok());
    return results[0].top.get();
  };
  TopLogprob* const first = sample(3);
  CHECK((first[0].token == 1 && first[2].token == 0));
  // Up to the most that a request may ask for; what an earlier call left is gone.
  CHECK(sample(Backend::kMaxTopLogprobs) == first);
  CHECK((first[3].token == 3 && first[4].token == -1));
  CHECK(sample(0) == first);
  CHECK(sample(-1) == first);
  logits[1] = -1;
  CHECK(sample(2) == first);
  CHECK((first[0].token == 2 && first[1].token == 0));
  // Too short, or taken away: replaced.
  results[0].top = std::make_unique<TopLogprob[]>(1);
  results[0].top_capacity = 1;
  CHECK(sample(2)[1].token == 0);
  const std::unique_ptr<TopLogprob[]> taken = std::move(results[0].top);
  CHECK(sample(2)[1].token == 0);
  CHECK(taken.get() != results[0].top.get());
  CHECK(sample(100)[99].token == -1);
  CHECK(results[0].top_capacity >= 100);
  // A row without an answer leaves none of an earlier one.
  logits[0] = std::numeric_limits<float>::quiet_NaN();
  CHECK(sample(2)[0].token == -1);
}

TEST_CASE("a vocabulary of a quarter million works with every filter", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 2));
  std::vector<float> logits = Gaussian(262144, 2);
  for (int64_t id : {5, 100000, 262143}) logits[id] = 14;
  SampleRow row;
  row.temperature = 1;
  row.top_p = 0.6f;
  for (uint32_t position = 0; position < 20; ++position) {
    row.output_position = position;
    const int32_t token = SampleOne(backend.get(), logits, row).token;
    CHECK((token == 5 || token == 100000 || token == 262143));
  }
}

}  // namespace
}  // namespace fastgen::testing
