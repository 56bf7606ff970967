// RoPE frequencies against figures worked out by hand from the formulas in the header.
#include "engine/model/rope_table.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

ModelConfig Config() {
  ModelConfig config = testing::TinyModel().config;
  config.head_dim = 4;
  config.rope_theta = 10000;
  return config;
}

TEST_CASE("plain frequencies are powers of the base", "[model][rope]") {
  const std::vector<double> frequencies = RopeFrequencies(Config());
  REQUIRE(frequencies.size() == 2);
  CHECK(frequencies[0] == 1.0);
  CHECK(frequencies[1] == Approx(0.01).epsilon(1e-12));
}

TEST_CASE("linear scaling and divisors divide frequencies", "[model][rope]") {
  ModelConfig config = Config();
  config.rope_scaling.kind = RopeScaling::Kind::kLinear;
  config.rope_scaling.factor = 4;
  CHECK(RopeFrequencies(config)[0] == 0.25);
  config.rope_scaling.kind = RopeScaling::Kind::kDivisors;
  config.rope_scaling.divisors = {1, 8};
  CHECK(RopeFrequencies(config)[0] == 1.0);
  CHECK(RopeFrequencies(config)[1] == Approx(0.00125).epsilon(1e-12));
}

TEST_CASE("llama3 scaling keeps short waves, divides long ones, blends between", "[model][rope]") {
  ModelConfig config = Config();
  config.rope_scaling.kind = RopeScaling::Kind::kLlama3;
  config.rope_scaling.factor = 8;
  config.rope_scaling.low_freq_factor = 1;
  config.rope_scaling.high_freq_factor = 4;
  // Turns in the original context: f c / 2 pi.
  const double two_pi = 6.283185307179586;
  config.rope_scaling.original_max_position = 5 * two_pi;  // 5 turns, 0.05 turns
  CHECK(RopeFrequencies(config)[0] == 1.0);
  CHECK(RopeFrequencies(config)[1] == Approx(0.01 / 8).epsilon(1e-12));
  config.rope_scaling.original_max_position = 1.75 * two_pi;  // a quarter of the way from 1 to 4
  CHECK(RopeFrequencies(config)[0] == Approx(0.25 + 0.75 / 8).epsilon(1e-12));
}

TEST_CASE("yarn keeps fast pairs, slows slow ones, climbs between", "[model][rope]") {
  ModelConfig config = Config();
  config.head_dim = 8;
  config.rope_scaling.kind = RopeScaling::Kind::kYarn;
  config.rope_scaling.factor = 4;
  // Pair i turns theta^(-i / 4) c / 2 pi times: 10^(4 - i) with this c. From 1000 turns (pair 1) to
  // 10 (pair 3) the frequency falls to a quarter.
  config.rope_scaling.original_max_position = 6.283185307179586e4;
  config.rope_scaling.beta_fast = 1000 * (1 - 1e-9);  // just past the pair, so that floor finds it
  config.rope_scaling.beta_slow = 10 * (1 + 1e-9);
  for (const bool truncate : {true, false}) {
    config.rope_scaling.truncate = truncate;
    const std::vector<double> frequencies = RopeFrequencies(config);
    REQUIRE(frequencies.size() == 4);
    CHECK(frequencies[0] == 1.0);
    CHECK(frequencies[1] == Approx(0.1).epsilon(1e-7));
    CHECK(frequencies[2] == Approx(0.01 * (0.5 + 0.5 / 4)).epsilon(1e-7));
    CHECK(frequencies[3] == Approx(0.001 / 4).epsilon(1e-7));
  }
  // Ends between the pairs: 1.5 and 2.5, or 1 and 3 as whole pairs.
  config.rope_scaling.beta_fast = std::pow(10, 2.5);
  config.rope_scaling.beta_slow = std::pow(10, 1.5);
  config.rope_scaling.truncate = false;
  CHECK(RopeFrequencies(config)[1] == Approx(0.1).epsilon(1e-12));
  CHECK(RopeFrequencies(config)[3] == Approx(0.001 / 4).epsilon(1e-12));
  config.rope_scaling.beta_slow = std::pow(10, 0.5);
  CHECK(RopeFrequencies(config)[3] == Approx(0.001 * (0.25 + 0.75 / 4)).epsilon(1e-9));
  config.rope_scaling.truncate = true;  // 1 and 4
  CHECK(RopeFrequencies(config)[3] == Approx(0.001 * (1.0 / 3 + 2.0 / 3 / 4)).epsilon(1e-9));
}

TEST_CASE("yarn's attention factor multiplies cos and sin", "[model][rope]") {
  CHECK(YarnAttentionFactor(1, 1) == 1);
  CHECK(YarnAttentionFactor(4, 1) == Approx(1.1386294361).epsilon(1e-10));
  CHECK(YarnAttentionFactor(4, 2) == Approx(1.2772588722).epsilon(1e-10));
  ModelConfig config = Config();
  std::vector<float> plain(5 * 4), scaled(5 * 4);
  FillRopeTable(config, Tensor(plain.data(), DType::kF32, {5, 4}));
  config.rope_scaling.attention_factor = 2;
  FillRopeTable(config, Tensor(scaled.data(), DType::kF32, {5, 4}));
  for (size_t i = 0; i < plain.size(); ++i) CHECK(scaled[i] == 2 * plain[i]);
}

TEST_CASE("table holds cos then sin of every position, exact far out", "[model][rope]") {
  ModelConfig config = Config();
  std::vector<float> storage(100'001 * 4);
  FillRopeTable(config, Tensor(storage.data(), DType::kF32, {100'001, 4}));
  for (const int64_t position : {0, 1, 7, 100'000}) {
    const float* row = storage.data() + position * 4;
    const double p = static_cast<double>(position);
    CHECK(row[0] == static_cast<float>(std::cos(p)));
    CHECK(row[2] == static_cast<float>(std::sin(p)));
    CHECK(row[1] == Approx(std::cos(p / 100)).margin(1e-7));
    CHECK(row[3] == Approx(std::sin(p / 100)).margin(1e-7));
  }
}

}  // namespace
}  // namespace fastgen
