#include "server/event_log.h"

// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
#undef CHECK
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

TokenDelta Delta(int32_t index, int num_tokens, const std::string& text = "t") {
  TokenDelta delta;
  delta.index = index;
  delta.token_ids.assign(static_cast<size_t>(num_tokens), 7);
  delta.text = text;
  return delta;
}

v1::Finished Finish(int32_t index) {
  v1::Finished finished;
  finished.set_index(index);
  return finished;
}

// "index:tokens" of each delta and "end:index" of each finish from `number` on.
std::vector<std::string> TakeAll(EventLog* log, int64_t number) {
  std::vector<std::string> events;
  v1::GenerateEvent event;
  while (log->Take(number, &event)) {
    ++number;
    events.push_back(event.has_finished() ? "end:" + std::to_string(event.finished().index())
                                          : std::to_string(event.delta().index()) + ":" +
                                                std::to_string(event.delta().num_tokens()));
  }
  return events;
}

TEST_CASE("an outbox joins what waits, choice by choice, and forgets what was taken", "[server]") {
  EventLog log(EventLog::Keep::kUntilTaken, 2, 0);
  for (int i = 0; i < 3; ++i) {
    log.Add(Delta(0, 1), {}, "");
    log.Add(Delta(1, 1), {}, "");
  }
  log.Add(Finish(0));
  CHECK(log.NumTokensFrom(log.begin()) == 6);
  CHECK(TakeAll(&log, log.begin()) == std::vector<std::string>{"0:3", "1:3", "end:0"});
  CHECK(log.num_bytes() == 0);
  CHECK(log.NumTokensFrom(log.begin()) == 0);
  log.Add(Delta(1, 1), {}, "");
  CHECK(TakeAll(&log, log.begin()) == std::vector<std::string>{"1:1"});
}

TEST_CASE("no message exceeds 256 tokens of prompt and output", "[server]") {
  EventLog log(EventLog::Keep::kUntilTaken, 1, 0);
  TokenDelta scores;
  scores.prompt_logprobs.resize(200);
  DeltaFields fields;
  fields.prompt_logprobs = true;
  log.Add(scores, fields, "");
  log.Add(scores, fields, "");
  log.Add(Delta(0, 56), fields, "");
  log.Add(Delta(0, 1), fields, "");
  CHECK(log.NumTokensFrom(log.begin()) == 457);
  CHECK(TakeAll(&log, log.begin()) == std::vector<std::string>{"0:0", "0:56", "0:1"});
}

TEST_CASE("a ring replays from any position that a reader can have counted", "[server]") {
  EventLog log(EventLog::Keep::kAsRing, 2, 1000);
  std::vector<int64_t> positions;
  v1::GenerateEvent event;
  int64_t number = 0, counted = 0;
  for (int i = 0; i < 20; ++i) {
    log.Add(Delta(i % 2, 1 + i % 3), {}, "");
    if (i % 2 == 0) log.Add(Delta(i % 2, 1), {}, "");
    while (i % 4 != 1 && log.Take(number, &event)) {
      ++number;
      counted += event.delta().num_tokens();
      positions.push_back(counted);
    }
  }
  log.Add(Finish(0));
  log.Add(Finish(1));
  const int64_t total = log.end_position();
  for (const int64_t position : positions) {
    const auto place = log.Find(position);
    REQUIRE(place.ok());
    CHECK(place->position == position);
    int64_t replayed = position;
    for (int64_t next = place->number; log.Take(next, &event); ++next) {
      replayed += event.delta().num_tokens();
    }
    CHECK(replayed == total);
  }
}

TEST_CASE("a ring replays reasoning and tool calls, and counts their bytes", "[server]") {
  EventLog log(EventLog::Keep::kAsRing, 1, 100);
  TokenDelta reasoning = Delta(0, 1, "");
  reasoning.reasoning = std::string(1000, 'r');
  log.Add(reasoning, {}, "");
  v1::GenerateEvent event;
  REQUIRE(log.Take(0, &event));
  TokenDelta call = Delta(0, 2, "");
  call.tool_calls = {{0, "id", "f", std::string(1000, ' ')}};
  log.Add(call, {}, "");
  CHECK(log.num_bytes() > 2000);
  for (int reader = 0; reader < 2; ++reader) {
    REQUIRE(log.Take(0, &event));
    CHECK(event.delta().reasoning() == reasoning.reasoning);
    REQUIRE(log.Take(1, &event));
    REQUIRE(event.delta().tool_calls_size() == 1);
    CHECK(event.delta().tool_calls(0).name() == "f");
    CHECK(event.delta().tool_calls(0).arguments().size() == 1000);
  }
}

TEST_CASE("a position inside a message takes it up from its start", "[server]") {
  EventLog log(EventLog::Keep::kAsRing, 1, 1000);
  log.Add(Delta(0, 5), {}, "");
  log.Add(Finish(0));
  const auto place = log.Find(3);
  REQUIRE(place.ok());
  CHECK(place->position == 0);
  CHECK(TakeAll(&log, place->number) == std::vector<std::string>{"0:5", "end:0"});
}

TEST_CASE("events without tokens at a position come again", "[server]") {
  EventLog log(EventLog::Keep::kAsRing, 1, 1000);
  v1::GenerateEvent event;
  log.Add(Delta(0, 2), {}, "");
  log.Take(0, &event);
  log.Add(Delta(0, 0, "tail"), {}, "");
  log.Add(Finish(0));
  const auto place = log.Find(2);
  REQUIRE(place.ok());
  CHECK(TakeAll(&log, place->number) == std::vector<std::string>{"0:0", "end:0"});
}

TEST_CASE("what a ring has lost, and what was never produced, is out of range", "[server]") {
  EventLog log(EventLog::Keep::kAsRing, 1, 10);
  v1::GenerateEvent event;
  for (int i = 0; i < 30; ++i) {
    log.Add(Delta(0, 1), {}, "");
    log.Take(i, &event);
    log.Trim(log.end());
  }
  CHECK(log.NumTokensFrom(log.begin()) == 10);
  CHECK(log.first_position() == 20);
  CHECK(log.Find(20).ok());
  CHECK(log.Find(30).ok());
  for (const int64_t position : {0, 19}) {
    const auto lost = log.Find(position);
    CHECK(lost.status().code() == absl::StatusCode::kOutOfRange);
    CHECK(std::string(lost.status().message()).find("20") != std::string::npos);
  }
  const auto future = log.Find(31);
  CHECK(future.status().code() == absl::StatusCode::kOutOfRange);
  CHECK(std::string(future.status().message()).find("31") != std::string::npos);
  CHECK(std::string(future.status().message()).find("30") != std::string::npos);
}

TEST_CASE("a ring keeps what its reader has yet to get", "[server]") {
  EventLog log(EventLog::Keep::kAsRing, 1, 4);
  v1::GenerateEvent event;
  log.Add(Delta(0, 4), {}, "");
  log.Take(0, &event);
  log.Add(Delta(0, 8), {}, "");
  log.Add(v1::Finished());
  log.Trim(1);
  CHECK(log.begin() == 1);
  CHECK(TakeAll(&log, 1) == std::vector<std::string>{"0:8", "end:0"});
  // Nobody reads: what a reader that comes back may find is the ring's size again.
  log.Trim(log.end());
  CHECK(log.begin() == 2);
}

TEST_CASE("lost scores of a prompt are not passed over", "[server]") {
  EventLog log(EventLog::Keep::kAsRing, 1, 10);
  TokenDelta scores;
  scores.prompt_logprobs.resize(10);
  v1::GenerateEvent event;
  log.Add(scores, {}, "");
  log.Take(0, &event);
  log.Add(Delta(0, 5), {}, "");
  log.Take(1, &event);
  log.Trim(log.end());
  // The output is whole, but what stood before it at position 0 is gone.
  CHECK(log.first_position() == 0);
  CHECK(log.Find(0).status().code() == absl::StatusCode::kOutOfRange);
  CHECK(log.Find(5).ok());
}

TEST_CASE("a ring's memory is what its events hold", "[server]") {
  EventLog log(EventLog::Keep::kAsRing, 1, 1000);
  log.Add(Delta(0, 1, std::string(5000, 'x')), {}, "");
  const int64_t one = log.num_bytes();
  CHECK(one >= 5000);
  v1::GenerateEvent event;
  log.Take(0, &event);
  CHECK(log.num_bytes() == one);
  CHECK_FALSE(log.DropOldest());
  log.Add(Delta(0, 1, std::string(100, 'x')), {}, "");
  CHECK(log.DropOldest());
  CHECK(log.num_bytes() < 1000);
  log.Clear();
  CHECK(log.num_bytes() == 0);
}

}  // namespace
}  // namespace fastgen
