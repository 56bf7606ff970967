// Rows that are planned before their token is known: their results are those of rows that know it,
// whatever chooses the tokens.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/engine/model/batch_under_test.h"
#include "tests/testing/aborts.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

using ::fastgen::testing::AreSame;
using ::fastgen::testing::BatchOptions;
using ::fastgen::testing::BatchUnderTest;
using ::fastgen::testing::DrivenSequence;
using ::fastgen::testing::ExecutorUnderTest;
using ::fastgen::testing::IdsOf;
using ::fastgen::testing::RandomIds;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TestModelOptions;
using ::fastgen::testing::TinyModel;

constexpr int32_t kVocab = 80;
constexpr size_t kNumTokens = 40;

SequenceSampling Drawn(uint64_t seed) {
  SequenceSampling sampling;
  sampling.temperature = 1.5f;
  sampling.top_p = 0.95f;
  sampling.seed = seed;
  sampling.num_top_logprobs = 3;
  return sampling;
}

SequenceSampling WithPenalties(uint64_t seed) {
  SequenceSampling sampling = Drawn(seed);
  sampling.presence_penalty = 0.8f;
  sampling.frequency_penalty = 0.6f;
  sampling.repetition_penalty = 1.3f;
  return sampling;
}

SequenceSampling WithRules(const TokenRules& rules) {
  SequenceSampling sampling;
  sampling.num_top_logprobs = 1;
  sampling.rules = std::make_shared<const TokenRules>(rules);
  return sampling;
}

// Every way of choosing a token, each with a prompt of its own length.
std::vector<SequenceSampling> AllKinds() {
  std::vector<SequenceSampling> kinds(1);
  kinds[0].num_top_logprobs = 5;  // greedy
  kinds.push_back(Drawn(7));
  kinds.push_back(WithPenalties(8));
  SequenceSampling greedy = WithPenalties(0);
  greedy.temperature = 0;
  kinds.push_back(greedy);
  TokenRules bias;
  bias.logit_bias = {{3, 4.0f}, {17, -100.0f}};
  kinds.push_back(WithRules(bias));
  TokenRules allowed;
  for (int32_t token = 0; token < kVocab; token += 3) allowed.allowed_token_ids.push_back(token);
  kinds.push_back(WithRules(allowed));
  return kinds;
}

std::vector<int32_t> PromptOf(size_t index) {
  return RandomIds(static_cast<int>(5 + 9 * index), static_cast<uint32_t>(20 + index), kVocab);
}

struct OnDisk {
  OnDisk() {
    TinyModel tiny;
    tiny.matrix_dtype = DType::kBF16;
    tiny.WriteDirectory(directory.path());
  }
  ExecutorUnderTest Executor() const {
    TestModelOptions options;
    options.compute_dtype = ComputeDType::kAuto;
    options.max_num_seqs = 16;
    return ExecutorUnderTest(directory.path(), options);
  }
  TemporaryDirectory directory;
};

using Script = std::function<void(BatchUnderTest*, const std::vector<DrivenSequence*>&)>;

// The outputs of a sequence of every kind that join one a step, with `script` after 12 steps.
std::vector<std::vector<TokenScore>> RunAll(const OnDisk& model, const BatchOptions& options,
                                            const Script& script = nullptr) {
  ExecutorUnderTest tested = model.Executor();
  BatchUnderTest batch(&tested, options);
  std::vector<DrivenSequence*> sequences;
  const std::vector<SequenceSampling> kinds = AllKinds();
  for (size_t i = 0; i < kinds.size(); ++i) {
    sequences.push_back(batch.Add(PromptOf(i), kinds[i]));
    batch.Step();
  }
  for (int i = 0; i < 6; ++i) batch.Step();
  if (script) script(&batch, sequences);
  batch.Generate(kNumTokens);
  std::vector<std::vector<TokenScore>> outputs;
  for (const DrivenSequence* sequence : sequences) {
    outputs.push_back(sequence->output);
    outputs.back().resize(kNumTokens);
  }
  return outputs;
}

void CheckSame(const std::vector<std::vector<TokenScore>>& got,
               const std::vector<std::vector<TokenScore>>& expected) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    INFO("kind " << i);
    CHECK(AreSame(got[i], expected[i]));
  }
}

TEST_CASE("a pending token gives what the known token gives, to the bit", "[model][run_ahead]") {
  const OnDisk model;
  const auto expected = RunAll(model, {});
  CheckSame(RunAll(model, {.runs_ahead = true}), expected);
  CheckSame(RunAll(model, {.runs_ahead = true, .rotates_rows = true}), expected);
  CheckSame(RunAll(model, {.chunk_size = 7, .runs_ahead = true, .rotates_rows = true}), expected);
}

TEST_CASE("outputs are those of each sequence alone", "[model][run_ahead]") {
  const OnDisk model;
  const auto together = RunAll(model, {.runs_ahead = true, .rotates_rows = true});
  const std::vector<SequenceSampling> kinds = AllKinds();
  for (size_t i = 0; i < kinds.size(); ++i) {
    ExecutorUnderTest tested = model.Executor();
    BatchUnderTest batch(&tested, {.runs_ahead = true});
    const DrivenSequence* alone = batch.Add(PromptOf(i), kinds[i]);
    batch.Generate(kNumTokens);
    INFO("kind " << i);
    CHECK(AreSame(alone->output, together[i]));
  }
}

TEST_CASE("preempted sequences go on as if they had not been", "[model][run_ahead]") {
  const OnDisk model;
  const auto expected = RunAll(model, {});
  const bool runs_ahead = GENERATE(false, true);
  const auto preempt = [](BatchUnderTest* batch, const std::vector<DrivenSequence*>& sequences) {
    // Each in another sequence's slot, its own rules and history with it.
    for (DrivenSequence* sequence : sequences) batch->PreemptByRecompute(sequence);
  };
  CheckSame(RunAll(model, {.runs_ahead = runs_ahead}, preempt), expected);
  CheckSame(RunAll(model, {.chunk_size = 16, .runs_ahead = runs_ahead}, preempt), expected);
}

TEST_CASE("a history that begins with a pending token is whole", "[model][run_ahead]") {
  const OnDisk model;
  const auto expected = RunAll(model, {});
  const auto forget = [](BatchUnderTest*, const std::vector<DrivenSequence*>& sequences) {
    for (DrivenSequence* sequence : sequences) sequence->has_history = false;
  };
  CheckSame(RunAll(model, {.runs_ahead = true}, forget), expected);
}

TEST_CASE("penalties keep greedy output from repeating itself", "[model][run_ahead]") {
  const OnDisk model;
  ExecutorUnderTest tested = model.Executor();
  BatchUnderTest batch(&tested, {.runs_ahead = true});
  SequenceSampling strong;
  strong.presence_penalty = 100;  // beyond what requests may ask: no output token comes again
  const DrivenSequence* unique = batch.Add(PromptOf(0), strong);
  const DrivenSequence* plain = batch.Add(PromptOf(0), SequenceSampling());
  batch.Generate(kNumTokens);
  const auto num_distinct = [](const DrivenSequence* sequence) {
    std::vector<int32_t> ids = IdsOf(sequence->output);
    ids.resize(kNumTokens);
    std::sort(ids.begin(), ids.end());
    return static_cast<size_t>(std::unique(ids.begin(), ids.end()) - ids.begin());
  };
  CHECK(num_distinct(unique) == kNumTokens);
  CHECK(num_distinct(plain) < kNumTokens);
}

TEST_CASE("no bad word appears in an output, and its parts may", "[model][run_ahead]") {
  const OnDisk model;
  const bool runs_ahead = GENERATE(false, true);
  // What greedy writes when it is free, in words of one to three tokens.
  const std::vector<int32_t> free_ids = [&] {
    ExecutorUnderTest tested = model.Executor();
    BatchUnderTest batch(&tested, {});
    const DrivenSequence* sequence = batch.Add(PromptOf(0), SequenceSampling());
    batch.Generate(kNumTokens);
    return IdsOf(sequence->output);
  }();
  const std::vector<std::vector<int32_t>> words = {
      {free_ids[0]}, {free_ids[3], free_ids[4]}, {free_ids[7], free_ids[8], free_ids[9]}};
  for (const std::vector<int32_t>& word : words) {
    TokenRules rules;
    rules.bad_words = {word};
    ExecutorUnderTest tested = model.Executor();
    BatchUnderTest batch(&tested, {.runs_ahead = runs_ahead});
    const DrivenSequence* sequence = batch.Add(PromptOf(0), WithRules(rules));
    batch.Generate(kNumTokens);
    const std::vector<int32_t> ids = IdsOf(sequence->output);
    const auto found = std::search(ids.begin(), ids.end(), word.begin(), word.end());
    CHECK(found == ids.end());
    const auto free_found = std::search(free_ids.begin(), free_ids.end(), word.begin(), word.end());
    const size_t end = static_cast<size_t>(free_found - free_ids.begin()) + word.size() - 1;
    // Up to there it is free; there it chooses otherwise.
    CHECK(std::equal(ids.begin(), ids.begin() + static_cast<int64_t>(end), free_ids.begin()));
    CHECK(ids[end] != free_ids[end]);
  }
}

TEST_CASE("choices of one seed draw apart", "[model][run_ahead]") {
  const OnDisk model;
  ExecutorUnderTest tested = model.Executor();
  BatchUnderTest batch(&tested, {.runs_ahead = true});
  SequenceSampling second = Drawn(7);
  second.choice_index = 1;
  const DrivenSequence* a = batch.Add(PromptOf(0), Drawn(7));
  const DrivenSequence* b = batch.Add(PromptOf(0), second);
  const DrivenSequence* again = batch.Add(PromptOf(0), Drawn(7));
  batch.Generate(kNumTokens);
  CHECK(IdsOf(a->output) != IdsOf(b->output));
  CHECK(AreSame(a->output, again->output));
}

TEST_CASE("a step out of order is CHECKed", "[model][run_ahead]") {
  const OnDisk model;
  TestModelOptions options;
  options.num_threads = 1;
  ExecutorUnderTest tested(model.directory.path(), options);
  tested.Run(StepPlan());
  const auto aborts_at = [&](uint64_t step) {
    return testing::Aborts([&] {
      StepPlan plan;
      plan.step = step;
      StepResult result;
      static_cast<void>(tested.executor->Run(plan, &result));
    });
  };
  CHECK(aborts_at(1));
  CHECK_FALSE(aborts_at(2));
  CHECK(aborts_at(3));
}

}  // namespace
}  // namespace fastgen
