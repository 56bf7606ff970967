#include "clients/fgchat/answer.h"

#include <thread>

#include "absl/time/clock.h"
#include "tests/testing/fake_inference_service.h"

// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

using testing::FakeDaemon;
using testing::GenerateScript;

Answer AnswerOf(int num_tokens, absl::Duration duration) {
  Answer answer;
  answer.num_tokens = num_tokens;
  answer.duration = duration;
  return answer;
}

TEST_CASE("the speed is that of the tokens after the first", "[clients]") {
  CHECK(DescribeSpeed(AnswerOf(33, absl::Seconds(2))) == "--- [33 tokens, 16.000toks/s]");
  CHECK(DescribeSpeed(AnswerOf(1, absl::Milliseconds(500))) == "--- [1 tokens, 2.000toks/s]");
  CHECK(DescribeSpeed(AnswerOf(0, absl::Seconds(1))) == "--- [0 tokens, 0.000toks/s]");
  CHECK(DescribeSpeed(AnswerOf(7, absl::ZeroDuration())) == "--- [7 tokens, 0.000toks/s]");
}

TEST_CASE("an answer is shown piece by piece and kept whole", "[clients]") {
  FakeDaemon daemon;
  daemon.on_generate = [](const v1::GenerateRequest&) {
    return testing::AnswerScript({"Hel", "lo", " there"});
  };
  auto stub = v1::Inference::NewStub(daemon.channel());
  AnswerStream stream(stub.get());
  std::vector<std::string> shown;
  const auto answer = stream.Run({}, [&](std::string_view text) { shown.emplace_back(text); });
  REQUIRE(answer.ok());
  CHECK(shown == std::vector<std::string>{"Hel", "lo", " there"});
  CHECK(answer->text == "Hello there");
  CHECK(answer->num_tokens == 3);
  CHECK_FALSE(answer->interrupted);
}

TEST_CASE("the API key travels as a bearer token, and none as nothing", "[clients]") {
  FakeDaemon daemon;
  daemon.on_generate = [](const v1::GenerateRequest&) { return testing::AnswerScript({"hi"}); };
  auto stub = v1::Inference::NewStub(daemon.channel());
  REQUIRE(AnswerStream(stub.get(), "fgk_me").Run({}, [](std::string_view) {}).ok());
  const auto metadata = daemon.last_metadata();
  const auto found = metadata.find("authorization");
  REQUIRE(found != metadata.end());
  CHECK(found->second == "Bearer fgk_me");
  REQUIRE(AnswerStream(stub.get()).Run({}, [](std::string_view) {}).ok());
  CHECK(daemon.last_metadata().count("authorization") == 0);
}

TEST_CASE("a refusal is the daemon's code and words", "[clients]") {
  FakeDaemon daemon;
  daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full");
    return script;
  };
  auto stub = v1::Inference::NewStub(daemon.channel());
  AnswerStream stream(stub.get());
  const auto answer = stream.Run({}, [](std::string_view) {});
  CHECK(answer.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(answer.status().message() == "the queue is full");
}

TEST_CASE("an interrupted answer keeps what arrived, and the next one is whole", "[clients]") {
  FakeDaemon daemon;
  int num_calls = 0;
  daemon.on_generate = [&](const v1::GenerateRequest&) {
    if (num_calls++ > 0) return testing::AnswerScript({"all"});
    GenerateScript script;
    script.events = {testing::AcceptedEvent(5), testing::DeltaEvent("some")};
    script.hold_open = true;
    return script;
  };
  auto stub = v1::Inference::NewStub(daemon.channel());
  AnswerStream stream(stub.get());
  stream.Interrupt();  // nothing is under way: nothing happens
  std::thread interrupter;
  const auto answer = stream.Run({}, [&](std::string_view) {
    interrupter = std::thread([&] { stream.Interrupt(); });
  });
  interrupter.join();
  REQUIRE(answer.ok());
  CHECK(answer->interrupted);
  CHECK(answer->text == "some");
  CHECK(daemon.WaitForCancelled(1, absl::Seconds(10)));
  const auto next = stream.Run({}, [](std::string_view) {});
  REQUIRE(next.ok());
  CHECK_FALSE(next->interrupted);
  CHECK(next->text == "all");
}

}  // namespace
}  // namespace fastgen
