// Several choices of one request: n, best_of, who scores, who echoes, and that they end together
// when they must.
#include <numeric>

#include "engine/choice_id.h"
#include "engine/engine.h"
#include "tests/testing/engine_under_test.h"

namespace fastgen {
namespace {

using testing::Bytes;
using testing::EngineUnderTest;
using testing::EngineUnderTestOptions;
using testing::FakeExecutor;
using testing::FakeLogprob;
using testing::FakeTokenizer;
using testing::MakeEngineUnderTest;
using testing::MakeRequest;
using testing::RecordingSink;

GenerateRequest Sampled(std::string request_id, int32_t n, int32_t best_of, int32_t max_tokens) {
  GenerateRequest request =
      MakeRequest(std::move(request_id), Bytes("a prompt of its own"), max_tokens);
  request.n = n;
  request.best_of = best_of;
  request.sampling.temperature = 1;
  request.sampling.seed = 5;
  request.stopping.ignore_eos = true;
  return request;
}

RecordingSink::Record Run(Engine* engine, GenerateRequest request) {
  auto sink = std::make_shared<RecordingSink>(request.n);
  const absl::Status status = engine->Submit(std::move(request), sink);
  INFO(status.ToString());
  REQUIRE(status.ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.num_calls_out_of_order == 0);
  return record;
}

// Each choice says its own word and <eos>.
FakeExecutor::NextToken SaysByChoice(std::vector<std::string> words) {
  return [words = std::move(words)](const std::vector<int32_t>&,
                                    const ScheduledSequence& row) -> std::optional<int32_t> {
    const std::string& word = words[row.sampling.choice_index % words.size()];
    const size_t position = static_cast<size_t>(row.output_position);
    return position < word.size() ? static_cast<unsigned char>(word[position])
                                  : FakeTokenizer::kEos;
  };
}

TEST_CASE("a sequence's request and choice follow from its id", "[engine]") {
  const SequenceId leader = LeaderId(7);
  CHECK(LeaderOf(leader) == leader);
  CHECK(LeaderOf(leader + 127) == leader);
  CHECK(ChoiceOf(leader) == 0);
  CHECK(ChoiceOf(leader + 127) == 127);
  CHECK(LeaderId(8) == leader + 128);
}

TEST_CASE("n choices of one prompt: each its own stream and end, the prompt counted once",
          "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = GENERATE(2, 8);  // more choices than rows: they queue
  options.max_steps_in_flight = GENERATE(1, 2);
  EngineUnderTest fake = MakeEngineUnderTest(options);
  const RecordingSink::Record record = Run(fake.engine.get(), Sampled("a", 5, 5, 20));
  const RecordingSink::Record alone = Run(fake.engine.get(), Sampled("b", 1, 1, 20));
  CHECK(record.ids(0) == alone.ids());
  REQUIRE(record.finishes.size() == 5);
  for (int32_t i = 0; i < 5; ++i) {
    CHECK(record.ids(i).size() == 20);
    CHECK(record.finishes.at(i).index == i);
    CHECK(record.finishes.at(i).reason == FinishReason::kLength);
    CHECK(record.finishes.at(i).usage.prompt_tokens == 19);
    CHECK(record.finishes.at(i).usage.output_tokens == 20);
    CHECK(record.finishes.at(i).receipt.seed == 5);
    for (int32_t j = 0; j < i; ++j) CHECK(record.ids(i) != record.ids(j));
  }
  REQUIRE(fake->WaitIdle(absl::Seconds(10)));
  CHECK(fake.AllBlocksFree());
  CHECK(fake->stats().prompt_tokens == 2 * 19);
  CHECK(fake->stats().output_tokens == 6 * 20);
  CHECK(fake->stats().finished_requests == 2);
}

TEST_CASE("greedy choices are the same", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  GenerateRequest request = Sampled("a", 3, 3, 10);
  request.sampling.temperature = 0;
  const RecordingSink::Record record = Run(fake.engine.get(), request);
  CHECK(record.ids(1) == record.ids(0));
  CHECK(record.ids(2) == record.ids(0));
}

TEST_CASE("a choice that ends leaves the others running", "[engine]") {
  EngineUnderTest fake =
      MakeEngineUnderTest({}, SaysByChoice({"one STOP more", "two and on", "3"}));
  GenerateRequest request = Sampled("a", 3, 3, 30);
  request.stopping.ignore_eos = false;
  request.stopping.stop = {"STOP"};
  const RecordingSink::Record record = Run(fake.engine.get(), request);
  CHECK(record.text(0) == "one ");
  CHECK(record.finishes.at(0).matched_stop == "STOP");
  CHECK(record.text(1) == "two and on");
  CHECK(record.finishes.at(1).matched_token_id == FakeTokenizer::kEos);
  CHECK(record.text(2) == "3");
  CHECK(record.finishes.at(2).usage.output_tokens == 2);
}

TEST_CASE("the best of all choices by mean logprob are delivered, best first", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  GenerateRequest all = Sampled("all", 6, 6, 12);
  all.output.logprobs = 0;
  const RecordingSink::Record every = Run(fake.engine.get(), all);
  std::vector<int32_t> order(6);
  std::iota(order.begin(), order.end(), 0);
  const auto mean = [&](int32_t i) {
    double sum = 0;
    for (const TokenLogprob& logprob : every.logprobs(i)) sum += logprob.logprob;
    return sum / static_cast<double>(every.logprobs(i).size());
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return mean(a) > mean(b); });
  REQUIRE(order[0] != 0);  // else the test shows little

  const RecordingSink::Record best = Run(fake.engine.get(), Sampled("best", 2, 6, 12));
  CHECK(best.ids(0) == every.ids(order[0]));
  CHECK(best.ids(1) == every.ids(order[1]));
  CHECK(best.finishes.at(0).index == 0);
  CHECK(best.finishes.at(1).index == 1);
  CHECK(best.logprobs(0).empty());  // nobody asked for them
  CHECK(best.deltas.size() == 2);
  CHECK(fake->stats().output_tokens == 2 * 6 * 12);
}

TEST_CASE("of equal choices the lower ones are delivered", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, SaysByChoice({"b", "a", "a", "a"}));
  GenerateRequest request = Sampled("a", 2, 4, 1);
  request.stopping.max_tokens = 1;
  // "a" is likelier than "b" by the fake's logprobs; 1 and 2 come before 3, under 0 and 1.
  const RecordingSink::Record record = Run(fake.engine.get(), request);
  CHECK(record.text(0) == "a");
  CHECK(record.text(1) == "a");
}

TEST_CASE("nothing of best_of is delivered before the last choice has ended", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, SaysByChoice({"x", "a much longer answer"}));
  fake.executor->CloseGate();
  GenerateRequest request = Sampled("a", 1, 2, 30);
  request.stopping.ignore_eos = false;
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  fake.executor->LetThrough(8);
  fake.executor->WaitForStep(9);
  sink->WaitForAccepted();
  CHECK(sink->record().deltas.empty());
  CHECK(sink->record().finishes.empty());
  fake.executor->OpenGate();
  CHECK(sink->WaitForEnd().num_calls_out_of_order == 0);
}

TEST_CASE("the echo opens every choice, and the leader alone scores it", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, SaysByChoice({"xy", "uv"}));
  GenerateRequest request = Sampled("a", 2, GENERATE(2, 3), 2);
  request.output.echo = true;
  request.output.token_ids = true;
  const bool scores = GENERATE(false, true);
  if (scores) request.output.logprobs = 1;
  const RecordingSink::Record record = Run(fake.engine.get(), request);
  const std::string prompt = "a prompt of its own";
  std::vector<std::string> texts = {record.text(0), record.text(1)};
  std::sort(texts.begin(), texts.end());
  CHECK(texts[1].rfind(prompt, 0) == 0);
  CHECK(texts[0].rfind(prompt, 0) == 0);
  CHECK(texts[0].size() == prompt.size() + 2);
  for (int32_t index = 0; index < 2; ++index) {
    int32_t num_prompt_tokens = 0;
    size_t num_scores = 0;
    for (const TokenDelta& delta : record.deltas) {
      if (delta.index != index) continue;
      num_prompt_tokens += delta.num_prompt_tokens;
      num_scores += delta.prompt_logprobs.size();
    }
    CHECK(num_prompt_tokens == 19);
    CHECK(num_scores == (scores && index == 0 ? 19 : 0));
    CHECK(record.logprobs(index).size() == (scores ? 2 : 0));
    CHECK(record.ids(index).size() == 21);
  }
}

TEST_CASE("long prompts are scored in deltas of at most 256, echo included", "[engine]") {
  EngineUnderTestOptions options;
  options.max_model_len = 1024;
  EngineUnderTest fake = MakeEngineUnderTest(options, SaysByChoice({"xy"}));
  const bool echo = GENERATE(false, true);
  std::vector<int32_t> prompt;
  for (int i = 0; i < 600; ++i) prompt.push_back("\xE2\x82\xAC"[i % 3] & 0xFF);
  GenerateRequest request = MakeRequest("a", prompt, 2);
  request.output.echo = echo;
  request.output.prompt_logprobs = 0;
  request.output.progress = true;
  const RecordingSink::Record record = Run(fake.engine.get(), request);
  std::vector<TokenLogprob> scores;
  size_t num_echoed = 0;
  for (const TokenDelta& delta : record.deltas) {
    CHECK(delta.prompt_logprobs.size() <= 256);
    if (echo) CHECK(delta.prompt_logprobs.size() == static_cast<size_t>(delta.num_prompt_tokens));
    num_echoed += static_cast<size_t>(delta.num_prompt_tokens);
    scores.insert(scores.end(), delta.prompt_logprobs.begin(), delta.prompt_logprobs.end());
  }
  REQUIRE(scores.size() == 600);
  CHECK(scores[0].rank == 0);
  for (size_t i = 0; i < 600; ++i) CHECK(scores[i].token == prompt[i]);
  CHECK(scores[599].logprob == FakeLogprob(prompt[599], 599));
  CHECK(num_echoed == (echo ? 600 : 0));
  CHECK(record.text() == *fake->Detokenize(echo ? prompt : std::vector<int32_t>(), true) + "xy");
  // 600 tokens at 64 a step.
  REQUIRE(record.progress.size() == 10);
  for (size_t i = 0; i < 10; ++i) {
    CHECK(record.progress[i] == std::make_pair(std::min<int32_t>(64 * (i + 1), 600), 600));
  }
}

TEST_CASE("progress is reported only when asked for", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, SaysByChoice({"xy"}));
  CHECK(Run(fake.engine.get(), MakeRequest("a", Bytes("abc"))).progress.empty());
}

TEST_CASE("cancel ends all choices", "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 3;
  EngineUnderTest fake = MakeEngineUnderTest(options);
  fake.executor->CloseGate();
  const bool holds = GENERATE(false, true);
  const int num_steps = GENERATE(0, 1, 4);
  const int32_t n = holds ? 4 : 6;
  auto sink = std::make_shared<RecordingSink>(n);
  REQUIRE(fake->Submit(Sampled("a", n, 6, 50), sink).ok());
  fake.executor->LetThrough(num_steps);
  fake.executor->WaitForStep(static_cast<uint64_t>(num_steps) + 1);
  CHECK(fake->stats().num_running + fake->stats().num_waiting == 6);
  REQUIRE(fake->Cancel("a"));
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.num_calls_out_of_order == 0);
  for (const auto& [index, finish] : record.finishes) {
    CHECK(finish.reason == FinishReason::kCancelled);
    CHECK(static_cast<size_t>(finish.usage.output_tokens) == record.ids(index).size());
  }
  CHECK(fake.AllBlocksFree());
  fake.executor->OpenGate();
  CHECK(fake->WaitIdle(absl::Seconds(10)));
}

TEST_CASE("a device error ends a request of several choices with one call", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  fake.executor->FailNextStep();
  auto sink = std::make_shared<RecordingSink>(4);
  REQUIRE(fake->Submit(Sampled("a", 4, 4, 50), sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.engine_error.has_value());
  CHECK(record.num_calls_out_of_order == 0);
  CHECK(fake->WaitIdle(absl::Seconds(10)));
  CHECK(fake.AllBlocksFree());
}

TEST_CASE("cached tokens are told at acceptance and in every choice's usage", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  const auto request = [](std::string id) {
    GenerateRequest r = MakeRequest(std::move(id), std::vector<int32_t>(100, 'q'), 3);
    r.stopping.ignore_eos = true;
    r.sampling.seed = 5;
    r.n = r.best_of = 2;
    return r;
  };
  const RecordingSink::Record cold = Run(fake.engine.get(), request("a"));
  CHECK(cold.accepted->cached_tokens == 0);
  CHECK(cold.finishes.at(0).usage.cached_tokens == 0);
  const RecordingSink::Record warm = Run(fake.engine.get(), request("b"));
  CHECK(warm.accepted->cached_tokens == 96);
  CHECK(warm.finishes.at(0).usage.cached_tokens == 96);
  CHECK(warm.finishes.at(1).usage.cached_tokens == 96);
  CHECK(warm.ids(0) == cold.ids(0));
  CHECK(warm.ids(1) == cold.ids(1));
  GenerateRequest salted = request("c");
  salted.cache_salt = "another";
  CHECK(Run(fake.engine.get(), salted).accepted->cached_tokens == 0);
  CHECK(fake->stats().prefix_device_hit_tokens >= 96);
}

}  // namespace
}  // namespace fastgen
