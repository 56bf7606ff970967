// Scheduler: what the scripts cannot show well: results in full, storage that is used again,
// misuse.
#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/aborts.h"

namespace fastgen {
namespace {

using testing::Aborts;

SchedulerOptions Options() {
  SchedulerOptions options;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 64;
  options.block_size = 4;
  options.num_blocks = 32;
  return options;
}

NewSequence MakeSequence(SequenceId id, int32_t num_prompt, int32_t max_output) {
  NewSequence sequence;
  sequence.id = id;
  for (int32_t i = 0; i < num_prompt; ++i) sequence.prompt.push_back(100 + i);
  sequence.stop.max_output_tokens = max_output;
  return sequence;
}

// What an executor answers that samples `token` everywhere and scores with the target's own number.
StepResult Answer(const StepPlan& plan, int32_t token) {
  StepResult result;
  for (const ScheduledSequence& row : plan.sequences) {
    SequenceResult& row_result = result.sequences.emplace_back();
    row_result.sampled = row.samples;
    row_result.next.token = token;
    for (const int32_t target : row.score_targets) {
      TokenScore& score = row_result.scored.emplace_back();
      score.token = target;
      score.logprob = static_cast<float>(-target);
      score.rank = target % 7;
      score.top = {{target + 1, -0.5f}};
    }
  }
  return result;
}

StepPlan Plan(Scheduler* scheduler) {
  StepPlan plan;
  scheduler->PlanStep(&plan);
  return plan;
}

CommitResult Commit(Scheduler* scheduler, const StepPlan& plan, const StepResult& result) {
  CommitResult commit;
  scheduler->CommitStep(plan, result, &commit);
  return commit;
}

TEST_CASE("a fresh scheduler is idle and plans nothing", "[schedule]") {
  Scheduler scheduler(Options());
  CHECK(scheduler.idle());
  const StepPlan plan = Plan(&scheduler);
  CHECK(plan.empty());
  CHECK(plan.num_tokens == 0);
  CHECK(Plan(&scheduler).empty());  // an empty plan asks for no commit
  CHECK(scheduler.num_in_flight() == 0);
}

TEST_CASE("a row carries its sequence's sampling", "[schedule]") {
  Scheduler scheduler(Options());
  NewSequence sequence = MakeSequence(1, 3, 4);
  sequence.sampling.temperature = 0.5f;
  sequence.sampling.top_k = 40;
  sequence.sampling.seed = 99;
  sequence.sampling.num_top_logprobs = 3;
  scheduler.Add(std::move(sequence));
  const StepPlan plan = Plan(&scheduler);
  CHECK(plan.sequences.at(0).sampling.temperature == 0.5f);
  CHECK(plan.sequences.at(0).sampling.top_k == 40);
  CHECK(plan.sequences.at(0).sampling.seed == 99);
  CHECK(plan.sequences.at(0).sampling.num_top_logprobs == 3);
}

TEST_CASE("scores and the sampled token are handed on in full", "[schedule]") {
  Scheduler scheduler(Options());
  NewSequence sequence = MakeSequence(1, 3, 4);
  sequence.sampling.num_prompt_top_logprobs = 1;
  scheduler.Add(std::move(sequence));
  const StepPlan plan = Plan(&scheduler);
  StepResult result = Answer(plan, 7);
  result.sequences[0].next.logprob = -1.25f;
  result.sequences[0].next.rank = 2;
  result.sequences[0].next.top = {{8, -0.25f}, {7, -1.25f}};
  const CommitResult commit = Commit(&scheduler, plan, result);
  REQUIRE(commit.outputs.size() == 1);
  const CommitResult::Output& output = commit.outputs[0];
  CHECK(output.token.token == 7);
  CHECK(output.token.logprob == -1.25f);
  CHECK(output.token.rank == 2);
  CHECK(output.token.top == result.sequences[0].next.top);
  REQUIRE(output.scored.size() == 2);
  CHECK(output.scored[1].token == 102);
  CHECK(output.scored[1].logprob == -102.0f);
  CHECK(output.scored[1].rank == 102 % 7);
  CHECK(output.scored[1].top == std::vector<std::pair<int32_t, float>>{{103, -0.5f}});
}

TEST_CASE("every stop id is banned until min_tokens, in ascending order", "[schedule]") {
  Scheduler scheduler(Options());
  NewSequence sequence = MakeSequence(1, 3, 4);
  sequence.stop.min_output_tokens = 1;
  sequence.stop.stop_token_ids = {9, 2, 5};
  scheduler.Add(std::move(sequence));
  StepPlan plan = Plan(&scheduler);
  CHECK(plan.sequences.at(0).banned_tokens == std::vector<int32_t>{2, 5, 9});
  Commit(&scheduler, plan, Answer(plan, 7));
  plan = Plan(&scheduler);
  CHECK(plan.sequences.at(0).banned_tokens.empty());
  const CommitResult commit = Commit(&scheduler, plan, Answer(plan, 9));
  REQUIRE(commit.finished.size() == 1);
  CHECK(commit.finished[0].matched_token_id == 9);
}

TEST_CASE("a chunk that does not reach the end of the prompt bans and samples nothing",
          "[schedule]") {
  Scheduler scheduler(Options());
  NewSequence sequence = MakeSequence(1, 20, 4);
  sequence.stop.min_output_tokens = 1;
  sequence.stop.stop_token_ids = {9};
  scheduler.Add(std::move(sequence));
  const StepPlan plan = Plan(&scheduler);
  CHECK_FALSE(plan.sequences.at(0).samples);
  CHECK(plan.sequences.at(0).banned_tokens.empty());
  CHECK(plan.sequences.at(0).block_table.size() == 4);
}

TEST_CASE("blocks freed while a step runs are not handed out before its commit", "[schedule]") {
  SchedulerOptions options = Options();
  options.prefix_cache = false;
  Scheduler scheduler(options);
  scheduler.Add(MakeSequence(1, 8, 4));
  const StepPlan first = Plan(&scheduler);
  const std::vector<int32_t> written = first.sequences.at(0).block_table;
  REQUIRE(scheduler.Cancel(1, FinishReason::kCancelled, nullptr));
  CHECK(scheduler.stats().num_free_blocks == 32);  // nobody holds them
  scheduler.Add(MakeSequence(2, 7, 4));            // its next token needs no block
  const StepPlan second = Plan(&scheduler);
  for (const int32_t block : second.sequences.at(0).block_table) {
    CHECK(std::find(written.begin(), written.end(), block) == written.end());
  }
  Commit(&scheduler, first, Answer(first, 7));
  scheduler.Add(MakeSequence(3, 8, 4));
  CHECK(Plan(&scheduler).sequences.at(1).block_table == written);
}

TEST_CASE("a reused plan equals a fresh one", "[schedule]") {
  Scheduler fresh(Options());
  Scheduler reusing(Options());
  StepPlan reused;
  CommitResult reused_commit;
  SequenceId id = 0;
  for (int32_t step = 0; step < 60; ++step) {
    if (step % 3 == 0) {
      NewSequence sequence = MakeSequence(++id, 1 + (step * 7) % 23, 1 + step % 6);
      sequence.stop.min_output_tokens = step % 2;
      sequence.stop.stop_token_ids = {3};
      sequence.sampling.num_prompt_top_logprobs = step % 4 == 0 ? 0 : -1;
      sequence.sampling.presence_penalty = step % 5 == 0 ? 1.0f : 0.0f;
      fresh.Add(sequence);
      reusing.Add(std::move(sequence));
    }
    const StepPlan plan = Plan(&fresh);
    reusing.PlanStep(&reused);
    REQUIRE(reused.sequences.size() == plan.sequences.size());
    CHECK(reused.step == plan.step);
    if (plan.empty()) continue;
    CHECK(reused.num_tokens == plan.num_tokens);
    for (size_t i = 0; i < plan.sequences.size(); ++i) {
      const ScheduledSequence& row = plan.sequences[i];
      const ScheduledSequence& other = reused.sequences[i];
      CHECK(other.id == row.id);
      CHECK(other.slot == row.slot);
      CHECK(other.tokens == row.tokens);
      CHECK(other.token_row == row.token_row);
      CHECK(other.context_begin == row.context_begin);
      CHECK(other.block_table == row.block_table);
      CHECK(other.samples == row.samples);
      CHECK(other.output_position == row.output_position);
      CHECK(other.banned_tokens == row.banned_tokens);
      CHECK(other.score_targets == row.score_targets);
      CHECK(other.starts_history == row.starts_history);
      CHECK(other.history == row.history);
    }
    const CommitResult commit = Commit(&fresh, plan, Answer(plan, 7));
    reusing.CommitStep(reused, Answer(reused, 7), &reused_commit);
    CHECK(reused_commit.outputs.size() == commit.outputs.size());
    CHECK(reused_commit.finished.size() == commit.finished.size());
  }
}

TEST_CASE("a thousand waiting sequences are cancelled from any place", "[schedule]") {
  Scheduler scheduler(Options());
  for (SequenceId id = 1; id <= 1000; ++id) scheduler.Add(MakeSequence(id, 3, 4));
  const StepPlan plan = Plan(&scheduler);
  Commit(&scheduler, plan, Answer(plan, 7));
  for (SequenceId id = 1; id <= 1000; ++id) {
    FinishedSequence finished;
    REQUIRE(scheduler.Cancel(id * 5 % 1001, FinishReason::kCancelled, &finished));
    CHECK(finished.id == id * 5 % 1001);
  }
  CHECK(scheduler.idle());
  CHECK(scheduler.stats().num_free_blocks == 32);
}

TEST_CASE("our own mistakes abort", "[schedule]") {
  SchedulerOptions options = Options();
  options.max_num_batched_tokens = 3;
  CHECK(Aborts([&] { Scheduler scheduler(options); }));
  CHECK(Aborts([] { Scheduler(Options()).Add(MakeSequence(1, 0, 4)); }));
  CHECK(Aborts([] { Scheduler(Options()).Add(MakeSequence(1, 65, 0)); }));
  Scheduler scheduler(Options());
  scheduler.Add(MakeSequence(1, 3, 4));
  CHECK(Aborts([&] { scheduler.Add(MakeSequence(1, 3, 4)); }));
  const StepPlan plan = Plan(&scheduler);
  CHECK(Aborts([&] { Commit(&scheduler, plan, StepResult()); }));
  const StepResult result = Answer(plan, 7);
  Commit(&scheduler, plan, result);
  CHECK(Aborts([&] { Commit(&scheduler, plan, result); }));
  CHECK(Aborts([&] { scheduler.FinishAt(1, 2, nullptr); }));
}

}  // namespace
}  // namespace fastgen
