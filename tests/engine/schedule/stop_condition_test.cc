// Stop decisions by ids and counts.
#include "engine/schedule/stop_condition.h"

#include <catch2/catch.hpp>

namespace fastgen {
namespace {

StopCondition Stop(int32_t max_output, int32_t min_output, std::vector<int32_t> ids) {
  return StopCondition{max_output, min_output, std::move(ids)};
}

TEST_CASE("a stop id ends the sequence and is named", "[schedule]") {
  const auto stop = StopAtToken(Stop(10, 0, {2, 7}), 7, 6, 1, 100);
  REQUIRE(stop.has_value());
  CHECK(stop->reason == FinishReason::kStop);
  CHECK(stop->matched_token_id == 7);
}

TEST_CASE("an ordinary token does not end the sequence", "[schedule]") {
  CHECK_FALSE(StopAtToken(Stop(10, 0, {2, 7}), 3, 6, 1, 100).has_value());
}

TEST_CASE("a stop id before min_output_tokens does not end the sequence", "[schedule]") {
  CHECK(BansStopIds(Stop(10, 2, {7}), 0));
  CHECK(BansStopIds(Stop(10, 2, {7}), 1));
  CHECK_FALSE(BansStopIds(Stop(10, 2, {7}), 2));
  CHECK_FALSE(StopAtToken(Stop(10, 2, {7}), 7, 6, 2, 100).has_value());
  CHECK(StopAtToken(Stop(10, 2, {7}), 7, 7, 3, 100).has_value());
}

TEST_CASE("the last allowed token ends the sequence by length", "[schedule]") {
  CHECK_FALSE(StopAtToken(Stop(3, 0, {}), 5, 6, 2, 100).has_value());
  const auto stop = StopAtToken(Stop(3, 0, {}), 5, 7, 3, 100);
  REQUIRE(stop.has_value());
  CHECK(stop->reason == FinishReason::kLength);
  CHECK_FALSE(stop->matched_token_id.has_value());
}

TEST_CASE("a full context ends the sequence by length", "[schedule]") {
  CHECK_FALSE(StopAtToken(Stop(50, 0, {}), 5, 9, 2, 10).has_value());
  CHECK(StopAtToken(Stop(50, 0, {}), 5, 10, 3, 10)->reason == FinishReason::kLength);
}

TEST_CASE("a stop id that is also the last allowed token ends by stop", "[schedule]") {
  CHECK(StopAtToken(Stop(3, 0, {5}), 5, 7, 3, 100)->reason == FinishReason::kStop);
}

TEST_CASE("nothing is sampled for max_output_tokens 0 or in a full context", "[schedule]") {
  CHECK_FALSE(MaySample(Stop(0, 0, {}), 4, 0, 100));
  CHECK_FALSE(MaySample(Stop(5, 0, {}), 100, 0, 100));
  CHECK(MaySample(Stop(5, 0, {}), 99, 0, 100));
}

}  // namespace
}  // namespace fastgen
