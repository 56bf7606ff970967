// StepInputs: the arrays of a mixed step, written out.
#include "engine/model/step_inputs.h"

#include "tests/testing/aborts.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <catch2/catch.hpp>
#include <vector>

namespace fastgen {
namespace {

using ::fastgen::testing::Aborts;

MemoryPlan Limits() {
  MemoryPlan plan;
  plan.num_blocks = 10;
  plan.block_size = 4;
  plan.max_model_len = 16;
  plan.max_num_seqs = 3;
  plan.max_num_batched_tokens = 12;
  return plan;
}

template <typename T>
std::vector<T> Vector(absl::Span<const T> span) {
  return {span.begin(), span.end()};
}

// A decode row at position 5, then a prompt chunk [2, 6) whose first three targets are scored.
StepPlan MixedPlan() {
  StepPlan plan;
  plan.step = 1;
  ScheduledSequence decode;
  decode.id = 1;
  decode.tokens = {70};
  decode.context_begin = 5;
  decode.block_table = {9, 3};
  decode.samples = true;
  decode.output_position = 2;
  decode.banned_tokens = {0, 1};
  decode.sampling.temperature = 0.5f;
  decode.sampling.top_k = 7;
  decode.sampling.top_p = 0.9f;
  decode.sampling.min_p = 0.1f;
  decode.sampling.seed = 42;
  decode.sampling.choice_index = 6;
  decode.sampling.num_top_logprobs = 5;
  ScheduledSequence chunk;
  chunk.id = 2;
  chunk.tokens = {10, 11, 12, 13};
  chunk.context_begin = 2;
  chunk.block_table = {0, 7};
  chunk.samples = true;
  chunk.score_targets = {11, 12, 13};
  chunk.sampling.num_prompt_top_logprobs = 2;
  plan.sequences = {decode, chunk};
  plan.num_tokens = 5;
  return plan;
}

TEST_CASE("a mixed step becomes flat arrays in the plan's order", "[model][inputs]") {
  StepInputs inputs(Limits(), 80);
  SamplingState sampling(Limits(), 80);
  const StepPlan plan = MixedPlan();
  for (int repeat = 0; repeat < 2; ++repeat) {  // Building again leaves nothing behind.
    inputs.Build(plan, {}, &sampling);
    CHECK(Vector(inputs.ids()) == std::vector<int32_t>{70, 10, 11, 12, 13});
    CHECK(Vector(inputs.positions()) == std::vector<int32_t>{5, 2, 3, 4, 5});
    CHECK(Vector(inputs.slots()) == std::vector<int64_t>{13, 2, 3, 28, 29});
    CHECK(Vector(inputs.attention().query_start) == std::vector<int32_t>{0, 1, 5});
    CHECK(Vector(inputs.attention().context_len) == std::vector<int32_t>{6, 6});
    CHECK(inputs.attention().max_blocks == 2);
    CHECK(Vector(inputs.attention().block_tables) == std::vector<int32_t>{9, 3, 0, 7});
    CHECK(Vector(inputs.logit_rows()) == std::vector<int32_t>{0, 1, 2, 3, 4});
    CHECK(inputs.logit_owners()[0].score_index == StepInputs::kSampled);
    CHECK(inputs.logit_owners()[3].sequence == 1);
    CHECK(inputs.logit_owners()[3].score_index == 2);
    CHECK(inputs.logit_owners()[4].score_index == StepInputs::kSampled);
  }
}

TEST_CASE("a sampled row carries the sequence's parameters, a scored one its target",
          "[model][inputs]") {
  StepInputs inputs(Limits(), 80);
  SamplingState sampling(Limits(), 80);
  const StepPlan plan = MixedPlan();
  inputs.Build(plan, {}, &sampling);
  const SampleRow& sampled = inputs.sample_rows()[0];
  CHECK(sampled.target_token == -1);
  CHECK(sampled.temperature == 0.5f);
  CHECK(sampled.top_k == 7);
  CHECK(sampled.top_p == 0.9f);
  CHECK(sampled.min_p == 0.1f);
  CHECK(sampled.seed == 42);
  CHECK(sampled.choice_index == 6);
  CHECK(sampled.output_position == 2);
  CHECK(Vector(sampled.banned_tokens) == std::vector<int32_t>{0, 1});
  CHECK(sampled.num_top_logprobs == 5);
  const SampleRow& scored = inputs.sample_rows()[2];
  CHECK(scored.target_token == 12);
  CHECK(scored.num_top_logprobs == 2);
  CHECK(inputs.sample_rows()[4].num_top_logprobs == -1);
}

TEST_CASE("block tables of unequal length are padded to the longest of the step",
          "[model][inputs]") {
  StepPlan plan = MixedPlan();
  plan.sequences[0].context_begin = 12;
  plan.sequences[0].block_table = {1, 2, 3, 4};
  StepInputs inputs(Limits(), 80);
  SamplingState sampling(Limits(), 80);
  inputs.Build(plan, {}, &sampling);
  CHECK(inputs.attention().max_blocks == 4);
  CHECK(Vector(inputs.attention().block_tables).size() == 8);
  CHECK(inputs.attention().block_tables[4] == 0);
  CHECK(inputs.attention().block_tables[5] == 7);
  CHECK(inputs.slots()[0] == 16);
}

// A decode row of sequence 1 whose token is what row 1 of the step before sampled.
StepPlan PendingPlan() {
  StepPlan plan;
  ScheduledSequence decode;
  decode.id = 1;
  decode.tokens = {kPendingToken};
  decode.token_row = 1;
  decode.context_begin = 5;
  decode.block_table = {9, 3};
  decode.samples = true;
  plan.sequences = {decode};
  plan.num_tokens = 1;
  return plan;
}

TEST_CASE("a pending token is what the row that it names has sampled", "[model][inputs]") {
  StepInputs inputs(Limits(), 80);
  SamplingState sampling(Limits(), 80);
  const std::vector<SampledRow> previous = {{2, 33}, {1, 44}, {3, -1}};
  const StepPlan plan = PendingPlan();
  inputs.Build(plan, previous, &sampling);
  CHECK(Vector(inputs.ids()) == std::vector<int32_t>{44});
}

TEST_CASE("a pending token that no row has is CHECKed", "[model][inputs]") {
  const auto aborts = [](const StepPlan& plan, const std::vector<SampledRow>& previous) {
    StepInputs inputs(Limits(), 80);
    SamplingState sampling(Limits(), 80);
    return Aborts([&] { inputs.Build(plan, previous, &sampling); });
  };
  StepPlan plan = PendingPlan();
  CHECK_FALSE(aborts(plan, {{2, 33}, {1, 44}}));
  CHECK(aborts(plan, {{2, 33}}));           // there is no such row
  CHECK(aborts(plan, {{1, 33}, {2, 44}}));  // it is another sequence's
  CHECK(aborts(plan, {{2, 33}, {1, -1}}));  // it did not sample
  plan.sequences[0].token_row = -1;
  CHECK(aborts(plan, {{2, 33}, {1, 44}}));
  plan = PendingPlan();
  plan.sequences[0].tokens = {5, kPendingToken};  // only a decode row may
  plan.num_tokens = 2;
  CHECK(aborts(plan, {{2, 33}, {1, 44}}));
}

TEST_CASE("arrays do not move after construction", "[model][inputs]") {
  StepInputs inputs(Limits(), 80);
  SamplingState sampling(Limits(), 80);
  StepPlan plan = MixedPlan();
  inputs.Build(plan, {}, &sampling);
  const int32_t* ids = inputs.ids().data();
  const int32_t* tables = inputs.attention().block_tables.data();
  const SampleRow* rows = inputs.sample_rows().data();
  plan.sequences[0].context_begin = 12;
  plan.sequences[0].block_table = {1, 2, 3, 4};
  ScheduledSequence full;
  full.id = 3;
  full.tokens.assign(7, 5);
  full.block_table = {5, 6};
  full.score_targets.assign(7, 6);
  full.samples = true;
  plan.sequences.push_back(full);
  plan.num_tokens = 12;
  inputs.Build(plan, {}, &sampling);
  CHECK(inputs.ids().data() == ids);
  CHECK(inputs.attention().block_tables.data() == tables);
  CHECK(inputs.sample_rows().data() == rows);
  CHECK(inputs.logit_rows().size() == 13);
}

}  // namespace
}  // namespace fastgen
