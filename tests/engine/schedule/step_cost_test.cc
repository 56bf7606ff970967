// StepCost: a line through measured steps, that follows the machine.
#include "engine/schedule/step_cost.h"

#include <catch2/catch.hpp>
#include <random>

#include "tests/testing/aborts.h"

namespace fastgen {
namespace {

using testing::Aborts;

// Steps of 1 to 512 tokens that take exactly base + slope * n.
void ObserveLine(int num_steps, int64_t base_us, int64_t us_per_token, StepCost* cost) {
  for (int i = 0; i < num_steps; ++i) {
    const int32_t num_tokens = 1 + i * 73 % 512;
    cost->Observe(num_tokens, base_us + us_per_token * num_tokens);
  }
}

TEST_CASE("nothing is known before the first step", "[schedule]") {
  const StepCost cost;
  CHECK_FALSE(cost.is_known());
  CHECK(cost.base_us() == 0);
  CHECK(cost.us_per_token() == 0);
  CHECK(cost.typical_step_us() == 0);
  CHECK(cost.PrefillUs(1000, 100) == 0);
}

TEST_CASE("base and slope of exact lines are found", "[schedule]") {
  for (const auto& [base_us, us_per_token] :
       {std::pair<int64_t, int64_t>{1000, 10}, {0, 25}, {50000, 1}, {7, 3}}) {
    StepCost cost;
    ObserveLine(100, base_us, us_per_token, &cost);
    CHECK(cost.base_us() == Approx(base_us).margin(1));
    CHECK(cost.us_per_token() == Approx(us_per_token).epsilon(1e-3));
  }
}

TEST_CASE("two sizes are enough for a slope", "[schedule]") {
  StepCost cost;
  cost.Observe(10, 1100);
  CHECK(cost.us_per_token() == 0);
  CHECK(cost.base_us() == Approx(1100));
  cost.Observe(20, 2100);
  CHECK(cost.us_per_token() == Approx(100));
  CHECK(cost.base_us() == Approx(100).margin(1e-6));
}

TEST_CASE("a prompt costs a base a step and a slope a token", "[schedule]") {
  StepCost cost;
  ObserveLine(100, 1000, 10, &cost);
  CHECK(cost.PrefillUs(100, 512) == Approx(1000 + 100 * 10).epsilon(1e-3));
  CHECK(cost.PrefillUs(512, 512) == Approx(1000 + 512 * 10).epsilon(1e-3));
  CHECK(cost.PrefillUs(513, 512) == Approx(2 * 1000 + 513 * 10).epsilon(1e-3));
  CHECK(cost.PrefillUs(0, 512) == 0);
}

TEST_CASE("the slope is kept while all steps have one size", "[schedule]") {
  StepCost cost;
  ObserveLine(200, 1000, 10, &cost);
  for (int i = 0; i < 5000; ++i) cost.Observe(64, 1000 + 10 * 64);
  CHECK(cost.us_per_token() == Approx(10).epsilon(1e-2));
  CHECK(cost.base_us() == Approx(1000).epsilon(1e-2));
  CHECK(cost.typical_step_us() == Approx(1640).epsilon(1e-3));
}

TEST_CASE("neither base nor slope is ever negative", "[schedule]") {
  // Larger steps that take less time.
  StepCost falling;
  for (int i = 0; i < 100; ++i) falling.Observe(1 + i % 50, 10000 - 100 * (i % 50));
  CHECK(falling.us_per_token() == 0);
  CHECK(falling.base_us() >= 0);
  // Steeper than through the origin.
  StepCost steep;
  for (int i = 0; i < 100; ++i) steep.Observe(10 + i % 2, i % 2 == 0 ? 0 : 1000000);
  CHECK(steep.base_us() >= 0);
  std::mt19937 random(3);
  StepCost noise;
  for (int i = 0; i < 20000; ++i) {
    noise.Observe(1 + static_cast<int32_t>(random() % 65536),
                  static_cast<int64_t>(random() % 100000000));
    REQUIRE(noise.base_us() >= 0);
    REQUIRE(noise.us_per_token() >= 0);
    REQUIRE(noise.PrefillUs(100, 10) >= 0);
  }
}

TEST_CASE("a change of speed is followed", "[schedule]") {
  StepCost cost;
  ObserveLine(1000, 1000, 10, &cost);
  ObserveLine(300, 4000, 40, &cost);
  CHECK(cost.us_per_token() == Approx(40).epsilon(0.05));
  CHECK(cost.base_us() == Approx(4000).epsilon(0.1));
  ObserveLine(300, 1000, 10, &cost);
  CHECK(cost.us_per_token() == Approx(10).epsilon(0.1));
}

TEST_CASE("one slow step moves the typical one little", "[schedule]") {
  StepCost cost;
  for (int i = 0; i < 200; ++i) cost.Observe(8, 1000);
  cost.Observe(8, 100000);
  CHECK(cost.typical_step_us() < 1000 + 8000 * 0.03);
  for (int i = 0; i < 300; ++i) cost.Observe(8, 1000);
  CHECK(cost.typical_step_us() == Approx(1000).epsilon(0.01));
}

TEST_CASE("a lasting slowdown of any size is followed", "[schedule]") {
  StepCost cost;
  for (int i = 0; i < 200; ++i) cost.Observe(8, 1000);
  for (int i = 0; i < 300; ++i) cost.Observe(8, 100000);
  CHECK(cost.typical_step_us() == Approx(100000).epsilon(0.05));
}

TEST_CASE("a long chunk after short decodes is not taken for an outlier", "[schedule]") {
  StepCost cost;
  for (int i = 0; i < 200; ++i) cost.Observe(1, 1000);
  for (int i = 0; i < 50; ++i) cost.Observe(512, 200000);
  CHECK(cost.PrefillUs(512, 512) == Approx(200000).epsilon(0.05));
}

TEST_CASE("a copy learns on its own", "[schedule]") {
  StepCost cost;
  ObserveLine(100, 1000, 10, &cost);
  StepCost copy = cost;
  ObserveLine(500, 9000, 90, &copy);
  CHECK(cost.us_per_token() == Approx(10).epsilon(1e-3));
}

TEST_CASE("impossible measurements abort", "[schedule]") {
  CHECK(Aborts([] { StepCost().Observe(0, 10); }));
  CHECK(Aborts([] { StepCost().Observe(1, -1); }));
}

}  // namespace
}  // namespace fastgen
