#include "server/gateway/circuit_breaker.h"

#include <catch2/catch.hpp>

namespace fastgen::gateway {
namespace {

using State = CircuitBreaker::State;

// A breaker with a clock beside it.
struct Bench {
  explicit Bench(uint64_t seed = 1, const CircuitOptions& options = {}) : breaker(options, seed) {}

  // One call from begin to end; false when it was not let through.
  bool Call(CallOutcome outcome) {
    if (!breaker.Allows(now)) return false;
    breaker.End(breaker.Begin(), outcome, now);
    return true;
  }
  void FailUntilOpen() {
    while (breaker.state(now) == State::kClosed) Call(CallOutcome::kFailure);
  }
  // How long it stays open from now on.
  absl::Duration TimeUntilTrial() {
    const absl::Time start = now;
    while (!breaker.Allows(now)) now += absl::Milliseconds(10);
    return now - start;
  }

  CircuitBreaker breaker;
  absl::Time now = absl::UnixEpoch();
};

TEST_CASE("a circuit opens after failures in a row and not before", "[gateway]") {
  Bench bench;
  for (int i = 0; i < 20; ++i) {
    for (int k = 0; k < 4; ++k) CHECK(bench.Call(CallOutcome::kFailure));
    CHECK(bench.Call(CallOutcome::kSuccess));
  }
  CHECK(bench.breaker.state(bench.now) == State::kClosed);
  for (int k = 0; k < 5; ++k) CHECK(bench.Call(CallOutcome::kFailure));
  CHECK(bench.breaker.state(bench.now) == State::kOpen);
  CHECK_FALSE(bench.Call(CallOutcome::kSuccess));
  CHECK(bench.breaker.num_openings() == 1);
}

TEST_CASE("calls that the client ended say nothing of the daemon", "[gateway]") {
  Bench bench;
  for (int i = 0; i < 4; ++i) bench.Call(CallOutcome::kFailure);
  for (int i = 0; i < 9; ++i) bench.Call(CallOutcome::kUntold);
  CHECK(bench.breaker.state(bench.now) == State::kClosed);
  bench.Call(CallOutcome::kFailure);
  CHECK(bench.breaker.state(bench.now) == State::kOpen);
}

TEST_CASE("an open circuit lets one call through and closes when it succeeds", "[gateway]") {
  Bench bench;
  bench.FailUntilOpen();
  bench.TimeUntilTrial();
  REQUIRE(bench.breaker.state(bench.now) == State::kHalfOpen);
  const CallKind trial = bench.breaker.Begin();
  CHECK(trial == CallKind::kTrial);
  CHECK_FALSE(bench.breaker.Allows(bench.now + absl::Hours(1)));
  // What began before the opening is of no account.
  bench.breaker.End(CallKind::kOrdinary, CallOutcome::kSuccess, bench.now);
  CHECK_FALSE(bench.breaker.Allows(bench.now));
  bench.breaker.End(trial, CallOutcome::kSuccess, bench.now);
  CHECK(bench.breaker.state(bench.now) == State::kClosed);
  for (int i = 0; i < 4; ++i) CHECK(bench.Call(CallOutcome::kFailure));
  CHECK(bench.breaker.state(bench.now) == State::kClosed);
}

TEST_CASE("a trial that ends without telling leaves its place to the next call", "[gateway]") {
  Bench bench;
  bench.FailUntilOpen();
  bench.TimeUntilTrial();
  CHECK(bench.Call(CallOutcome::kUntold));
  CHECK(bench.breaker.state(bench.now) == State::kHalfOpen);
  CHECK(bench.Call(CallOutcome::kSuccess));
  CHECK(bench.breaker.state(bench.now) == State::kClosed);
}

TEST_CASE("a circuit stays open for longer each time, within a bound, and not for equally long",
          "[gateway]") {
  const uint64_t seed = GENERATE(0u, 1u, 77u, 123456789u);
  Bench bench(seed);
  bench.FailUntilOpen();
  double expected = 1;
  for (int i = 0; i < 10; ++i) {
    const double seconds = absl::ToDoubleSeconds(bench.TimeUntilTrial());
    CHECK(seconds >= expected * 0.75);
    CHECK(seconds <= expected * 1.25 + 0.01);
    expected = std::min(expected * 2, 30.0);
    CHECK(bench.Call(CallOutcome::kFailure));
  }
  bench.TimeUntilTrial();
  CHECK(bench.Call(CallOutcome::kSuccess));
  bench.FailUntilOpen();
  CHECK(bench.TimeUntilTrial() <= absl::Milliseconds(1260));
}

TEST_CASE("circuits of different seeds do not come back together", "[gateway]") {
  Bench one(1), other(2);
  one.FailUntilOpen();
  other.FailUntilOpen();
  CHECK(one.TimeUntilTrial() != other.TimeUntilTrial());
}

TEST_CASE("a daemon that is well again need not wait for its trial", "[gateway]") {
  Bench bench;
  bench.FailUntilOpen();
  bench.breaker.AllowTrial(bench.now);
  CHECK(bench.breaker.state(bench.now) == State::kHalfOpen);
  const CallKind trial = bench.breaker.Begin();
  bench.breaker.AllowTrial(bench.now);
  CHECK_FALSE(bench.breaker.Allows(bench.now));
  bench.breaker.End(trial, CallOutcome::kFailure, bench.now);
  CHECK(bench.breaker.state(bench.now) == State::kOpen);
}

}  // namespace
}  // namespace fastgen::gateway
