// TokenBucket: how many tokens of a per-minute allowance are left, refilled all the time.
//
// The bucket holds one minute's allowance. Its level is kept as the moment when it will be full again: using n tokens
// moves that moment n / rate further away, and a bucket that will be full in a minute is empty. What a request uses is
// known only as it is computed, so use may go below zero: the debt is waited for.
// Thread rule: a value; its owner locks.
// Tested by tests/server/token_bucket_test.cc.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace fastgen {

class TokenBucket {
 public:
  // REQUIRES: 0 < tokens_per_minute.
  explicit TokenBucket(int64_t tokens_per_minute) : tokens_per_minute_(tokens_per_minute) {}

  int64_t tokens_per_minute() const { return tokens_per_minute_; }

  // What was used stays used.
  void SetRate(int64_t tokens_per_minute, absl::Time now) {
    if (tokens_per_minute == tokens_per_minute_) return;
    const absl::Duration debt = std::max(full_at_ - now, absl::ZeroDuration());
    full_at_ = now + debt * tokens_per_minute_ / tokens_per_minute;
    tokens_per_minute_ = tokens_per_minute;
  }

  void Use(int64_t num_tokens, absl::Time now) {
    full_at_ = std::max(full_at_, now) + TimeOf(num_tokens);
  }

  // How long until one token is there; zero when it is.
  absl::Duration WaitTime(absl::Time now) const {
    return std::max(full_at_ + TimeOf(1) - absl::Minutes(1) - now, absl::ZeroDuration());
  }

 private:
  absl::Duration TimeOf(int64_t num_tokens) const {
    return absl::Minutes(1) * num_tokens / tokens_per_minute_;
  }

  int64_t tokens_per_minute_;
  absl::Time full_at_ = absl::InfinitePast();
};

}  // namespace fastgen
