#include "engine/rank_thread.h"

#include <atomic>
#include <thread>

#include "base/check.h"
#undef CHECK
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

// Notes the order of steps; a step waits for its permission.
class GatedExecutor final : public Executor {
 public:
  absl::Status Run(const StepPlan& plan, StepResult* result) override {
    MutexLock lock(&mutex_);
    while (num_permitted_ == 0) changed_.Wait(&mutex_);
    --num_permitted_;
    steps_.push_back(plan.step);
    result->sequences.resize(1);
    result->sequences[0].next.token = static_cast<int32_t>(plan.step);
    if (plan.step == failing_step_) return absl::UnavailableError("device lost");
    return absl::OkStatus();
  }
  void Permit(int num_steps) {
    MutexLock lock(&mutex_);
    num_permitted_ += num_steps;
    changed_.SignalAll();
  }
  void FailAt(uint64_t step) { failing_step_ = step; }
  std::vector<uint64_t> steps() {
    MutexLock lock(&mutex_);
    return steps_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int num_permitted_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<uint64_t> steps_ ABSL_GUARDED_BY(mutex_);
  uint64_t failing_step_ = 0;
};

struct UnderTest {
  GatedExecutor executor;
  RealClock clock;
  std::atomic<int> num_done = 0;
  StepPlan plans[2];
  StepResult results[2];
  RankThread rank{&executor, &clock, [this] { ++num_done; }};

  void Launch(uint64_t step) {
    plans[step % 2].step = step;
    rank.Launch(&plans[step % 2], &results[step % 2]);
  }
};

TEST_CASE("steps run in the order of launch, two at most ahead of their waits", "[engine]") {
  UnderTest test;
  CHECK(test.rank.num_outstanding() == 0);
  test.Launch(1);
  test.Launch(2);
  CHECK(test.rank.num_outstanding() == 2);
  CHECK_FALSE(test.rank.OldestIsDone());
  test.executor.Permit(1000);
  absl::Time last_end = absl::InfinitePast();
  for (uint64_t step = 1; step <= 100; ++step) {
    const RankThread::Done done = test.rank.Wait();
    REQUIRE(done.status.ok());
    REQUIRE(test.results[step % 2].sequences[0].next.token == static_cast<int32_t>(step));
    REQUIRE(done.begin <= done.end);
    REQUIRE(last_end <= done.begin);
    last_end = done.end;
    test.Launch(step + 2);
  }
  test.rank.Wait();
  test.rank.Wait();
  CHECK(test.rank.num_outstanding() == 0);
  CHECK(test.executor.steps().size() == 102);
}

TEST_CASE("after an error no step is run any more", "[engine]") {
  UnderTest test;
  test.executor.FailAt(1);
  test.Launch(1);
  test.Launch(2);
  test.executor.Permit(10);
  CHECK(test.rank.Wait().status.message() == "device lost");
  CHECK(test.rank.Wait().status.message() == "device lost");
  test.Launch(3);
  CHECK_FALSE(test.rank.Wait().status.ok());
  CHECK(test.executor.steps() == std::vector<uint64_t>{1});
}

TEST_CASE("the end of the thread waits for what was launched", "[engine]") {
  GatedExecutor executor;
  const RealClock clock;
  StepPlan plan;
  plan.step = 1;
  StepResult result;
  std::thread permitter;
  {
    RankThread rank(&executor, &clock, [] {});
    rank.Launch(&plan, &result);
    permitter = std::thread([&] { executor.Permit(1); });
  }
  permitter.join();
  CHECK(executor.steps().size() == 1);
}

TEST_CASE("each step is announced once it is done", "[engine]") {
  UnderTest test;
  test.executor.Permit(2);
  test.Launch(1);
  test.rank.Wait();
  while (test.num_done < 1) std::this_thread::yield();
  test.Launch(2);
  test.rank.Wait();
  while (test.num_done < 2) std::this_thread::yield();
  CHECK(test.num_done == 2);
}

}  // namespace
}  // namespace fastgen
