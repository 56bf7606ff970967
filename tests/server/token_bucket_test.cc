#include "server/token_bucket.h"

#include <random>

#include "absl/time/time.h"

// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

TEST_CASE("a new bucket holds a minute's tokens, and then none", "[server]") {
  TokenBucket bucket(100);
  CHECK(bucket.WaitTime(kStart) == absl::ZeroDuration());
  bucket.Use(99, kStart);
  CHECK(bucket.WaitTime(kStart) == absl::ZeroDuration());
  bucket.Use(1, kStart);
  CHECK(bucket.WaitTime(kStart) == absl::Milliseconds(600));  // one token
}

TEST_CASE("a bucket refills all the time, and to a minute's tokens at most", "[server]") {
  TokenBucket bucket(60);
  bucket.Use(60, kStart);
  CHECK(bucket.WaitTime(kStart + absl::Milliseconds(999)) == absl::Milliseconds(1));
  CHECK(bucket.WaitTime(kStart + absl::Seconds(1)) == absl::ZeroDuration());
  // After an hour there are 60 tokens, not 3600.
  const absl::Time later = kStart + absl::Hours(1);
  bucket.Use(60, later);
  CHECK(bucket.WaitTime(later) == absl::Seconds(1));
}

TEST_CASE("what was used beyond the bucket is waited for", "[server]") {
  TokenBucket bucket(60);
  bucket.Use(660, kStart);  // ten minutes of debt
  CHECK(bucket.WaitTime(kStart) == absl::Minutes(10) + absl::Seconds(1));
  CHECK(bucket.WaitTime(kStart + absl::Minutes(10)) == absl::Seconds(1));
  bucket.Use(-600, kStart);  // given back
  CHECK(bucket.WaitTime(kStart) == absl::Seconds(1));
}

TEST_CASE("a new rate leaves what was used", "[server]") {
  TokenBucket bucket(60);
  bucket.Use(90, kStart);  // 30 owed
  bucket.SetRate(120, kStart);
  CHECK(bucket.WaitTime(kStart) == absl::ZeroDuration());  // 120 - 90 are left
  bucket.Use(30, kStart);
  CHECK(bucket.WaitTime(kStart) == absl::Milliseconds(500));
  bucket.SetRate(60, kStart);  // 120 used of 60
  CHECK(bucket.WaitTime(kStart) == absl::Seconds(61));
  TokenBucket untouched(60);
  untouched.SetRate(30, kStart);
  untouched.Use(30, kStart);
  CHECK(untouched.WaitTime(kStart) == absl::Seconds(2));
}

TEST_CASE("whoever waits as told uses the allowance and no more", "[server]") {
  for (const int64_t rate : {1, 7, 1000, 1'000'000, 1'000'000'000}) {
    TokenBucket bucket(rate);
    std::mt19937 random(static_cast<uint32_t>(rate));
    absl::Time now = kStart;
    int64_t used = 0;
    int64_t largest = 0;
    while (now < kStart + absl::Minutes(50)) {
      const absl::Duration wait = bucket.WaitTime(now);
      if (wait > absl::ZeroDuration()) {
        now += wait;
        REQUIRE(bucket.WaitTime(now) == absl::ZeroDuration());
        continue;
      }
      const int64_t size = 1 + static_cast<int64_t>(random()) % std::max<int64_t>(rate / 3, 1);
      bucket.Use(size, now);
      used += size;
      largest = std::max(largest, size);
      now += absl::Milliseconds(random() % 50);
    }
    // What the time gave, the full bucket at the start, and one request that went below zero.
    const double given = absl::ToDoubleMinutes(now - kStart) * static_cast<double>(rate);
    CHECK(static_cast<double>(used) <= given * 1.001 + static_cast<double>(rate + largest));
  }
}

}  // namespace
}  // namespace fastgen
