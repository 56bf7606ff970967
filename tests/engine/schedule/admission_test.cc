// Admission: what the facade may hand to the scheduler, and what it tells the client otherwise.
#include "engine/schedule/admission.h"

#include <catch2/catch.hpp>
#include <limits>
#include <string>

#include "engine/schedule/scheduler.h"

namespace fastgen {
namespace {

using Catch::Matchers::Equals;

SchedulerOptions Options() {
  SchedulerOptions options;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 100;
  options.block_size = 4;
  options.num_blocks = 30;
  return options;
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST_CASE("an asked length that fits is kept", "[schedule]") {
  CHECK(*ResolveMaxOutputTokens(10, 90, Options()) == 90);
  CHECK(*ResolveMaxOutputTokens(100, 0, Options()) == 0);
}

TEST_CASE("an absent length is what the context leaves", "[schedule]") {
  CHECK(*ResolveMaxOutputTokens(10, std::nullopt, Options()) == 90);
}

TEST_CASE("an absent length is what a small pool leaves", "[schedule]") {
  SchedulerOptions options = Options();
  options.num_blocks = 5;  // 20 slots: 20 tokens fed and one more that is not
  CHECK(*ResolveMaxOutputTokens(10, std::nullopt, options) == 11);
  CHECK(*ResolveMaxOutputTokens(20, std::nullopt, options) == 1);
}

TEST_CASE("a length beyond the context is refused with value and limit", "[schedule]") {
  const auto refused = ResolveMaxOutputTokens(10, 91, Options());
  CHECK(refused.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(Message(refused.status()),
             Equals("stopping.max_tokens: 91 after a prompt of 10 tokens is more than the 100 of "
                    "the context (max_model_len)"));
}

TEST_CASE("a length beyond the pool is refused with value and limit", "[schedule]") {
  SchedulerOptions options = Options();
  options.num_blocks = 5;
  CHECK_THAT(Message(ResolveMaxOutputTokens(10, 12, options).status()),
             Equals("stopping.max_tokens: 12 after a prompt of 10 tokens is more than the 21 that "
                    "the KV cache can hold (5 blocks of 4)"));
}

TEST_CASE("a prompt that does not fit is refused whatever was asked", "[schedule]") {
  CHECK_THAT(Message(ResolveMaxOutputTokens(101, 0, Options()).status()),
             Equals("prompt: its 101 tokens are more than the 100 of the context (max_model_len)"));
  SchedulerOptions options = Options();
  options.num_blocks = 5;
  CHECK_FALSE(ResolveMaxOutputTokens(21, 0, options).ok());
  CHECK(ResolveMaxOutputTokens(20, 0, options).ok());
}

TEST_CASE("a prompt that fills the context leaves no room for output", "[schedule]") {
  CHECK_THAT(Message(ResolveMaxOutputTokens(100, std::nullopt, Options()).status()),
             Equals("prompt: its 100 tokens leave no room for output in the 100 of the context "
                    "(max_model_len)"));
}

TEST_CASE("an empty prompt and a negative length are refused", "[schedule]") {
  CHECK_THAT(Message(ResolveMaxOutputTokens(0, 5, Options()).status()),
             Equals("prompt: it has no tokens, at least 1 is needed"));
  CHECK_THAT(Message(ResolveMaxOutputTokens(5, -1, Options()).status()),
             Equals("stopping.max_tokens: -1 is below 0"));
}

TEST_CASE("the largest numbers do not overflow", "[schedule]") {
  constexpr int32_t kMax = std::numeric_limits<int32_t>::max();
  CHECK_FALSE(ResolveMaxOutputTokens(kMax, kMax, Options()).ok());
  CHECK_FALSE(ResolveMaxOutputTokens(1, kMax, Options()).ok());
  CHECK(MaxKvSlots(kMax, kMax, 100) == kMax);
}

TEST_CASE("whatever admission accepts, the scheduler can run alone to its end", "[schedule]") {
  SchedulerOptions options = Options();
  for (options.num_blocks = 1; options.num_blocks <= 6; ++options.num_blocks) {
    for (int32_t num_prompt = 1; num_prompt <= 26; ++num_prompt) {
      const auto max_output = ResolveMaxOutputTokens(num_prompt, std::nullopt, options);
      if (!max_output.ok()) continue;
      Scheduler scheduler(options);
      NewSequence sequence;
      sequence.id = 1;
      sequence.prompt.assign(num_prompt, 3);
      sequence.stop.max_output_tokens = *max_output;
      scheduler.Add(std::move(sequence));
      int32_t num_output = 0;
      StepPlan plan;
      CommitResult commit;
      while (!scheduler.idle()) {
        scheduler.PlanStep(&plan);
        REQUIRE(plan.sequences.size() == 1);
        StepResult result;
        result.sequences.resize(1);
        result.sequences[0].sampled = plan.sequences[0].samples;
        num_output += plan.sequences[0].samples ? 1 : 0;
        scheduler.CommitStep(plan, result, &commit);
        scheduler.CheckInvariants();
      }
      CHECK(num_output == *max_output);
    }
  }
}

TEST_CASE("options outside their range are refused by name", "[schedule]") {
  CHECK(Validate(Options()).ok());
  SchedulerOptions options = Options();
  options.max_num_seqs = 0;
  CHECK_THAT(Message(Validate(options)), Equals("max_num_seqs: 0 is outside [1, 4096]"));
  options = Options();
  options.max_num_batched_tokens = 3;
  CHECK_THAT(Message(Validate(options)), Equals("max_num_batched_tokens: 3 is outside [4, 65536]"));
  options = Options();
  options.block_size = 0;
  CHECK_FALSE(Validate(options).ok());
  options = Options();
  options.num_blocks = 0;
  CHECK_FALSE(Validate(options).ok());
  options = Options();
  options.max_model_len = 0;
  CHECK_FALSE(Validate(options).ok());
}

TEST_CASE("steps in flight are one or two", "[schedule]") {
  SchedulerOptions options = Options();
  for (const int32_t allowed : {1, 2}) {
    options.max_steps_in_flight = allowed;
    CHECK(Validate(options).ok());
  }
  options.max_steps_in_flight = 0;
  CHECK_THAT(Message(Validate(options)), Equals("max_steps_in_flight: 0 is outside [1, 2]"));
  options.max_steps_in_flight = 3;
  CHECK_THAT(Message(Validate(options)), Equals("max_steps_in_flight: 3 is outside [1, 2]"));
}

TEST_CASE("a host tier of whole chunks of whole blocks is accepted, others are named",
          "[schedule]") {
  SchedulerOptions options = Options();
  options.host_chunk_tokens = 8;  // 2 blocks
  options.num_host_blocks = 6;
  CHECK(Validate(options).ok());
  options.num_host_blocks = 7;
  CHECK_THAT(Message(Validate(options)), Equals("num_host_blocks: 7 are no whole chunks of 2"));
  options.num_host_blocks = -2;
  CHECK_THAT(Message(Validate(options)),
             Equals("num_host_blocks: -2 is outside [0, 1073741824]"));
  options.num_host_blocks = 6;
  options.host_chunk_tokens = 10;
  CHECK_THAT(Message(Validate(options)),
             Equals("host_chunk_tokens: 10 is not a multiple of block_size 4"));
  options.host_chunk_tokens = 2;
  CHECK_THAT(Message(Validate(options)),
             Equals("host_chunk_tokens: 2 is not a multiple of block_size 4"));
  // Without a host tier nobody asks.
  options.num_host_blocks = 0;
  options.host_chunk_tokens = 10;
  CHECK(Validate(options).ok());
  Scheduler without(options);
}

}  // namespace
}  // namespace fastgen
