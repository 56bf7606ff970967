// ModelExecutor: plans in, tokens and scores out.
#include "engine/model/model_executor.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/engine/model/batch_under_test.h"
#include "tests/testing/reference_forward.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using ::fastgen::testing::ExecutorUnderTest;
using ::fastgen::testing::LogSoftmax;
using ::fastgen::testing::ModelUnderTest;
using ::fastgen::testing::ReferenceModel;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TinyModel;

ScheduledSequence Prompt(SequenceId id, std::vector<int32_t> tokens, int32_t first_block,
                         int32_t block_size = 16) {
  ScheduledSequence sequence;
  sequence.id = id;
  sequence.tokens = std::move(tokens);
  const int32_t length = static_cast<int32_t>(sequence.tokens.size());
  for (int32_t i = 0; i * block_size < length; ++i) {
    sequence.block_table.push_back(first_block + i);
  }
  sequence.samples = true;
  return sequence;
}

StepPlan PlanOf(std::vector<ScheduledSequence> sequences) {
  StepPlan plan;
  for (const ScheduledSequence& sequence : sequences) {
    plan.num_tokens += static_cast<int32_t>(sequence.tokens.size());
  }
  plan.sequences = std::move(sequences);
  return plan;
}

std::vector<int32_t> Ids(int length) {
  std::vector<int32_t> ids;
  for (int i = 0; i < length; ++i) ids.push_back((i * 37 + 11) % 79);
  return ids;
}

TEST_CASE("a step samples where the plan says and nowhere else", "[model][executor]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  ExecutorUnderTest tested(directory.path(), {});
  ModelUnderTest logits(directory.path(), {});
  ScheduledSequence sampled = Prompt(1, Ids(20), 0);
  sampled.sampling.num_top_logprobs = 3;
  ScheduledSequence silent = Prompt(2, Ids(9), 4);
  silent.samples = false;
  const auto result = tested.Run(PlanOf({silent, sampled}));
  REQUIRE(result.sequences.size() == 2);
  CHECK_FALSE(result.sequences[0].sampled);
  CHECK(result.sequences[0].next.token == -1);
  const SequenceResult& answer = result.sequences[1];
  REQUIRE(answer.sampled);
  const std::vector<float> rows = logits.Logits(Ids(20));
  const auto last = absl::MakeConstSpan(rows).subspan(19 * 80);
  CHECK(answer.next.token == testing::ArgMax(last));
  CHECK(answer.next.rank == 1);
  CHECK(answer.next.logprob == Approx(testing::Logprob(last, answer.next.token)).margin(1e-4));
  REQUIRE(answer.next.top.size() == 3);
  CHECK(answer.next.top[0].first == answer.next.token);
  CHECK(answer.next.top[0].second >= answer.next.top[1].second);
  CHECK_FALSE(answer.is_nan);
}

TEST_CASE("an empty plan is an empty result", "[model][executor]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  ExecutorUnderTest tested(directory.path(), {});
  const auto result = tested.Run(StepPlan());
  CHECK(result.sequences.empty());
}

TEST_CASE("a whole prompt is scored in pieces, as the oracle scores it", "[model][executor]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  ExecutorUnderTest tested(directory.path(), {});
  REQUIRE(tested.plan.max_logit_rows == 32);  // the prompt below takes several pieces
  const std::vector<int32_t> ids = Ids(150);
  const std::vector<double> reference =
      ReferenceModel::Load(**Checkpoint::Open(directory.path())).Logits(ids);
  ScheduledSequence sequence = Prompt(1, ids, 0);
  sequence.score_targets.assign(ids.begin() + 1, ids.end());
  sequence.sampling.num_prompt_top_logprobs = 2;
  const auto result = tested.Run(PlanOf({sequence}));
  const std::vector<TokenScore>& scored = result.sequences[0].scored;
  REQUIRE(scored.size() == 149);
  for (size_t i = 0; i < scored.size(); ++i) {
    const std::vector<double> row = LogSoftmax(absl::MakeConstSpan(reference).subspan(i * 80, 80));
    CHECK(scored[i].token == ids[i + 1]);
    CHECK(scored[i].logprob == Approx(row[static_cast<size_t>(ids[i + 1])]).margin(1e-3));
    int64_t rank = 1;
    for (double logprob : row) rank += logprob > row[static_cast<size_t>(ids[i + 1])] ? 1 : 0;
    CHECK(scored[i].rank == rank);
    REQUIRE(scored[i].top.size() == 2);
    CHECK(scored[i].top[0].second ==
          Approx(*std::max_element(row.begin(), row.end())).margin(1e-3));
  }
  CHECK(result.sequences[0].sampled);
}

TEST_CASE("a row's scores do not depend on which others are asked for", "[model][executor]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16, DType::kQ4_1);
  TinyModel tiny;
  tiny.matrix_dtype = dtype;
  const TemporaryDirectory directory;
  const std::string path = directory.path() / "tiny.gguf";
  tiny.WriteGguf(path);
  testing::TestModelOptions options;
  options.compute_dtype = dtype == DType::kF32 ? ComputeDType::kF32 : ComputeDType::kAuto;
  ExecutorUnderTest tested(path, options);
  const std::vector<int32_t> ids = Ids(41);
  const auto run = [&](int num_targets) {
    ScheduledSequence sequence = Prompt(1, Ids(40), 0);
    sequence.score_targets.assign(ids.begin() + 1, ids.begin() + 1 + num_targets);
    sequence.sampling.num_top_logprobs = 5;
    sequence.sampling.num_prompt_top_logprobs = 5;
    return tested.Run(PlanOf({sequence})).sequences[0];
  };
  // With 39 scored and one sampled, every row is computed to its end.
  const SequenceResult all = run(39);
  // With 40, one row is both.
  for (const int num_targets : {0, 1, 12, 38, 40}) {
    INFO(num_targets << " targets");
    const SequenceResult some = run(num_targets);
    CHECK(testing::AreSame({some.next}, {all.next}));
    const int num_both = std::min(num_targets, 39);
    CHECK(testing::AreSame({some.scored.begin(), some.scored.begin() + num_both},
                           {all.scored.begin(), all.scored.begin() + num_both}));
    if (num_targets == 40) CHECK(some.scored[39].top == some.next.top);
  }
}

TEST_CASE("decode with a cache chooses what a whole prefill chooses", "[model][executor]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  ExecutorUnderTest tested(directory.path(), {});
  ModelUnderTest logits(directory.path(), {});
  std::vector<int32_t> ids = Ids(30);
  const auto first = tested.Run(PlanOf({Prompt(1, ids, 0)}));
  ids.push_back(first.sequences[0].next.token);
  for (int step = 1; step < 20; ++step) {
    ScheduledSequence decode = Prompt(1, ids, 0);  // for its block table
    decode.tokens = {ids.back()};
    decode.context_begin = static_cast<int32_t>(ids.size()) - 1;
    decode.output_position = step;
    const auto result = tested.Run(PlanOf({decode}));
    const std::vector<float> rows = logits.Logits(ids);
    const int32_t expected =
        testing::ArgMax(absl::MakeConstSpan(rows).subspan((ids.size() - 1) * 80));
    CHECK(result.sequences[0].next.token == expected);
    ids.push_back(expected);
  }
}

TEST_CASE("banned tokens are not chosen", "[model][executor]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  ExecutorUnderTest tested(directory.path(), {});
  ScheduledSequence sequence = Prompt(1, Ids(20), 0);
  const int32_t best = tested.Run(PlanOf({sequence})).sequences[0].next.token;
  sequence.banned_tokens = {best};
  CHECK(tested.Run(PlanOf({sequence})).sequences[0].next.token != best);
}

TEST_CASE("a seeded draw depends on seed and output position only", "[model][executor]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  ExecutorUnderTest tested(directory.path(), {});
  const auto draw = [&](uint64_t seed, int32_t position, int num_others) {
    std::vector<ScheduledSequence> sequences;
    for (int i = 0; i < num_others; ++i) {
      sequences.push_back(Prompt(static_cast<SequenceId>(10 + i), Ids(5), 10 + i));
    }
    ScheduledSequence sequence = Prompt(1, Ids(20), 0);
    sequence.sampling.temperature = 3;
    sequence.sampling.seed = seed;
    sequence.output_position = position;
    sequences.push_back(sequence);
    return tested.Run(PlanOf(std::move(sequences))).sequences.back().next.token;
  };
  int num_changed_by_seed = 0;
  int num_changed_by_position = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const int32_t token = draw(seed, 3, 0);
    CHECK(draw(seed, 3, 4) == token);
    num_changed_by_seed += draw(seed + 100, 3, 0) != token ? 1 : 0;
    num_changed_by_position += draw(seed, 4, 0) != token ? 1 : 0;
  }
  CHECK(num_changed_by_seed > 5);
  CHECK(num_changed_by_position > 5);
}

TEST_CASE("a NaN marks its own sequence and no other", "[model][executor]") {
  TinyModel tiny;
  std::vector<testing::FileTensor> tensors = tiny.Tensors();
  const std::string nan = testing::LittleEndian(std::numeric_limits<float>::quiet_NaN());
  tensors[0].bytes.replace(79 * 64 * 4, 4, nan);  // in the embedding of token 79
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  testing::WriteFile(directory.path() / "model.safetensors", testing::SafetensorsBytes(tensors));
  for (const ComputeDType compute_dtype : {ComputeDType::kF32, ComputeDType::kAuto}) {
    testing::TestModelOptions options;
    options.compute_dtype = compute_dtype;
    ExecutorUnderTest tested(directory.path(), options);
    const auto alone = tested.Run(PlanOf({Prompt(1, Ids(20), 0)}));
    const auto result = tested.Run(
        PlanOf({Prompt(1, Ids(20), 0), Prompt(2, {5, 79, 6}, 4), Prompt(3, Ids(20), 8)}));
    CHECK_FALSE(result.sequences[0].is_nan);
    CHECK(result.sequences[1].is_nan);
    CHECK_FALSE(result.sequences[2].is_nan);
    CHECK(result.sequences[0].next.token == alone.sequences[0].next.token);
    CHECK(result.sequences[2].next.token == alone.sequences[0].next.token);
  }
}

}  // namespace
}  // namespace fastgen
