// Backoff: how long to wait before trying again, and when to give up.
//
// The n-th wait is first_delay * 2^n, at most max_delay, times a random factor from 0.5 to 1, so
// that many clients do not come back at once. A server that says when (Retry-After) is taken at its
// word up to max_retry_after.
// Thread rule: one thread.
// Tested by tests/hub/small_parts_test.cc.
#pragma once

#include <optional>
#include <random>

#include "absl/time/time.h"

namespace fastgen {

struct RetryPolicy {
  int max_attempts = 6;  // the first one included
  absl::Duration first_delay = absl::Milliseconds(500);
  absl::Duration max_delay = absl::Seconds(20);
  absl::Duration max_retry_after = absl::Minutes(5);
};

class Backoff {
 public:
  explicit Backoff(const RetryPolicy& policy);

  // After a failed attempt: the wait before the next one; nullopt when that was the last.
  // `retry_after` 0: not told.
  std::optional<absl::Duration> Next(absl::Duration retry_after = absl::ZeroDuration());
  // The last attempt got somewhere: counting begins anew.
  void Reset() { num_failures_ = 0; }
  int num_failures() const { return num_failures_; }

 private:
  const RetryPolicy policy_;
  int num_failures_ = 0;
  std::minstd_rand random_;
};

}  // namespace fastgen
