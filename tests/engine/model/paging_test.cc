// KV blocks that move: out to the host and in again, copied on write, poisoned; and what a sequence
// computes from them.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/model/batch_under_test.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

using ::fastgen::testing::AreSame;
using ::fastgen::testing::BatchUnderTest;
using ::fastgen::testing::DrivenSequence;
using ::fastgen::testing::ExecutorUnderTest;
using ::fastgen::testing::IdsOf;
using ::fastgen::testing::RandomIds;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TestModelOptions;
using ::fastgen::testing::TinyModel;

// Serving mode keeps KV in bf16, fp32 mode in fp32.
struct OnDisk {
  explicit OnDisk(ComputeDType compute_dtype) {
    TinyModel tiny;
    tiny.matrix_dtype = compute_dtype == ComputeDType::kAuto ? DType::kBF16 : DType::kF32;
    tiny.WriteDirectory(directory.path());
    options.compute_dtype = compute_dtype;
    options.host_kv_bytes = 1 << 20;
  }
  ExecutorUnderTest Executor() const { return ExecutorUnderTest(directory.path(), options); }
  TemporaryDirectory directory;
  TestModelOptions options;
};

SequenceSampling Greedy() {
  SequenceSampling sampling;
  sampling.num_top_logprobs = 4;
  return sampling;
}

std::vector<int32_t> Prompt(uint32_t seed, int length = 37) { return RandomIds(length, seed, 80); }

std::vector<TokenScore> Alone(const OnDisk& model, const std::vector<int32_t>& prompt,
                              const SequenceSampling& sampling, size_t num_tokens) {
  ExecutorUnderTest tested = model.Executor();
  BatchUnderTest batch(&tested, {});
  const DrivenSequence* sequence = batch.Add(prompt, sampling);
  batch.Generate(num_tokens);
  return sequence->output;
}

TEST_CASE("blocks that went to the host and came back elsewhere give the same bits",
          "[model][paging]") {
  const OnDisk model(GENERATE(ComputeDType::kF32, ComputeDType::kAuto));
  const std::vector<TokenScore> expected = Alone(model, Prompt(1), Greedy(), 60);
  const std::vector<TokenScore> other = Alone(model, Prompt(2), Greedy(), 60);
  ExecutorUnderTest tested = model.Executor();
  BatchUnderTest batch(&tested, {.runs_ahead = true});
  DrivenSequence* moved = batch.Add(Prompt(1), Greedy());
  const DrivenSequence* stays = batch.Add(Prompt(2), Greedy());
  batch.Generate(10);
  const std::vector<int32_t> first_blocks = moved->blocks;
  batch.SwapOut(moved, 5);
  for (int i = 0; i < 3; ++i) batch.Step();
  batch.PageIn(moved, 5, batch.TakeBlocks(moved->blocks.size()), 8);
  CHECK(moved->blocks != first_blocks);
  for (int i = 0; i < 5; ++i) batch.Step();
  // Again, out and in in one step, back to where it began: the pages come in after the poison.
  batch.SwapOut(moved, 0);
  batch.PageIn(moved, 0, first_blocks, 8);
  batch.Generate(60);
  CHECK(AreSame({moved->output.begin(), moved->output.begin() + 60}, expected));
  CHECK(AreSame({stays->output.begin(), stays->output.begin() + 60}, other));
}

TEST_CASE("a prompt that came from the host is as if it had been computed", "[model][paging]") {
  const OnDisk model(GENERATE(ComputeDType::kF32, ComputeDType::kAuto));
  const std::vector<int32_t> prompt = Prompt(3, 90);
  const std::vector<TokenScore> expected = Alone(model, prompt, Greedy(), 30);
  ExecutorUnderTest tested = model.Executor();
  BatchUnderTest batch(&tested, {});
  DrivenSequence* first = batch.Add(prompt, Greedy());
  batch.Step();
  batch.FillHost(*first, 9, 4);
  batch.Step();  // it decodes meanwhile
  CHECK(AreSame(first->output, {expected.begin(), expected.begin() + 2}));
  batch.SwapOut(first, 20);
  batch.Step();  // moves alone
  batch.Remove(first);
  DrivenSequence* second = batch.Add(prompt, Greedy());
  batch.PageIn(second, 9, batch.TakeBlocks(second->blocks.size()), 4);
  second->num_computed = 64;
  batch.Generate(30);
  CHECK(AreSame(second->output, expected));
}

TEST_CASE("forks diverge without disturbing each other", "[model][paging]") {
  const OnDisk model(GENERATE(ComputeDType::kF32, ComputeDType::kAuto));
  // Within a block, at its border, and one token into the next.
  const int length = GENERATE(37, 48, 49);
  const auto drawn = [](uint32_t choice) {
    SequenceSampling sampling = Greedy();
    sampling.temperature = 1.5f;
    sampling.seed = 11;
    sampling.choice_index = choice;
    return sampling;
  };
  const std::vector<int32_t> prompt = Prompt(4, length);
  ExecutorUnderTest tested = model.Executor();
  BatchUnderTest batch(&tested, {.runs_ahead = true});
  std::vector<DrivenSequence*> choices = {batch.Add(prompt, drawn(0))};
  batch.Step();
  batch.Step();
  // The leader has written its first output into the block that is copied.
  for (uint32_t choice = 1; choice < 4; ++choice) {
    choices.push_back(batch.Fork(*choices[0], drawn(choice)));
  }
  batch.Generate(40);
  for (uint32_t choice = 0; choice < 4; ++choice) {
    INFO("choice " << choice);
    const std::vector<TokenScore>& output = choices[choice]->output;
    CHECK(AreSame({output.begin(), output.begin() + 40}, Alone(model, prompt, drawn(choice), 40)));
    CHECK((choice == 0 || IdsOf(output) != IdsOf(choices[0]->output)));
  }
}

TEST_CASE("a read of a poisoned block is a NaN, and its neighbour's is not", "[model][paging]") {
  const OnDisk model(GENERATE(ComputeDType::kF32, ComputeDType::kAuto));
  const std::vector<TokenScore> expected = Alone(model, Prompt(6), Greedy(), 12);
  ExecutorUnderTest tested = model.Executor();
  BatchUnderTest batch(&tested, {});
  const DrivenSequence* stale = batch.Add(Prompt(5), Greedy());
  const DrivenSequence* sound = batch.Add(Prompt(6), Greedy());
  batch.Generate(11);
  StepPlan plan = batch.MakePlan();
  plan.poisoned_blocks = {stale->blocks[1]};
  const StepResult result = tested.Run(plan);
  CHECK(result.sequences[0].is_nan);
  CHECK_FALSE(result.sequences[1].is_nan);
  CHECK(AreSame({result.sequences[1].next}, {expected.back()}));
  CHECK(sound->output.size() == 11);
}

TEST_CASE("moving KV is measured where there is a host tier", "[model][paging]") {
  OnDisk model(ComputeDType::kAuto);
  const ExecutorUnderTest with = model.Executor();
  CHECK(with.plan.num_host_blocks == 256);
  CHECK(with.executor->page_us_per_token() > 0);
  CHECK(with.executor->page_us_per_token() < 1000);
  model.options.host_kv_bytes = 0;
  const ExecutorUnderTest without = model.Executor();
  CHECK(without.plan.num_host_blocks == 0);
  CHECK(without.executor->page_us_per_token() == 0);
}

}  // namespace
}  // namespace fastgen
