// Time as an object, so that tests can own it.
// Thread rule: any thread.
#pragma once

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace fastgen {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

// The machine's clock, read once; from then on it only moves forward, at the pace of the monotonic clock: setting the
// machine's time ends no deadline.
class RealClock final : public Clock {
 public:
  RealClock() : start_(absl::Now()), monotonic_start_(std::chrono::steady_clock::now()) {}
  absl::Time Now() const override {
    return start_ + absl::FromChrono(std::chrono::steady_clock::now() - monotonic_start_);
  }

 private:
  const absl::Time start_;
  const std::chrono::steady_clock::time_point monotonic_start_;
};

}  // namespace fastgen
