// CircuitBreaker: stops calls to a daemon that keeps failing, and lets it prove itself again.
//
// Closed: calls go through; `max_failures` in a row open it. Open: none go through for a while,
// which doubles from opening to opening up to `longest_open`, give or take a quarter, so that
// several gateways do not come back together. Then one call, the trial, goes through (half open):
// its success closes the breaker, its failure opens it for longer, and when it ends without telling
// (the client left) the next call is the trial. What ordinary calls that began before the opening
// say is then of no account.
// Pure: time is passed in, chance comes from a seed.
// Thread rule: one thread at a time.
// Tested by tests/server/gateway/circuit_breaker_test.cc.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace fastgen::gateway {

struct CircuitOptions {
  int max_failures = 5;
  absl::Duration first_open = absl::Seconds(1);
  absl::Duration longest_open = absl::Seconds(30);
};

enum class CallKind { kOrdinary, kTrial };
// kUntold: ended by our own side, which says nothing of the daemon.
enum class CallOutcome { kSuccess, kFailure, kUntold };

class CircuitBreaker {
 public:
  enum class State { kClosed, kOpen, kHalfOpen };

  CircuitBreaker(const CircuitOptions& options, uint64_t seed) : options_(options), seed_(seed) {}

  bool Allows(absl::Time now) const { return closed_ || (!trial_under_way_ && now >= open_until_); }
  // REQUIRES: Allows(now). The kind is handed back with the call's outcome.
  CallKind Begin() {
    if (closed_) return CallKind::kOrdinary;
    trial_under_way_ = true;
    return CallKind::kTrial;
  }
  void End(CallKind kind, CallOutcome outcome, absl::Time now) {
    if (kind == CallKind::kTrial) {
      EndTrial(outcome, now);
    } else if (closed_ && outcome == CallOutcome::kSuccess) {
      num_failures_ = 0;
    } else if (closed_ && outcome == CallOutcome::kFailure &&
               ++num_failures_ >= options_.max_failures) {
      Open(now);
    }
  }
  // Another source says that the daemon is well again: the trial need not wait any longer.
  void AllowTrial(absl::Time now) { open_until_ = std::min(open_until_, now); }

  State state(absl::Time now) const {
    if (closed_) return State::kClosed;
    return trial_under_way_ || now >= open_until_ ? State::kHalfOpen : State::kOpen;
  }
  int64_t num_openings() const { return num_openings_; }

 private:
  void EndTrial(CallOutcome outcome, absl::Time now) {
    trial_under_way_ = false;
    if (outcome == CallOutcome::kSuccess) {
      closed_ = true;
      num_failures_ = 0;
      num_openings_in_row_ = 0;
    } else if (outcome == CallOutcome::kFailure) {
      Open(now);
    }
  }

  void Open(absl::Time now) {
    closed_ = false;
    absl::Duration open = options_.first_open;
    for (int i = 0; i < num_openings_in_row_ && open < options_.longest_open; ++i) open *= 2;
    open_until_ = now + std::min(open, options_.longest_open) * (0.75 + 0.5 * NextFraction());
    ++num_openings_in_row_;
    ++num_openings_;
  }

  // [0, 1)
  double NextFraction() {
    seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(seed_ >> 40) / static_cast<double>(uint64_t{1} << 24);
  }

  const CircuitOptions options_;
  uint64_t seed_;
  bool closed_ = true;
  bool trial_under_way_ = false;
  int num_failures_ = 0;  // in a row, while closed
  int num_openings_in_row_ = 0;
  int64_t num_openings_ = 0;
  absl::Time open_until_ = absl::InfinitePast();
};

}  // namespace fastgen::gateway
