// The ways a request or the whole engine ends other than by its own output: cancel, drain, NaN,
// device error, destruction.
#include <thread>

#include "engine/engine.h"
#include "tests/testing/engine_under_test.h"

namespace fastgen {
namespace {

using testing::Bytes;
using testing::EngineUnderTest;
using testing::EngineUnderTestOptions;
using testing::FakeTokenizer;
using testing::MakeEngineUnderTest;
using testing::MakeRequest;
using testing::RecordingSink;
using testing::Says;

TEST_CASE("cancel in the queue ends a request that never ran", "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 1;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(Bytes("ok")));
  fake.executor->CloseGate();
  auto running = std::make_shared<RecordingSink>();
  auto queued = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("running", Bytes("x")), running).ok());
  fake.executor->WaitForStep(1);
  REQUIRE(fake->Submit(MakeRequest("queued", Bytes("x")), queued).ok());
  CHECK(fake->Cancel("queued"));
  fake.executor->LetThrough(1);
  const RecordingSink::Record record = queued->WaitForEnd();
  CHECK(record.finished->reason == FinishReason::kCancelled);
  CHECK(record.finished->usage.output_tokens == 0);
  CHECK(record.finished->receipt.num_steps == 0);
  CHECK(record.num_calls_out_of_order == 0);
  CHECK_FALSE(fake->Cancel("queued"));
  CHECK_FALSE(fake->Cancel("never seen"));
  fake.executor->OpenGate();
  CHECK(running->WaitForEnd().text() == "ok");
  CHECK(fake.AllBlocksFree());
}

TEST_CASE("cancel in the middle of prefill frees the blocks before the next step", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("ok")));
  fake.executor->CloseGate();
  auto sink = std::make_shared<RecordingSink>();
  // 200 tokens at 64 a step: two steps are launched, and not a third one, when the cancel comes.
  REQUIRE(fake->Submit(MakeRequest("a", std::vector<int32_t>(200, 'x')), sink).ok());
  fake.executor->WaitForStep(1);
  CHECK_FALSE(fake.AllBlocksFree());
  REQUIRE(fake->Cancel("a"));
  // Told at once: the client need not wait for the step.
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(fake.AllBlocksFree());
  CHECK(record.finished->reason == FinishReason::kCancelled);
  CHECK(record.finished->usage.output_tokens == 0);
  CHECK(record.ids().empty());
  // What was in flight retires before its blocks are another's.
  auto next = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("b", std::vector<int32_t>(200, 'y')), next).ok());
  fake.executor->OpenGate();
  CHECK(next->WaitForEnd().text() == "ok");
  CHECK(fake->stats().num_wasted_rows >= 1);
}

TEST_CASE("cancel in the middle of decode keeps what was given out", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("abcdefgh")));
  fake.executor->CloseGate();
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", Bytes("x")), sink).ok());
  fake.executor->LetThrough(3);
  sink->WaitForDeltas(3);
  fake.executor->WaitForStep(4);
  REQUIRE(fake->Cancel("a"));
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(fake.AllBlocksFree());
  // The step in flight no longer counts.
  CHECK(record.text() == "abc");
  CHECK(record.ids() == Bytes("abc"));
  CHECK(record.finished->reason == FinishReason::kCancelled);
  CHECK(record.finished->usage.output_tokens == 3);
  CHECK(record.finished->receipt.num_steps == 3);
  fake.executor->OpenGate();
}

TEST_CASE("preemption changes no token", "[engine]") {
  EngineUnderTestOptions roomy;
  EngineUnderTestOptions tight;
  tight.num_blocks = 10;  // three sequences of 30 + 60 tokens need 18
  const auto run = [](const EngineUnderTestOptions& options) {
    EngineUnderTest fake = MakeEngineUnderTest(options);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 3; ++i) {
      sinks.push_back(std::make_shared<RecordingSink>());
      GenerateRequest request =
          MakeRequest(std::to_string(i), std::vector<int32_t>(30, 'a' + i), 60);
      request.stopping.ignore_eos = true;
      request.sampling.seed = 5;
      CHECK(fake->Submit(request, sinks.back()).ok());
    }
    std::vector<std::vector<int32_t>> ids;
    for (const auto& sink : sinks) ids.push_back(sink->WaitForEnd().ids());
    CHECK(fake.AllBlocksFree());
    return std::make_pair(ids, fake->stats().num_preemptions);
  };
  const auto [roomy_ids, roomy_preemptions] = run(roomy);
  const auto [tight_ids, tight_preemptions] = run(tight);
  CHECK(roomy_preemptions == 0);
  CHECK(tight_preemptions > 0);
  CHECK(tight_ids == roomy_ids);
}

TEST_CASE("draining refuses new requests and lets the live ones finish", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("ok")));
  fake.executor->CloseGate();
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", Bytes("x")), sink).ok());
  fake->StartDrain();
  CHECK(fake->Submit(MakeRequest("b", Bytes("x")), std::make_shared<RecordingSink>()).code() ==
        absl::StatusCode::kUnavailable);
  CHECK_FALSE(fake->WaitIdle(absl::Milliseconds(20)));
  fake.executor->OpenGate();
  CHECK(fake->WaitIdle(absl::InfiniteDuration()));
  CHECK(sink->record().text() == "ok");
  CHECK(sink->record().finished->reason == FinishReason::kStop);
  CHECK(sink.use_count() == 1);
  CHECK(fake->health().ok());
}

TEST_CASE("CancelAll ends everything that is live", "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 2;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(std::vector<int32_t>(200, 'z')));
  fake.executor->CloseGate();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 5; ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    REQUIRE(fake->Submit(MakeRequest(std::to_string(i), Bytes("x")), sinks.back()).ok());
  }
  fake->CancelAll();
  fake.executor->OpenGate();
  CHECK(fake->WaitIdle(absl::Seconds(10)));
  for (const auto& sink : sinks) {
    CHECK(sink->record().finished->reason == FinishReason::kCancelled);
  }
  CHECK(fake.AllBlocksFree());
}

TEST_CASE("destroying the engine gives every live sink its last call", "[engine]") {
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  {
    EngineUnderTestOptions options;
    options.max_num_seqs = 2;
    EngineUnderTest fake = MakeEngineUnderTest(options, Says(std::vector<int32_t>(200, 'z')));
    for (int i = 0; i < 5; ++i) {
      sinks.push_back(std::make_shared<RecordingSink>());
      REQUIRE(fake->Submit(MakeRequest(std::to_string(i), Bytes("x")), sinks.back()).ok());
    }
  }
  for (const auto& sink : sinks) {
    CHECK(sink->record().ended());
    CHECK(sink->record().num_calls_out_of_order == 0);
    CHECK(sink.use_count() == 1);
  }
}

TEST_CASE("a NaN row ends its own request with an error and no other", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest(
      {},
      [](const std::vector<int32_t>& context,
         const ScheduledSequence& sequence) -> std::optional<int32_t> {
        if (context.front() == 'n' && sequence.output_position == 2) return std::nullopt;
        return sequence.output_position < 6 ? 'a' + sequence.output_position : FakeTokenizer::kEos;
      });
  auto broken = std::make_shared<RecordingSink>();
  auto sound = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("n", Bytes("n")), broken).ok());
  REQUIRE(fake->Submit(MakeRequest("s", Bytes("s")), sound).ok());
  const RecordingSink::Record record = broken->WaitForEnd();
  CHECK(record.finished->reason == FinishReason::kError);
  CHECK(record.finished->error ==
        "the model produced a logit that is not a number after 2 output tokens");
  CHECK(record.text() == "ab");
  CHECK(sound->WaitForEnd().text() == "abcdef");
  CHECK(fake->health().ok());
}

TEST_CASE("a device error ends all streams and refuses from then on", "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 2;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(std::vector<int32_t>(200, 'z')));
  fake.executor->CloseGate();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 4; ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    REQUIRE(fake->Submit(MakeRequest(std::to_string(i), Bytes("x")), sinks.back()).ok());
  }
  fake.executor->LetThrough(2);
  fake.executor->WaitForStep(3);
  fake.executor->FailNextStep();
  fake.executor->OpenGate();
  for (const auto& sink : sinks) {
    const RecordingSink::Record record = sink->WaitForEnd();
    REQUIRE(record.engine_error.has_value());
    CHECK(record.engine_error->find("device lost") != std::string::npos);
    CHECK(record.num_calls_out_of_order == 0);
  }
  CHECK(fake->health().code() == absl::StatusCode::kUnavailable);
  const absl::Status refused =
      fake->Submit(MakeRequest("late", Bytes("x")), std::make_shared<RecordingSink>());
  CHECK(refused.code() == absl::StatusCode::kUnavailable);
  CHECK_FALSE(fake->Cancel("0"));
  CHECK(fake->WaitIdle(absl::Seconds(10)));
}

}  // namespace
}  // namespace fastgen
