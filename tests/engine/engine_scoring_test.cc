// Logprobs, prompt scores and echo: their shapes and where they stand in the stream.
#include "engine/engine.h"
#include "tests/testing/engine_under_test.h"

namespace fastgen {
namespace {

using testing::Bytes;
using testing::EngineUnderTest;
using testing::EngineUnderTestOptions;
using testing::FakeLogprob;
using testing::MakeEngineUnderTest;
using testing::MakeRequest;
using testing::RecordingSink;
using testing::Says;

TEST_CASE("logprobs are parallel to ids and carry bytes and candidates", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("xy")));
  const int32_t num_top = GENERATE(0, 3);
  GenerateRequest request = MakeRequest("a", Bytes("pq"));
  request.output.logprobs = num_top;
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  for (const TokenDelta& delta : record.deltas) {
    CHECK(delta.logprobs.size() == delta.token_ids.size());
  }
  const std::vector<TokenLogprob> logprobs = record.logprobs();
  REQUIRE(logprobs.size() == 3);
  CHECK(logprobs[0].token == 'x');
  CHECK(logprobs[0].bytes == "x");
  CHECK(logprobs[0].rank == 1);
  CHECK(logprobs[0].logprob == FakeLogprob('x', 2));
  CHECK(logprobs[2].bytes == "<eos>");
  REQUIRE(logprobs[1].top.size() == static_cast<size_t>(num_top));
  if (num_top == 0) return;
  CHECK(logprobs[1].top[0].token == 'y');
  CHECK(logprobs[1].top[1].bytes == "z");
}

TEST_CASE("prompt scores come in one delta before any output, over several chunks", "[engine]") {
  // 100 tokens at 64 a step.
  std::vector<int32_t> prompt;
  for (int i = 0; i < 100; ++i) prompt.push_back('A' + i % 50);
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("xy")));
  GenerateRequest request = MakeRequest("a", prompt);
  request.output.prompt_logprobs = 1;
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  REQUIRE_FALSE(record.deltas.empty());
  const std::vector<TokenLogprob>& scores = record.deltas[0].prompt_logprobs;
  REQUIRE(scores.size() == prompt.size());
  CHECK(scores[0].token == prompt[0]);
  CHECK(scores[0].rank == 0);
  CHECK(scores[0].top.empty());
  for (size_t i = 1; i < prompt.size(); ++i) {
    CHECK(scores[i].token == prompt[i]);
    CHECK(scores[i].logprob == FakeLogprob(prompt[i], i));
    CHECK(scores[i].top.size() == 1);
  }
  for (size_t i = 1; i < record.deltas.size(); ++i) {
    CHECK(record.deltas[i].prompt_logprobs.empty());
  }
  CHECK(record.text() == "xy");
  CHECK(record.logprobs().empty());
  CHECK(record.finished->receipt.num_chunks == 2);
}

TEST_CASE("prompt scores survive preemption without a gap or a repeat", "[engine]") {
  EngineUnderTestOptions options;
  options.num_blocks = 10;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(std::vector<int32_t>(80, 'z')));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 3; ++i) {
    GenerateRequest request = MakeRequest(std::to_string(i), std::vector<int32_t>(40, 'a' + i), 60);
    request.output.prompt_logprobs = 0;
    sinks.push_back(std::make_shared<RecordingSink>());
    REQUIRE(fake->Submit(request, sinks.back()).ok());
  }
  for (const auto& sink : sinks) {
    const RecordingSink::Record record = sink->WaitForEnd();
    size_t num_scores = 0;
    for (const TokenDelta& delta : record.deltas) num_scores += delta.prompt_logprobs.size();
    CHECK(num_scores == 40);
    CHECK(record.deltas[0].prompt_logprobs.size() == 40);
    CHECK(record.ids().size() == 60);
  }
  CHECK(fake->stats().num_preemptions > 0);
}

TEST_CASE("echo opens the output with the prompt", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("xy")));
  GenerateRequest request = MakeRequest("a", Bytes("pq"));
  request.output.echo = true;
  request.output.token_ids = true;
  const bool with_logprobs = GENERATE(false, true);
  if (with_logprobs) request.output.logprobs = 2;
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.text() == "pqxy");
  std::vector<int32_t> ids = Bytes("pqxy");
  ids.push_back(testing::FakeTokenizer::kEos);
  CHECK(record.ids() == ids);
  CHECK(record.deltas[0].num_prompt_tokens == 2);
  CHECK(record.deltas[0].prompt_logprobs.size() == (with_logprobs ? 2 : 0));
  CHECK(record.logprobs().size() == (with_logprobs ? 3 : 0));
  for (size_t i = 1; i < record.deltas.size(); ++i) CHECK(record.deltas[i].num_prompt_tokens == 0);
  CHECK(record.finished->usage.prompt_tokens == 2);
  CHECK(record.finished->usage.output_tokens == 3);
}

TEST_CASE("max_tokens 0 scores the prompt and produces nothing", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("xy")));
  GenerateRequest request = MakeRequest("a", Bytes("pqr"), 0);
  auto sink = std::make_shared<RecordingSink>();
  CHECK(std::string(fake->Submit(request, sink).message())
            .rfind("stopping.max_tokens: 0 asks for no output", 0) == 0);
  const bool echo = GENERATE(false, true);
  request.output.echo = echo;
  request.output.prompt_logprobs = 1;
  const int32_t num_tokens = GENERATE(1, 3, 256);
  request.prompt = TokenPrompt{std::vector<int32_t>(num_tokens, 'p')};
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  REQUIRE(record.deltas.size() == 1);
  CHECK(record.deltas[0].prompt_logprobs.size() == static_cast<size_t>(num_tokens));
  CHECK(record.text() == (echo ? std::string(num_tokens, 'p') : ""));
  CHECK(record.finished->reason == FinishReason::kLength);
  CHECK(record.finished->usage.output_tokens == 0);
}

}  // namespace
}  // namespace fastgen
