// What the scheduler costs in a step without model work: PlanStep and CommitStep, timed apart, with
// the allocations of the steady state. The aim is 60 us a step at 256 sequences, and no allocation.
//
//   schedule_bench [sequences [context]]     default 256 and 2048 (tokens of prompt)
// Prints one line a case: all rows decode (storage used again, and new plans), and churn, where
// each step ends and admits one sequence, beside prefill chunks.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "engine/schedule/scheduler.h"

namespace {
int64_t num_allocations = 0;
}  // namespace

void* operator new(std::size_t size) {
  ++num_allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace fastgen {
namespace {

enum class Storage { kReused, kFresh };

struct Load {
  const char* name;
  int32_t num_sequences = 0;
  int32_t num_prompt = 0;
  int32_t num_output = 0;
  Storage storage = Storage::kReused;
};

constexpr int32_t kNumSteps = 1000;

SchedulerOptions OptionsFor(const Load& load) {
  SchedulerOptions options;
  options.max_num_seqs = load.num_sequences;
  options.max_num_batched_tokens = std::max(2048, load.num_sequences);
  options.max_model_len = load.num_prompt + load.num_output;
  options.num_blocks = (options.max_model_len / options.block_size + 2) * (load.num_sequences + 1);
  return options;
}

void Add(const Load& load, SequenceId id, Scheduler* scheduler) {
  NewSequence sequence;
  sequence.id = id;
  sequence.prompt.assign(load.num_prompt, 5);
  sequence.stop.max_output_tokens = load.num_output;
  sequence.stop.stop_token_ids = {1, 2};
  scheduler->Add(std::move(sequence));
}

double Microseconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

void Print(const Load& load, std::vector<double>* plan_us, std::vector<double>* commit_us,
           int64_t allocations) {
  std::vector<double> step_us;
  for (size_t i = 0; i < plan_us->size(); ++i) step_us.push_back((*plan_us)[i] + (*commit_us)[i]);
  for (std::vector<double>* times : {plan_us, commit_us, &step_us})
    std::sort(times->begin(), times->end());
  const size_t median = step_us.size() / 2;
  std::printf(
      "%-24s %4d sequences of %5d tokens: step %6.1f us (p99 %6.1f), plan %6.1f, commit %5.1f, "
      "%.2f allocations\n",
      load.name, load.num_sequences, load.num_prompt, step_us[median],
      step_us[step_us.size() * 99 / 100], (*plan_us)[median], (*commit_us)[median],
      static_cast<double>(allocations) / kNumSteps);
}

void Measure(const Load& load) {
  Scheduler scheduler(OptionsFor(load));
  SequenceId last_id = 0;
  for (int32_t i = 0; i < load.num_sequences; ++i) Add(load, ++last_id, &scheduler);
  StepPlan plan;
  StepResult result;
  CommitResult commit;
  std::vector<double> plan_us;
  std::vector<double> commit_us;
  plan_us.reserve(kNumSteps);
  commit_us.reserve(kNumSteps);
  int64_t allocations = 0;
  // Warm up until every prompt is computed.
  const int64_t num_warm_steps = int64_t{load.num_sequences} * load.num_prompt / 1024 + 10;
  for (int64_t step = -num_warm_steps; step < kNumSteps; ++step) {
    while (scheduler.stats().num_running + scheduler.stats().num_waiting < load.num_sequences) {
      Add(load, ++last_id, &scheduler);
    }
    const int64_t allocations_before = num_allocations;
    const auto began = std::chrono::steady_clock::now();
    if (load.storage == Storage::kReused) {
      scheduler.PlanStep(&plan);
    } else {
      plan = scheduler.PlanStep();
    }
    const auto planned = std::chrono::steady_clock::now();
    const int64_t allocations_planned = num_allocations;
    result.sequences.resize(plan.sequences.size());
    for (size_t i = 0; i < plan.sequences.size(); ++i) {
      result.sequences[i].sampled = plan.sequences[i].samples;
      result.sequences[i].next.token = 7;
    }
    const int64_t allocations_run = num_allocations;
    const auto ran = std::chrono::steady_clock::now();
    if (load.storage == Storage::kReused) {
      scheduler.CommitStep(plan, result, &commit);
    } else {
      commit = scheduler.CommitStep(plan, result);
    }
    const auto committed = std::chrono::steady_clock::now();
    if (step < 0) continue;
    allocations += num_allocations - allocations_run + allocations_planned - allocations_before;
    plan_us.push_back(Microseconds(planned - began));
    commit_us.push_back(Microseconds(committed - ran));
  }
  Print(load, &plan_us, &commit_us, allocations);
}

}  // namespace
}  // namespace fastgen

int main(int argc, char** argv) {
  using fastgen::Storage;
  const int num_sequences = argc > 1 ? std::atoi(argv[1]) : 256;
  const int num_prompt = argc > 2 ? std::atoi(argv[2]) : 2048;
  if (num_sequences < 1 || num_sequences > 4096 || num_prompt < 1 || num_prompt > 65536) {
    std::fprintf(stderr, "usage: schedule_bench [sequences, 1 to 4096 [context, 1 to 65536]]\n");
    return 2;
  }
  const int32_t never_ends = fastgen::kNumSteps * 2 + num_sequences * num_prompt / 1024 + 100;
  fastgen::Measure({"decode", num_sequences, num_prompt, never_ends, Storage::kReused});
  fastgen::Measure({"decode, new plans", num_sequences, num_prompt, never_ends, Storage::kFresh});
  fastgen::Measure({"decode, short context", num_sequences, 32, never_ends, Storage::kReused});
  fastgen::Measure({"churn", num_sequences, 512, num_sequences, Storage::kReused});
  return 0;
}
