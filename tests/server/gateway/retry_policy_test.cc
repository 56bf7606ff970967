#include "server/gateway/retry_policy.h"

#include <catch2/catch.hpp>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/testing/fake_inference_service.h"

namespace fastgen::gateway {
namespace {

grpc::Status Overloaded() { return testing::Overloaded("the queue is full: 4 requests wait"); }

TEST_CASE("what may be tried again follows from who said what", "[gateway]") {
  using grpc::StatusCode;
  CHECK(RetryKindOf(Overloaded()) == RetryKind::kOverloaded);
  CHECK(RetryKindOf(testing::RetryLater(StatusCode::RESOURCE_EXHAUSTED,
                                        "the API key bob has 4 requests live", 1)) ==
        RetryKind::kNever);
  CHECK(RetryKindOf(testing::RetryLater(StatusCode::UNAVAILABLE, "draining", 1)) ==
        RetryKind::kRefused);
  CHECK(RetryKindOf({StatusCode::UNAVAILABLE,
                     "failed to connect to all addresses; last error: x"}) == RetryKind::kRefused);
  CHECK(RetryKindOf({StatusCode::UNAVAILABLE, "DNS resolution failed for a:1"}) ==
        RetryKind::kRefused);
  CHECK(RetryKindOf({StatusCode::UNAVAILABLE, "Socket closed"}) == RetryKind::kLost);
  CHECK(RetryKindOf({StatusCode::UNAVAILABLE, "recvmsg:Connection reset by peer"}) ==
        RetryKind::kLost);
  for (int code = 0; code <= 16; ++code) {
    if (code == StatusCode::UNAVAILABLE) continue;
    CHECK(RetryKindOf({static_cast<StatusCode>(code), "failed to connect to all addresses"}) ==
          RetryKind::kNever);
  }
}

TEST_CASE("a call is tried three times at most, and once more after a loss or an overload",
          "[gateway]") {
  Attempts refused;
  refused.Begin(0);
  CHECK(refused.Allow(RetryKind::kRefused));
  refused.Begin(1);
  CHECK(refused.Allow(RetryKind::kRefused));
  refused.Begin(2);
  CHECK_FALSE(refused.Allow(RetryKind::kRefused));
  CHECK(refused.HasTried(1));
  CHECK_FALSE(refused.HasTried(3));

  for (RetryKind kind : {RetryKind::kLost, RetryKind::kOverloaded}) {
    Attempts once;
    once.Begin(0);
    CHECK(once.Allow(kind));
    once.Begin(1);
    CHECK_FALSE(once.Allow(kind));
    CHECK(once.Allow(RetryKind::kRefused));
  }
  Attempts never;
  never.Begin(0);
  CHECK_FALSE(never.Allow(RetryKind::kNever));
}

TEST_CASE("retries are a fifth of the requests, beside a store for bad moments", "[gateway]") {
  RetryBudget budget;
  int num_retries = 0;
  while (budget.has_one()) {
    budget.Take();
    ++num_retries;
  }
  CHECK(num_retries == 100);
  num_retries = 0;
  for (int i = 0; i < 1000; ++i) {
    budget.AddRequest();
    if (!budget.has_one()) continue;
    budget.Take();
    ++num_retries;
  }
  CHECK(num_retries >= 199);
  CHECK(num_retries <= 200);
  for (int i = 0; i < 100000; ++i) budget.AddRequest();
  num_retries = 0;
  for (; budget.has_one(); ++num_retries) budget.Take();
  CHECK(num_retries == 100);
}

}  // namespace
}  // namespace fastgen::gateway
