#include "engine/request_queue.h"

#include <catch2/catch.hpp>
#include <thread>

namespace fastgen {
namespace {

NewSequence Sequence(SequenceId id) {
  NewSequence sequence;
  sequence.id = id;
  sequence.prompt = {1};
  return sequence;
}

absl::Status Push(RequestQueue* queue, const std::string& request_id, SequenceId id) {
  return queue->Push(request_id, Sequence(id), [] {});
}

TEST_CASE("commands are taken in the order given", "[engine]") {
  RequestQueue queue(4);
  REQUIRE(Push(&queue, "a", 1).ok());
  REQUIRE(queue.Cancel("a"));
  queue.FinishAt(1, 5);
  REQUIRE(Push(&queue, "b", 2).ok());
  std::vector<EngineCommand> commands;
  queue.Take(&commands);
  REQUIRE(commands.size() == 4);
  CHECK(std::get<AddCommand>(commands[0]).sequence.id == 1);
  CHECK(std::get<CancelCommand>(commands[1]).id == 1);
  CHECK(std::get<FinishAtCommand>(commands[2]).num_output_tokens == 5);
  CHECK(std::get<AddCommand>(commands[3]).sequence.id == 2);
}

TEST_CASE("a refused push has no effect", "[engine]") {
  RequestQueue queue(1);
  int num_accepted = 0;
  const auto push = [&](const std::string& request_id, SequenceId id) {
    return queue.Push(request_id, Sequence(id), [&] { ++num_accepted; });
  };
  REQUIRE(push("a", 1).ok());
  CHECK(absl::IsAlreadyExists(push("a", 2)));
  CHECK(absl::IsResourceExhausted(push("b", 3)));
  queue.StartDrain();
  CHECK(absl::IsUnavailable(push("c", 4)));
  CHECK(num_accepted == 1);
  std::vector<EngineCommand> commands;
  queue.Take(&commands);
  CHECK(commands.size() == 1);
  CHECK_FALSE(queue.Cancel("b"));
}

TEST_CASE("a place in the queue is free once the sequence has started", "[engine]") {
  RequestQueue queue(1);
  REQUIRE(Push(&queue, "a", 1).ok());
  CHECK(absl::IsResourceExhausted(Push(&queue, "b", 2)));
  queue.Started(1);
  CHECK(Push(&queue, "b", 2).ok());
}

TEST_CASE("an id is free once retired, idleness waits for delivery", "[engine]") {
  RequestQueue queue(4);
  CHECK(queue.WaitIdle(absl::ZeroDuration()));
  REQUIRE(Push(&queue, "a", 1).ok());
  queue.Retire("a");
  CHECK_FALSE(queue.Cancel("a"));
  CHECK_FALSE(queue.WaitIdle(absl::Milliseconds(5)));
  std::thread deliverer([&] { queue.Delivered(); });
  CHECK(queue.WaitIdle(absl::InfiniteDuration()));
  deliverer.join();
}

TEST_CASE("a failed queue says why, for ever", "[engine]") {
  RequestQueue queue(4);
  CHECK(queue.health().ok());
  queue.Fail("first");
  queue.Fail("second");
  CHECK(queue.health().message() == "first");
  CHECK(Push(&queue, "a", 1).message() == "first");
}

TEST_CASE("a closed queue wakes the engine thread and ends when empty", "[engine]") {
  RequestQueue queue(4);
  bool had_commands = true;
  std::thread engine([&] { had_commands = queue.Wait(); });
  queue.Close();
  engine.join();
  CHECK_FALSE(had_commands);
  queue.FinishAt(1, 1);
  CHECK(queue.Wait());
}

}  // namespace
}  // namespace fastgen
