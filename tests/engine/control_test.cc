// What operators and planners ask: Plan, ListRequests, Pause, Resume, FlushPrefixCache, RetryAfter;
// each is answered exactly once, whatever happens meanwhile.
#include <atomic>
#include <thread>

#include "engine/engine.h"
#include "engine/request_queue.h"
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

// What a callback is given, once.
template <typename T>
class Answer {
 public:
  std::function<void(T)> callback() {
    return [this](T value) {
      MutexLock lock(&mutex_);
      ++num_calls_;
      value_ = std::move(value);
      changed_.SignalAll();
    };
  }
  T Wait() {
    MutexLock lock(&mutex_);
    while (num_calls_ == 0) changed_.Wait(&mutex_);
    return *value_;
  }
  int num_calls() {
    MutexLock lock(&mutex_);
    return num_calls_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int num_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<T> value_ ABSL_GUARDED_BY(mutex_);
};

class Signal {
 public:
  std::function<void()> callback() {
    return [done = answer_.callback()] { done(true); };
  }
  void Wait() { answer_.Wait(); }
  int num_calls() { return answer_.num_calls(); }

 private:
  Answer<bool> answer_;
};

absl::StatusOr<PlanInfo> PlanOf(Engine* engine, GenerateRequest request) {
  Answer<absl::StatusOr<PlanInfo>> answer;
  engine->Plan(std::move(request), answer.callback());
  return answer.Wait();
}

std::vector<RequestInfo> List(Engine* engine) {
  Answer<std::vector<RequestInfo>> answer;
  engine->ListRequests(answer.callback());
  return answer.Wait();
}

int32_t Flush(Engine* engine) {
  Answer<int32_t> answer;
  engine->FlushPrefixCache(answer.callback());
  return answer.Wait();
}

void Pause(Engine* engine) {
  Signal signal;
  engine->Pause(signal.callback());
  signal.Wait();
}

// Keeps the engine thread in an answer until Release.
class HeldEngineThread {
 public:
  explicit HeldEngineThread(Engine* engine) {
    engine->ListRequests([this](const std::vector<RequestInfo>&) {
      MutexLock lock(&mutex_);
      held_ = true;
      changed_.SignalAll();
      while (!released_) changed_.Wait(&mutex_);
    });
    MutexLock lock(&mutex_);
    while (!held_) changed_.Wait(&mutex_);
  }
  void Release() {
    MutexLock lock(&mutex_);
    released_ = true;
    changed_.SignalAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST_CASE("a plan says what Submit would meet", "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 1;
  options.max_queued_requests = 2;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(Bytes("ok")));
  GenerateRequest request = MakeRequest("", std::vector<int32_t>(100, 'x'));
  PlanInfo plan = *PlanOf(fake.engine.get(), request);
  CHECK(plan.fits);
  CHECK(plan.reason.empty());
  CHECK(plan.prompt_tokens == 100);
  CHECK(plan.cached_tokens_device == 0);
  CHECK(plan.queue_position == 0);
  CHECK(plan.estimated_ttft == absl::ZeroDuration());

  auto sink = std::make_shared<RecordingSink>();
  request.request_id = "a";
  REQUIRE(fake->Submit(request, sink).ok());
  sink->WaitForEnd();
  request.request_id = "";
  plan = *PlanOf(fake.engine.get(), request);
  CHECK(plan.cached_tokens_device == 96);
  CHECK(plan.estimated_ttft > absl::ZeroDuration());
  GenerateRequest salted = request;
  salted.cache_salt = "other";
  CHECK(PlanOf(fake.engine.get(), salted)->cached_tokens_device == 0);

  fake.executor->CloseGate();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const char* id : {"b", "c", "d"}) {
    sinks.push_back(std::make_shared<RecordingSink>());
    REQUIRE(fake->Submit(MakeRequest(id, Bytes("y")), sinks.back()).ok());
    // The first one leaves the queue for the only row.
    while (sinks.size() == 1 && fake->stats().num_running == 0) std::this_thread::yield();
  }
  sinks.back()->WaitForAccepted();
  plan = *PlanOf(fake.engine.get(), request);
  CHECK_FALSE(plan.fits);
  CHECK(plan.reason.rfind("the queue is full: 2 requests", 0) == 0);
  CHECK(plan.queue_position == 2);
  request.request_id = "c";
  CHECK(PlanOf(fake.engine.get(), request)->reason ==
        "request_id: \"c\" is in use by a live request");
  fake.executor->OpenGate();
  for (const auto& s : sinks) s->WaitForEnd();
}

TEST_CASE("a plan of a bad request has Submit's error", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  GenerateRequest request = MakeRequest("", Bytes("x"));
  request.sampling.top_p = 7;
  CHECK(PlanOf(fake.engine.get(), request).status().message() ==
        "sampling.top_p: 7 is outside (0, 1]");
  CHECK(absl::IsInvalidArgument(
      PlanOf(fake.engine.get(), MakeRequest("", std::vector<int32_t>(5000, 'x'))).status()));
  request = MakeRequest("", Bytes("x"));
  request.deadline = absl::Now() - absl::Seconds(1);
  const PlanInfo late = *PlanOf(fake.engine.get(), request);
  CHECK_FALSE(late.fits);
  CHECK(late.reason.rfind("deadline: it passed ", 0) == 0);
}

TEST_CASE("live requests are listed with their phase and counts, during a long step too",
          "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 3;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(Bytes("abcdefgh")));
  CHECK(List(fake.engine.get()).empty());
  fake.executor->CloseGate();
  GenerateRequest pair = MakeRequest("pair", Bytes("xyz"));
  pair.n = pair.best_of = 2;
  pair.priority = -3;
  auto first = std::make_shared<RecordingSink>(2);
  REQUIRE(fake->Submit(pair, first).ok());
  fake.executor->LetThrough(4);
  first->WaitForDeltas(5);
  auto second = std::make_shared<RecordingSink>();
  auto third = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("prefill", std::vector<int32_t>(250, 'x')), second).ok());
  REQUIRE(fake->Submit(MakeRequest("queued", Bytes("y")), third).ok());
  fake.executor->LetThrough(2);
  fake.executor->WaitForStep(7);
  const std::vector<RequestInfo> list = List(fake.engine.get());
  REQUIRE(list.size() == 3);
  CHECK(list[0].request_id == "pair");
  CHECK(list[0].phase == RequestInfo::Phase::kDecode);
  CHECK(list[0].prompt_tokens == 3);
  CHECK(list[0].output_tokens >= 5);
  CHECK(list[0].priority == -3);
  CHECK(list[0].age >= list[1].age);
  CHECK(list[1].request_id == "prefill");
  CHECK(list[1].phase == RequestInfo::Phase::kPrefill);
  CHECK(list[1].output_tokens == 0);
  CHECK(list[2].request_id == "queued");
  CHECK(list[2].phase == RequestInfo::Phase::kQueued);
  CHECK(fake->stats().num_waiting == 1);
  CHECK(fake->stats().num_queued_tokens == 1);
  fake.executor->OpenGate();
  third->WaitForEnd();
  second->WaitForEnd();
}

TEST_CASE("a pause stops planning; requests are taken, cancelled and resumed", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("abcdefgh")));
  fake.executor->CloseGate();
  auto live = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("live", Bytes("x")), live).ok());
  fake.executor->WaitForStep(1);
  Signal paused;
  fake->Pause(paused.callback());
  auto late = std::make_shared<RecordingSink>();
  auto cancelled = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("late", Bytes("y")), late).ok());
  REQUIRE(fake->Submit(MakeRequest("cancelled", Bytes("z")), cancelled).ok());
  cancelled->WaitForAccepted();
  CHECK(paused.num_calls() == 0);  // a step is in flight
  fake.executor->OpenGate();
  paused.Wait();
  CHECK(fake->stats().paused);
  const size_t num_steps = fake.executor->steps().size();
  CHECK(num_steps <= 2);
  REQUIRE(fake->Cancel("cancelled"));
  CHECK(cancelled->WaitForEnd().finished->reason == FinishReason::kCancelled);
  GenerateRequest due = MakeRequest("due", Bytes("x"));
  due.deadline = absl::Now() + absl::Milliseconds(50);
  auto expired = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(due, expired).ok());
  CHECK(expired->WaitForEnd().finished->reason == FinishReason::kDeadline);
  CHECK(fake.executor->steps().size() == num_steps);
  CHECK(List(fake.engine.get()).size() == 2);
  Pause(fake.engine.get());  // once more: at once
  fake->Resume();
  CHECK(live->WaitForEnd().text() == "abcdefgh");
  CHECK(late->WaitForEnd().text() == "abcdefgh");
  CHECK_FALSE(fake->stats().paused);
}

TEST_CASE("a drain resumes what is paused; the end of the engine cancels it", "[engine]") {
  auto sink = std::make_shared<RecordingSink>();
  const int way = GENERATE(0, 1, 2);
  {
    EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("abcdefgh")));
    Pause(fake.engine.get());
    REQUIRE(fake->Submit(MakeRequest("a", Bytes("x")), sink).ok());
    if (way == 0) {
      fake->StartDrain();
      Pause(fake.engine.get());  // no longer: it has to end
      CHECK(fake->WaitIdle(absl::InfiniteDuration()));
      CHECK(sink->record().text() == "abcdefgh");
    }
    if (way == 1) {
      fake->CancelAll();
      CHECK(fake->WaitIdle(absl::InfiniteDuration()));
      CHECK(sink->record().finished->reason == FinishReason::kCancelled);
    }
  }
  CHECK(sink->record().ended());
}

TEST_CASE("a pause that is resumed before it took hold is answered all the same", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("abcdefgh")));
  fake.executor->CloseGate();
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", Bytes("x")), sink).ok());
  fake.executor->WaitForStep(1);
  Signal paused;
  fake->Pause(paused.callback());
  fake->Resume();
  paused.Wait();
  fake.executor->OpenGate();
  CHECK(sink->WaitForEnd().text() == "abcdefgh");
  CHECK(paused.num_calls() == 1);
}

TEST_CASE("a flush forgets all prefixes and says how many blocks held one", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("ok")));
  const auto cached = [&](const std::string& id) {
    auto sink = std::make_shared<RecordingSink>();
    CHECK(fake->Submit(MakeRequest(id, std::vector<int32_t>(100, 'x')), sink).ok());
    return sink->WaitForEnd().accepted->cached_tokens;
  };
  CHECK(Flush(fake.engine.get()) == 0);
  CHECK(cached("a") == 0);
  CHECK(cached("b") == 96);
  // Counted at the end of the step, which may come after the end of the answer.
  while (fake->stats().num_cached_blocks < 6) std::this_thread::yield();
  CHECK(Flush(fake.engine.get()) >= 6);
  CHECK(fake->stats().num_cached_blocks == 0);
  CHECK(cached("c") == 0);
}

TEST_CASE("a prefix cache that is off keeps nothing", "[engine]") {
  EngineUnderTestOptions options;
  options.prefix_cache = false;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(Bytes("ok")));
  for (const char* id : {"a", "b"}) {
    auto sink = std::make_shared<RecordingSink>();
    REQUIRE(fake->Submit(MakeRequest(id, std::vector<int32_t>(100, 'x')), sink).ok());
    CHECK(sink->WaitForEnd().finished->usage.cached_tokens == 0);
  }
}

TEST_CASE("retry hints lie between a second and a minute", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  CHECK(fake->RetryAfter() == absl::Seconds(1));
}

TEST_CASE("after a failure every question is answered", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  fake.executor->FailNextStep();
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", Bytes("x")), sink).ok());
  CHECK(sink->WaitForEnd().engine_error.has_value());
  const PlanInfo plan = *PlanOf(fake.engine.get(), MakeRequest("", Bytes("x")));
  CHECK_FALSE(plan.fits);
  CHECK(plan.reason.find("device lost") != std::string::npos);
  CHECK(List(fake.engine.get()).empty());
  Pause(fake.engine.get());
  fake->Resume();
  CHECK(Flush(fake.engine.get()) == 0);
  CHECK(fake.AllBlocksFree());
}

TEST_CASE("plans are bounded; what an operator orders is never turned away for them", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  std::atomic<int> num_planned = 0;
  std::atomic<int> num_ordered = 0;
  HeldEngineThread held(fake.engine.get());
  for (int i = 0; i < RequestQueue::kMaxQueries; ++i) {
    fake->Plan(MakeRequest("", Bytes("x")),
               [&](const absl::StatusOr<PlanInfo>&) { ++num_planned; });
  }
  const int num_refused = num_planned;
  CHECK(absl::IsResourceExhausted(PlanOf(fake.engine.get(), MakeRequest("", Bytes("x"))).status()));
  fake->Pause([&] { ++num_ordered; });
  fake->ListRequests([&](const std::vector<RequestInfo>&) { ++num_ordered; });
  fake->FlushPrefixCache([&](int32_t) { ++num_ordered; });
  CHECK(num_ordered == 0);
  held.Release();
  while (num_ordered < 3) std::this_thread::yield();
  CHECK(num_planned == RequestQueue::kMaxQueries);
  CHECK(num_refused <= 1);
  CHECK(fake->stats().paused);
  fake->Resume();
  CHECK(PlanOf(fake.engine.get(), MakeRequest("", Bytes("x")))->fits);
}

// Asks from its last call.
class AskingSink final : public RecordingSink {
 public:
  AskingSink(Engine* engine, std::atomic<int>* num_answers)
      : engine_(engine), num_answers_(num_answers) {}
  void OnFinished(FinishInfo info) override {
    engine_->ListRequests([this](const std::vector<RequestInfo>&) { ++*num_answers_; });
    engine_->Pause([this] { ++*num_answers_; });
    engine_->Plan(MakeRequest("", Bytes("x")),
                  [this](const absl::StatusOr<PlanInfo>&) { ++*num_answers_; });
    RecordingSink::OnFinished(std::move(info));
  }

 private:
  Engine* const engine_;
  std::atomic<int>* const num_answers_;
};

TEST_CASE("an engine that is destroyed answers what was asked, once", "[engine]") {
  std::atomic<int> num_answers = 0;
  auto sink = std::shared_ptr<AskingSink>();
  {
    EngineUnderTest fake = MakeEngineUnderTest({}, Says(std::vector<int32_t>(200, 'z')));
    sink = std::make_shared<AskingSink>(fake.engine.get(), &num_answers);
    fake.executor->CloseGate();
    REQUIRE(fake->Submit(MakeRequest("a", Bytes("x")), sink).ok());
    fake.executor->WaitForStep(1);
    HeldEngineThread held(fake.engine.get());
    for (int i = 0; i < 5; ++i) {
      fake->Pause([&] { ++num_answers; });
      fake->FlushPrefixCache([&](int32_t) { ++num_answers; });
      fake->ListRequests([&](const std::vector<RequestInfo>&) { ++num_answers; });
      fake->Plan(MakeRequest("", Bytes("x")),
                 [&](const absl::StatusOr<PlanInfo>&) { ++num_answers; });
    }
    CHECK(num_answers == 0);
    fake.executor->OpenGate();
    std::thread destroyer([&] { fake.engine.reset(); });
    held.Release();
    destroyer.join();
  }
  CHECK(num_answers == 23);
  CHECK(sink->record().ended());
}

TEST_CASE("a cancel for one stream spares a later one of the same id", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("abcdefgh")));
  auto first = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("same", Bytes("x")), first).ok());
  first->WaitForEnd();
  fake.executor->CloseGate();
  auto second = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("same", Bytes("x")), second).ok());
  CHECK_FALSE(fake->Cancel("same", first.get()));
  fake.executor->OpenGate();
  CHECK(second->WaitForEnd().text() == "abcdefgh");
  auto third = std::make_shared<RecordingSink>();
  fake.executor->CloseGate();
  REQUIRE(fake->Submit(MakeRequest("same", Bytes("x")), third).ok());
  CHECK(fake->Cancel("same", third.get()));
  CHECK(third->WaitForEnd().finished->reason == FinishReason::kCancelled);
  fake.executor->OpenGate();
}

}  // namespace
}  // namespace fastgen
