#include "engine/request_queue.h"

#include <catch2/catch.hpp>
#include <thread>

namespace fastgen {
namespace {

AddCommand Add(SequenceId leader, int num_choices = 1) {
  AddCommand command;
  for (int i = 0; i < num_choices; ++i) {
    command.sequences.emplace_back().id = leader + static_cast<SequenceId>(i);
  }
  return command;
}

absl::Status Push(RequestQueue* queue, const std::string& request_id, SequenceId leader,
                  QueuePlace place = {1, 0}) {
  return queue->Push(request_id, nullptr, place, Add(leader));
}

std::vector<EngineCommand> TakeAll(RequestQueue* queue) {
  std::vector<EngineCommand> commands;
  queue->Take(&commands);
  return commands;
}

TEST_CASE("commands are taken in the order given", "[engine]") {
  RequestQueue queue({4, 100});
  REQUIRE(Push(&queue, "a", 128).ok());
  REQUIRE(queue.Cancel("a", nullptr));
  queue.FinishAt(128, 5);
  REQUIRE(Push(&queue, "b", 256).ok());
  const std::vector<EngineCommand> commands = TakeAll(&queue);
  REQUIRE(commands.size() == 4);
  CHECK(std::get<AddCommand>(commands[0]).sequences[0].id == 128);
  CHECK(std::get<CancelCommand>(commands[1]).leader == 128);
  CHECK(std::get<FinishAtCommand>(commands[2]).num_output_tokens == 5);
  CHECK(std::get<AddCommand>(commands[3]).sequences[0].id == 256);
}

TEST_CASE("a refused push has no effect", "[engine]") {
  RequestQueue queue({1, 100});
  REQUIRE(Push(&queue, "a", 128).ok());
  CHECK(absl::IsAlreadyExists(Push(&queue, "a", 256)));
  CHECK(absl::IsResourceExhausted(Push(&queue, "b", 384)));
  CHECK(absl::IsResourceExhausted(queue.CheckPush("b", {1, 0})));
  CHECK(TakeAll(&queue).size() == 1);
  queue.StartDrain();
  CHECK(absl::IsUnavailable(Push(&queue, "c", 512)));
  CHECK_FALSE(queue.Cancel("b", nullptr));
  // The drain alone: whatever is paused has to run on.
  const std::vector<EngineCommand> commands = TakeAll(&queue);
  REQUIRE(commands.size() == 1);
  CHECK(std::holds_alternative<ResumeCommand>(commands[0]));
}

TEST_CASE("a place in the queue is free once the request has started", "[engine]") {
  RequestQueue queue({1, 100});
  REQUIRE(Push(&queue, "a", 128, {7, -3}).ok());
  CHECK(absl::IsResourceExhausted(Push(&queue, "b", 256)));
  queue.Started({7, -3});
  CHECK(Push(&queue, "b", 256).ok());
}

TEST_CASE("waiting prompt tokens are bounded, and the refusal names all numbers", "[engine]") {
  RequestQueue queue({10, 100});
  REQUIRE(Push(&queue, "a", 128, {60, 0}).ok());
  REQUIRE(Push(&queue, "b", 256, {40, 0}).ok());
  CHECK(Push(&queue, "c", 384, {1, 0}).message() ==
        "the queue is full: 2 requests with 100 prompt tokens wait, 1 more tokens were asked for; "
        "the limits are 10 requests and 100 tokens");
  queue.Started({60, 0});
  CHECK(Push(&queue, "c", 384, {60, 0}).ok());
  CHECK_FALSE(Push(&queue, "d", 512, {1, 0}).ok());
}

TEST_CASE("a prompt longer than the limit is taken when nothing waits", "[engine]") {
  RequestQueue queue({10, 100});
  REQUIRE(Push(&queue, "long", 128, {1000, 0}).ok());
  CHECK_FALSE(Push(&queue, "short", 256, {1, 0}).ok());
  queue.Started({1000, 0});
  REQUIRE(Push(&queue, "short", 256, {1, 0}).ok());
  CHECK_FALSE(Push(&queue, "long again", 384, {1000, 0}).ok());
}

TEST_CASE("tokens ahead are those of the same and of more urgent classes", "[engine]") {
  RequestQueue queue({10, 1000});
  REQUIRE(Push(&queue, "a", 128, {1, -100}).ok());
  REQUIRE(Push(&queue, "b", 256, {20, 0}).ok());
  REQUIRE(Push(&queue, "c", 384, {300, 100}).ok());
  CHECK(queue.NumTokensAhead(-100) == 1);
  CHECK(queue.NumTokensAhead(-1) == 1);
  CHECK(queue.NumTokensAhead(0) == 21);
  CHECK(queue.NumTokensAhead(100) == 321);
  queue.Started({20, 0});
  CHECK(queue.NumTokensAhead(100) == 301);
}

TEST_CASE("a cancel for one sink leaves another's request alone", "[engine]") {
  RequestQueue queue({4, 100});
  int a = 0;
  int b = 0;
  const auto* sink = reinterpret_cast<const TokenSink*>(&a);
  const auto* other = reinterpret_cast<const TokenSink*>(&b);
  REQUIRE(queue.Push("same", sink, {1, 0}, Add(128)).ok());
  CHECK_FALSE(queue.Cancel("same", other));
  CHECK(TakeAll(&queue).size() == 1);
  CHECK(queue.Cancel("same", sink));
  CHECK(TakeAll(&queue).size() == 1);
  CHECK(queue.Cancel("same", nullptr));
  // One command is enough.
  CHECK(TakeAll(&queue).empty());
}

TEST_CASE("figures count each sequence once, taken or not", "[engine]") {
  RequestQueue queue({4, 1000});
  REQUIRE(queue.Push("a", nullptr, {10, 0}, Add(128, 3)).ok());
  CHECK(queue.snapshot().scheduler.num_waiting == 3);
  TakeAll(&queue);
  CHECK(queue.snapshot().scheduler.num_waiting == 3);
  REQUIRE(Push(&queue, "b", 256, {5, 0}).ok());
  EngineSnapshot snapshot;
  snapshot.scheduler.num_waiting = 3;
  snapshot.scheduler.num_waiting_tokens = 10;
  queue.Publish(snapshot);
  CHECK(queue.snapshot().scheduler.num_waiting == 4);
  CHECK(queue.snapshot().scheduler.num_waiting_tokens == 15);
}

TEST_CASE("an id is free once retired, idleness waits for delivery", "[engine]") {
  RequestQueue queue({4, 100});
  CHECK(queue.WaitIdle(absl::ZeroDuration()));
  REQUIRE(Push(&queue, "a", 128).ok());
  queue.Retire("a");
  CHECK_FALSE(queue.Cancel("a", nullptr));
  CHECK_FALSE(queue.WaitIdle(absl::Milliseconds(5)));
  std::thread deliverer([&] { queue.Delivered(); });
  CHECK(queue.WaitIdle(absl::InfiniteDuration()));
  deliverer.join();
}

TEST_CASE("a failed queue says why, for ever", "[engine]") {
  RequestQueue queue({4, 100});
  CHECK(queue.health().ok());
  queue.Fail("first");
  queue.Fail("second");
  CHECK(queue.health().message() == "first");
  CHECK(Push(&queue, "a", 128).message() == "first");
}

TEST_CASE("plans are bounded, and one that is not taken stays with its asker", "[engine]") {
  RequestQueue queue({4, 100});
  int num_answers = 0;
  const auto ask = [&] {
    PlanQuery plan;
    plan.done = [&](const absl::StatusOr<PlanInfo>&) { ++num_answers; };
    EngineCommand query = std::move(plan);
    const RequestQueue::Asked asked = queue.Ask(std::move(query));
    if (asked != RequestQueue::Asked::kTaken) std::get<PlanQuery>(query).done(PlanInfo());
    return asked;
  };
  for (int32_t i = 0; i < RequestQueue::kMaxQueries; ++i) {
    REQUIRE(ask() == RequestQueue::Asked::kTaken);
  }
  CHECK(num_answers == 0);
  CHECK(ask() == RequestQueue::Asked::kTooMany);
  CHECK(num_answers == 1);
  CHECK(queue.Ask(PauseQuery{[] {}}) == RequestQueue::Asked::kTaken);
  queue.Answered();
  queue.Answered();
  CHECK(ask() == RequestQueue::Asked::kTaken);
  queue.Close();
  CHECK(ask() == RequestQueue::Asked::kEnding);
  CHECK(num_answers == 2);
}

TEST_CASE("a request counts once for every choice, until its last call", "[engine]") {
  QueueLimits limits;
  limits.max_requests = 8;
  limits.max_tokens = 100;
  limits.max_sequences = 10;
  RequestQueue queue(limits);
  const auto push = [&](const std::string& id, int32_t num_tokens, int32_t num_choices) {
    AddCommand command;
    command.sequences.resize(num_choices);
    return queue.Push(id, nullptr, {num_tokens, 0, num_choices}, std::move(command));
  };
  // Alone even more than the limit passes.
  REQUIRE(push("a", 1, 8).ok());
  CHECK(absl::IsResourceExhausted(push("b", 1, 3)));
  REQUIRE(push("b", 40, 2).ok());
  CHECK(absl::IsResourceExhausted(push("c", 1, 1)));
  queue.Started({1, 0, 8});
  CHECK(absl::IsResourceExhausted(push("c", 1, 1)));  // running ones count too
  queue.Retire("a");
  CHECK(absl::IsResourceExhausted(push("c", 11, 2)));  // 80 tokens and 22
  CHECK(push("c", 10, 2).ok());
}

TEST_CASE("Wait sleeps until a command, a wake, the end or its time", "[engine]") {
  RequestQueue queue({4, 100});
  queue.Wait(absl::ZeroDuration());
  queue.Wait(absl::Milliseconds(2));
  queue.Wake();
  queue.Wait(absl::InfiniteDuration());
  std::thread engine([&] { queue.Wait(absl::InfiniteDuration()); });
  CHECK_FALSE(queue.IsOver());
  queue.Close();
  engine.join();
  CHECK(queue.IsOver());
  queue.FinishAt(1, 1);
  CHECK_FALSE(queue.IsOver());
  queue.Wait(absl::InfiniteDuration());
}

}  // namespace
}  // namespace fastgen
