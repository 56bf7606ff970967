// Time as an object, so that tests can own it.
// Thread rule: any thread.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace fastgen {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

// The machine's clock.
class RealClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

}  // namespace fastgen
