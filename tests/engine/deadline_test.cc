// Deadlines: refused when they cannot be met, and the end of a request in each of its phases.
#include <chrono>

#include "engine/check_request.h"
#include "engine/engine.h"
#include "tests/testing/engine_under_test.h"

namespace fastgen {
namespace {

using testing::Bytes;
using testing::EngineUnderTest;
using testing::EngineUnderTestOptions;
using testing::MakeEngineUnderTest;
using testing::MakeRequest;
using testing::RecordingSink;
using testing::Says;

GenerateRequest Due(std::string request_id, std::vector<int32_t> prompt, absl::Duration left) {
  GenerateRequest request = MakeRequest(std::move(request_id), std::move(prompt));
  request.deadline = absl::Now() + left;
  return request;
}

TEST_CASE("a deadline is compared with the estimate and the margin", "[engine]") {
  SchedulerOptions options;
  options.deadline_margin_us = 20'000;
  StepCost cost;
  CHECK(CheckDeadline(kNoDeadline, 5, 1 << 30, options, cost).ok());
  CHECK(CheckDeadline(1'000'000, 0, 980'000, options, cost).ok());
  const absl::Status late = CheckDeadline(1'000'000, 0, 980'001, options, cost);
  CHECK(absl::IsDeadlineExceeded(late));
  CHECK(late.message() ==
        "deadline: the first token would come in about 980 ms, 1000 ms are left, of which 20 ms "
        "are kept for the answer");
  CHECK(CheckDeadline(1'000, 501'000, 0, options, cost).message() ==
        "deadline: it passed 500 ms ago");
  // A step of 100 ms is a longer margin.
  cost.Observe(1, 100'000);
  CHECK(CheckDeadline(1'000'000, 0, 900'000, options, cost).ok());
  CHECK_FALSE(CheckDeadline(1'000'000, 0, 900'001, options, cost).ok());
}

TEST_CASE("a deadline that has passed is refused at once", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  auto sink = std::make_shared<RecordingSink>();
  const absl::Status status = fake->Submit(Due("a", Bytes("x"), absl::Seconds(-2)), sink);
  CHECK(absl::IsDeadlineExceeded(status));
  CHECK(std::string(status.message()).rfind("deadline: it passed 2", 0) == 0);
  CHECK(absl::IsDeadlineExceeded(
      fake->Submit(Due("a", Bytes("x"), -absl::InfiniteDuration()), sink)));
  CHECK_FALSE(sink->record().accepted.has_value());
  CHECK(sink.use_count() == 1);
}

TEST_CASE("a far deadline, or none, changes nothing", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("ok")));
  for (const absl::Duration left :
       {absl::Hours(1), absl::Hours(24 * 365 * 200), absl::InfiniteDuration()}) {
    auto sink = std::make_shared<RecordingSink>();
    REQUIRE(fake->Submit(Due("a", Bytes("x"), left), sink).ok());
    CHECK(sink->WaitForEnd().text() == "ok");
  }
}

TEST_CASE("a deadline ends a request in the queue, in prefill and in decode", "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 1;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(Bytes("abcdefghijklmnopqrstuvw")));
  fake.executor->CloseGate();
  auto first = std::make_shared<RecordingSink>();
  auto second = std::make_shared<RecordingSink>();
  const int num_steps = GENERATE(0, 1, 6);
  // 100 tokens at 64 a step: two chunks, then decode.
  REQUIRE(
      fake->Submit(Due("a", std::vector<int32_t>(100, 'x'), absl::Milliseconds(300)), first).ok());
  REQUIRE(fake->Submit(Due("b", Bytes("y"), absl::Milliseconds(300)), second).ok());
  fake.executor->LetThrough(num_steps);
  // No step ends from here on: the deadline alone does.
  const RecordingSink::Record running = first->WaitForEnd();
  CHECK(running.finished->reason == FinishReason::kDeadline);
  CHECK(running.num_calls_out_of_order == 0);
  CHECK(static_cast<size_t>(running.finished->usage.output_tokens) == running.ids().size());
  CHECK(running.finished->usage.prompt_tokens == 100);
  if (num_steps == 6) CHECK(running.ids().size() == 5);
  const RecordingSink::Record queued = second->WaitForEnd();
  CHECK(queued.finished->reason == FinishReason::kDeadline);
  CHECK(queued.finished->usage.output_tokens == 0);
  CHECK(queued.finished->receipt.num_steps == 0);
  CHECK(fake.AllBlocksFree());
  fake.executor->OpenGate();
  CHECK(fake->WaitIdle(absl::Seconds(10)));
}

TEST_CASE("a deadline ends all choices, each with its partial usage", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("abcdefghijklmnopqrstuvw")));
  fake.executor->CloseGate();
  GenerateRequest request = Due("a", Bytes("x"), absl::Milliseconds(200));
  request.n = request.best_of = 3;
  auto sink = std::make_shared<RecordingSink>(3);
  REQUIRE(fake->Submit(request, sink).ok());
  fake.executor->LetThrough(3);
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.finishes.size() == 3);
  for (const auto& [index, finish] : record.finishes) {
    CHECK(finish.reason == FinishReason::kDeadline);
    CHECK(static_cast<size_t>(finish.usage.output_tokens) == record.ids(index).size());
  }
  fake.executor->OpenGate();
}

TEST_CASE("what the measured steps say comes too late is refused", "[engine]") {
  EngineUnderTestOptions options;
  options.prefix_cache = GENERATE(false, true);
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(Bytes("ok")));
  fake.executor->SetStepTime(std::chrono::milliseconds(30));
  auto warm_up = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", Bytes("x")), warm_up).ok());
  warm_up->WaitForEnd();
  // 240 tokens are 4 steps: about 120 ms.
  auto sink = std::make_shared<RecordingSink>();
  const std::vector<int32_t> prompt(240, 'y');
  const absl::Status status = fake->Submit(Due("late", prompt, absl::Milliseconds(70)), sink);
  CHECK(absl::IsDeadlineExceeded(status));
  CHECK(std::string(status.message()).rfind("deadline: the first token would come in about ", 0) ==
        0);
  CHECK(fake->Submit(Due("in time", prompt, absl::Minutes(1)), sink).ok());
  CHECK(sink->WaitForEnd().finished->reason == FinishReason::kStop);
}

TEST_CASE("a prompt that may be cached is let in, and ended when it is not", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("a")));
  fake.executor->SetStepTime(std::chrono::milliseconds(30));
  const std::vector<int32_t> known(240, 'y');
  const std::vector<int32_t> unknown(240, 'z');
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", known), sink).ok());
  sink->WaitForEnd();
  REQUIRE(fake->WaitIdle(absl::Seconds(10)));
  // Four steps, and the one that may be in the way.
  absl::Duration five_steps;
  Mutex mutex;
  CondVar changed;
  bool is_planned = false;
  fake->Plan(MakeRequest("", unknown), [&](const absl::StatusOr<PlanInfo>& plan) {
    MutexLock lock(&mutex);
    five_steps = plan->estimated_ttft;
    is_planned = true;
    changed.SignalAll();
  });
  {
    MutexLock lock(&mutex);
    while (!is_planned) changed.Wait(&mutex);
  }
  const absl::Duration left = five_steps * 0.7;
  sink = std::make_shared<RecordingSink>();
  const absl::Status status = fake->Submit(Due("known", known, left), sink);
  INFO(status.ToString());
  REQUIRE(status.ok());
  CHECK(sink->WaitForEnd().accepted->cached_tokens == 224);
  CHECK(sink->WaitForEnd().finished->receipt.num_steps > 0);
  sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(Due("unknown", unknown, left), sink).ok());
  CHECK(sink->WaitForEnd().accepted->cached_tokens == 0);
  CHECK(sink->WaitForEnd().finished->reason == FinishReason::kDeadline);
  CHECK(sink->WaitForEnd().finished->receipt.num_steps == 0);
}

}  // namespace
}  // namespace fastgen
