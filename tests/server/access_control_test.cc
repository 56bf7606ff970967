#include "server/access_control.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "server/key_account.h"
#include "tests/server/temp_key_file.h"

// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

using testing::TempKeyFile;

class TestClock final : public Clock {
 public:
  absl::Time Now() const override {
    MutexLock lock(&mutex_);
    return now_;
  }
  void Advance(absl::Duration duration) {
    MutexLock lock(&mutex_);
    now_ += duration;
  }

 private:
  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::FromUnixSeconds(1'700'000'000);
};

KeyLimits Limits(std::optional<int32_t> max_concurrent, std::optional<int64_t> tokens_per_minute) {
  return {max_concurrent, tokens_per_minute};
}

TEST_CASE("a key has as many requests live as its limit says", "[server]") {
  TestClock clock;
  auto account = std::make_shared<KeyAccount>("alice", &clock);
  account->SetLimits(Limits(2, std::nullopt));
  REQUIRE(account->Enter().ok());
  REQUIRE(account->Enter().ok());
  const absl::Status refused = account->Enter();
  CHECK(absl::IsResourceExhausted(refused));
  CHECK(refused.message() == "the API key alice has 2 requests live; its max-concurrent is 2");
  account->Leave();
  CHECK(account->Enter().ok());
  CHECK(account->num_live() == 2);
}

TEST_CASE("a permit gives its place back once, however it ends", "[server]") {
  TestClock clock;
  auto account = std::make_shared<KeyAccount>("alice", &clock);
  account->SetLimits(Limits(1, std::nullopt));
  {
    REQUIRE(account->Enter().ok());
    Permit permit(account, "r1", &clock);
    CHECK(account->num_live() == 1);
    permit.End(absl::StatusCode::kOk);
    CHECK(account->num_live() == 0);
    permit.End(absl::StatusCode::kCancelled);
    CHECK(account->num_live() == 0);
  }
  CHECK(account->num_live() == 0);
  {
    REQUIRE(account->Enter().ok());
    Permit permit(account, "r2", &clock);
  }
  CHECK(account->num_live() == 0);
}

TEST_CASE("tokens are counted as they are used, and refusals say how long to wait", "[server]") {
  TestClock clock;
  auto account = std::make_shared<KeyAccount>("alice", &clock);
  account->SetLimits(Limits(std::nullopt, 60));
  REQUIRE(account->Enter().ok());
  Permit permit(account, "r1", &clock);
  permit.UsePrompt(50);
  REQUIRE(account->Enter().ok());
  permit.UseOutput(30);  // goes on below zero
  const absl::Status refused = account->Enter();
  CHECK(absl::IsResourceExhausted(refused));
  CHECK(refused.message() == "the API key alice has used its tokens; its tokens-per-minute is 60");
  CHECK(refused.GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());
  CHECK(account->num_live() == 2);  // a refusal takes no place
  clock.Advance(absl::Seconds(20));
  CHECK_FALSE(account->Enter().ok());
  clock.Advance(absl::Seconds(1));
  CHECK(account->Enter().ok());
}

TEST_CASE("threads that race for places get exactly as many as there are", "[server]") {
  TestClock clock;
  auto account = std::make_shared<KeyAccount>("alice", &clock);
  account->SetLimits(Limits(5, std::nullopt));
  std::atomic<int> num_entered = 0, num_most = 0, num_inside = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 5000; ++round) {
        if (!account->Enter().ok()) continue;
        ++num_entered;
        const int inside = ++num_inside;
        int most = num_most.load();
        while (most < inside && !num_most.compare_exchange_weak(most, inside)) {
        }
        std::this_thread::yield();
        --num_inside;
        account->Leave();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_entered > 0);
  CHECK(num_most <= 5);
  CHECK(account->num_live() == 0);
}

struct Keys {
  Keys() : alice(*MakeApiKey("alice", "infer")), bob(*MakeApiKey("bob", "admin")) {}
  std::string File(const std::string& limits = "") const {
    return absl::StrCat(alice.line, " ", limits, "\n", bob.line, "\n");
  }
  const NewApiKey alice;
  const NewApiKey bob;
};

TEST_CASE("a reload keeps what a name owes and what it has running", "[server]") {
  TestClock clock;
  const Keys keys;
  TempKeyFile file(keys.File("max-concurrent=2 tokens-per-minute=60"));
  AccessControl access(file.path(), &clock);
  REQUIRE(access.Load().ok());
  const auto caller = access.CallerWith(keys.alice.secret, {Scope::kInfer});
  REQUIRE(caller.ok());
  auto first = access.Admit(*caller, "r1");
  REQUIRE(first.ok());
  (*first)->UsePrompt(90);
  CHECK(absl::IsResourceExhausted(access.Admit(*caller, "r2").status()));
  file.Write(keys.File("max-concurrent=1 tokens-per-minute=600"));
  REQUIRE(access.Load().ok());
  const auto again = access.CallerWith(keys.alice.secret, {Scope::kInfer});
  REQUIRE(again.ok());
  CHECK(again->account == caller->account);
  CHECK(access.Admit(*again, "r2").status().message() ==
        "the API key alice has 1 requests live; its max-concurrent is 1");
  (*first)->End(absl::StatusCode::kOk);
  CHECK(access.Admit(*again, "r2").ok());  // 510 of 600 are left
}

TEST_CASE("a key that is gone from the file is refused, and comes back to what it owes", "[server]") {
  TestClock clock;
  const Keys keys;
  TempKeyFile file(keys.File("tokens-per-minute=60"));
  AccessControl access(file.path(), &clock);
  REQUIRE(access.Load().ok());
  const auto caller = access.CallerWith(keys.alice.secret, {});
  REQUIRE(caller.ok());
  (*access.Admit(*caller, "r1"))->UsePrompt(600);
  file.Write(keys.bob.line);
  REQUIRE(access.Load().ok());
  CHECK(absl::IsUnauthenticated(access.CallerWith(keys.alice.secret, {}).status()));
  file.Write(keys.File("tokens-per-minute=60"));
  REQUIRE(access.Load().ok());
  const auto back = access.CallerWith(keys.alice.secret, {});
  REQUIRE(back.ok());
  CHECK(absl::IsResourceExhausted(access.Admit(*back, "r2").status()));
}

TEST_CASE("a bad file leaves the keys that there were", "[server]") {
  TestClock clock;
  const Keys keys;
  TempKeyFile file(keys.File());
  AccessControl access(file.path(), &clock);
  REQUIRE(access.Load().ok());
  for (const std::string& bad : {std::string(), std::string("alice"), keys.alice.line + "\n" + keys.alice.line}) {
    file.Write(bad);
    CHECK_FALSE(access.Load().ok());
    CHECK(access.CallerWith(keys.alice.secret, {Scope::kInfer}).ok());
  }
}

TEST_CASE("ids of different keys never meet", "[server]") {
  TestClock clock;
  const Keys keys;
  TempKeyFile file(keys.File());
  AccessControl access(file.path(), &clock);
  REQUIRE(access.Load().ok());
  const Caller alice = *access.CallerWith(keys.alice.secret, {});
  const Caller bob = *access.CallerWith(keys.bob.secret, {});
  CHECK(*AccessControl::EngineId(alice, "r") != *AccessControl::EngineId(bob, "r"));
  CHECK(*AccessControl::EngineId(Caller{}, "r") == "r");
  const AccessControl::Owned owned = AccessControl::SplitEngineId("alice r");
  CHECK(owned.key_name == "alice");
  CHECK(owned.request_id == "r");
  CHECK(AccessControl::SplitEngineId("r").key_name.empty());
  CHECK(AccessControl::SplitEngineId("r").request_id == "r");
  CHECK(access.EngineIds(alice, "r") == std::vector<std::string>{"alice r"});
  // Bob is an admin: he means everybody's, of those that have something live.
  CHECK(access.EngineIds(bob, "r") == std::vector<std::string>{"bob r"});
  const auto permit = access.Admit(alice, "r");
  REQUIRE(permit.ok());
  CHECK(access.EngineIds(bob, "r") == std::vector<std::string>{"bob r", "alice r"});
  // With the longest name an id still fits what the engine takes.
  CHECK(AccessControl::EngineId(alice, std::string(191, 'x')).ok());
  CHECK(AccessControl::EngineId(alice, std::string(192, 'x')).status().message() ==
        "request_id: 192 bytes exceed the limit of 191 bytes where there are API keys");
}

}  // namespace
}  // namespace fastgen
