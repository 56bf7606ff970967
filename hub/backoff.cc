#include "hub/backoff.h"

#include <algorithm>

namespace fastgen {

Backoff::Backoff(const RetryPolicy& policy) : policy_(policy), random_(std::random_device{}()) {}

std::optional<absl::Duration> Backoff::Next(absl::Duration retry_after) {
  ++num_failures_;
  if (num_failures_ >= policy_.max_attempts || retry_after > policy_.max_retry_after)
    return std::nullopt;
  absl::Duration delay = policy_.first_delay;
  for (int i = 1; i < num_failures_ && delay < policy_.max_delay; ++i) delay *= 2;
  const double factor = std::uniform_real_distribution<double>(0.5, 1.0)(random_);
  return std::max(retry_after, std::min(delay, policy_.max_delay) * factor);
}

}  // namespace fastgen
