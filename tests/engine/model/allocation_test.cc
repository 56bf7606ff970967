// What the step path allocates: nothing, once a step of as many rows has been.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/model/allocation_counter.h"
#include "tests/engine/model/batch_under_test.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

using ::fastgen::testing::BatchUnderTest;
using ::fastgen::testing::DrivenSequence;
using ::fastgen::testing::ExecutorUnderTest;
using ::fastgen::testing::RandomIds;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TestModelOptions;
using ::fastgen::testing::TinyModel;

// Penalties, a bias, bad words and a seeded draw, all at once.
SequenceSampling Everything(uint64_t seed, int32_t num_top_logprobs) {
  TokenRules rules;
  rules.logit_bias = {{3, 1.0f}, {5, -1.0f}};
  rules.bad_words = {{7}, {1, 2}, {4, 5, 6}};
  SequenceSampling sampling;
  sampling.rules = std::make_shared<const TokenRules>(std::move(rules));
  sampling.temperature = 0.9f;
  sampling.top_p = 0.9f;
  sampling.min_p = 0.01f;
  sampling.seed = seed;
  sampling.presence_penalty = 0.5f;
  sampling.frequency_penalty = 0.5f;
  sampling.repetition_penalty = 1.2f;
  sampling.num_top_logprobs = num_top_logprobs;
  return sampling;
}

// The plans of steps to come: rows that feed what the row before them samples.
std::vector<StepPlan> PlansAhead(StepPlan first, const std::vector<DrivenSequence*>& sequences,
                                 int num_plans, int32_t block_size) {
  std::vector<StepPlan> plans = {std::move(first)};
  while (static_cast<int>(plans.size()) < num_plans) {
    StepPlan plan = plans.back();
    for (size_t i = 0; i < plan.sequences.size(); ++i) {
      ScheduledSequence& row = plan.sequences[i];
      row.context_begin += static_cast<int32_t>(row.tokens.size());
      row.tokens = {kPendingToken};
      row.token_row = static_cast<int32_t>(i);
      row.starts_history = false;
      row.history.clear();
      ++row.output_position;
      if (static_cast<int32_t>(row.block_table.size()) * block_size <= row.context_begin) {
        row.block_table.push_back(sequences[i]->blocks[row.block_table.size()]);
      }
    }
    plan.num_tokens = static_cast<int32_t>(plan.sequences.size());
    plans.push_back(std::move(plan));
  }
  return plans;
}

// Allocations of each of the plans, run one after another into one result.
std::vector<int64_t> AllocationsOf(ExecutorUnderTest* tested, std::vector<StepPlan> plans) {
  std::vector<int64_t> counts(plans.size());
  StepResult result;
  for (size_t i = 0; i < plans.size(); ++i) {
    plans[i].step = ++tested->last_step;
    const int64_t before = testing::NumAllocations();
    const bool is_ok = tested->executor->Run(plans[i], &result).ok();
    counts[i] = testing::NumAllocations() - before;
    REQUIRE(is_ok);
  }
  return counts;
}

TEST_CASE("a decode step allocates nothing", "[model][allocation]") {
  const int num_rows = GENERATE(1, 8, 64);
  const int32_t num_top_logprobs = GENERATE(-1, 0, 5);
  const ComputeDType compute_dtype = GENERATE(ComputeDType::kF32, ComputeDType::kAuto);
  CAPTURE(num_rows, num_top_logprobs);
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  TestModelOptions options;
  options.compute_dtype = compute_dtype;
  options.max_num_seqs = 64;
  options.max_num_batched_tokens = 64 * 12;
  ExecutorUnderTest tested(directory.path(), options);
  BatchUnderTest batch(&tested, {});
  std::vector<DrivenSequence*> sequences;
  for (int i = 0; i < num_rows; ++i) {
    const uint32_t seed = static_cast<uint32_t>(i);
    sequences.push_back(
        batch.Add(RandomIds(4 + i % 9, seed, 80), Everything(seed, num_top_logprobs), 48));
  }
  const std::vector<int64_t> counts =
      AllocationsOf(&tested, PlansAhead(batch.MakePlan(), sequences, 30, 16));
  CHECK(counts[0] > 0);  // rules are compiled, the result takes its storage
  for (size_t i = 1; i < counts.size(); ++i) {
    INFO("step " << i);
    CHECK(counts[i] == 0);
  }
}

TEST_CASE("rows that go and come back take no new storage", "[model][allocation]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  TestModelOptions options;
  options.max_num_seqs = 64;
  ExecutorUnderTest tested(directory.path(), options);
  BatchUnderTest batch(&tested, {});
  for (int i = 0; i < 64; ++i) {
    SequenceSampling sampling;
    sampling.num_top_logprobs = 5;
    batch.Add(RandomIds(3, static_cast<uint32_t>(i), 80), sampling, 16);
  }
  // The same rows over and over, less some: nothing here depends on what was computed before.
  const StepPlan all = batch.MakePlan();
  StepPlan few = all;
  few.sequences.resize(5);
  few.num_tokens = 15;
  const std::vector<int64_t> counts = AllocationsOf(&tested, {all, few, StepPlan(), all, few, all});
  for (size_t i = 1; i < counts.size(); ++i) {
    INFO("step " << i);
    CHECK(counts[i] == 0);
  }
}

TEST_CASE("a step that moves blocks and feeds a chunk allocates nothing", "[model][allocation]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  TestModelOptions options;
  options.host_kv_bytes = 1 << 20;
  ExecutorUnderTest tested(directory.path(), options);
  BatchUnderTest batch(&tested, {});
  batch.Add(RandomIds(50, 1, 80), SequenceSampling());
  const StepPlan first = batch.MakePlan();
  StepPlan moving = first;
  for (int32_t i = 0; i < 20; ++i) {
    moving.page_outs.push_back({100 + i, i});
    moving.swap_outs.push_back({40 + i, 20 + i});
    moving.poisoned_blocks.push_back(100 + i);
    moving.page_ins.push_back({i, 60 + i});
    moving.copies.push_back({60 + i, 80 + i});
  }
  const std::vector<int64_t> counts = AllocationsOf(&tested, {first, moving, moving});
  CHECK(counts[1] == 0);
  CHECK(counts[2] == 0);
}

}  // namespace
}  // namespace fastgen
