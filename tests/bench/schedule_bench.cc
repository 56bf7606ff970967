// What the scheduler costs in a step without model work: PlanStep and CommitStep, timed apart, with the allocations of
// the steady state. The aim is 60 us a step at 256 running and 4,096 queued sequences, and no allocation.
//
//   schedule_bench [case]     all cases, or those whose name begins with `case`
// Two steps are in flight, as in the engine, and the prefix cache is on. Times are CPU times of the thread, so that
// other programs of the machine count little. Cases:
//   decode         256 rows decode at a context of 2,048, 4,096 sequences wait
//   decode, host   the same with a host tier that output is copied to
//   churn          each step ends one sequence and admits one whose prompt is cached up to its last 32 tokens of 1,056
//   churn, host    each step ends one and admits one with a prompt of its own, which fills chunks and evicts others
//   blocked head   a queue whose head does not fit, with 100,000 cached tokens to look up in each step
//   long prompt    steps that compute 2,048 tokens of a prompt of 100,000 and fill host chunks with them
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
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

constexpr int32_t kNumRunning = 256;
constexpr int32_t kNumQueued = 4096;
constexpr int32_t kNeverEnds = 16384;
constexpr int32_t kBlockSize = 64;

double NowUs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

double Percentile(std::vector<double> values, int percent) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() * percent / 100];
}

SchedulerOptions Options() {
  SchedulerOptions options;
  options.max_num_seqs = kNumRunning;
  options.max_num_batched_tokens = 2048;
  options.max_model_len = 1 << 21;
  options.block_size = kBlockSize;
  options.num_blocks = 24000;
  options.poison_freed_blocks = false;
  return options;
}

// A prompt that begins with `num_shared` tokens of the text `text`, and goes on with `num_own` that no other has.
NewSequence MakeSequence(SequenceId id, int32_t text, int32_t num_shared, int32_t num_own,
                         int32_t num_output) {
  NewSequence sequence;
  sequence.id = id;
  sequence.prompt.reserve(num_shared + num_own);
  for (int32_t i = 0; i < num_shared; ++i) sequence.prompt.push_back(text * 31 + i % 1000);
  for (int32_t i = 0; i < num_own; ++i) {
    sequence.prompt.push_back(static_cast<int32_t>(100000 + id * 17 + i));
  }
  sequence.stop.max_output_tokens = num_output;
  sequence.stop.stop_token_ids = {1, 2};
  return sequence;
}

// Runs steps as the engine does, one planned ahead, and keeps their times.
class Driver {
 public:
  explicit Driver(const SchedulerOptions& options) : scheduler_(options) {}

  Scheduler& scheduler() { return scheduler_; }
  int64_t num_ended() const { return num_ended_; }

  // Plans a step and commits the one before it; empty plans count as steps.
  void Step() {
    StepPlan& next = plans_[num_steps_ % 2];
    const StepPlan& oldest = plans_[(num_steps_ + 1) % 2];
    ++num_steps_;
    const int64_t before_plan = num_allocations;
    const double began_us = NowUs();
    scheduler_.PlanStep(&next);
    const double planned_us = NowUs();
    const int64_t after_plan = num_allocations;
    double commit_us = 0;
    int64_t commit_allocations = 0;
    if (!oldest.empty()) {
      result_.sequences.resize(oldest.sequences.size());
      for (size_t i = 0; i < oldest.sequences.size(); ++i) {
        result_.sequences[i].sampled = oldest.sequences[i].samples;
        result_.sequences[i].next.token = static_cast<int32_t>(7 + num_steps_ % 5000);
      }
      const int64_t before_commit = num_allocations;
      const double ran_us = NowUs();
      scheduler_.CommitStep(oldest, result_, &commit_);
      commit_us = NowUs() - ran_us;
      commit_allocations = num_allocations - before_commit;
      num_ended_ += static_cast<int64_t>(commit_.finished.size());
    }
    if (!is_measuring_) return;
    plan_us_.push_back(planned_us - began_us);
    commit_us_.push_back(commit_us);
    num_allocations_ += after_plan - before_plan + commit_allocations;
    num_rows_ += static_cast<int64_t>(next.sequences.size());
  }

  void StartMeasuring(int32_t num_steps) {
    plan_us_.reserve(num_steps);
    commit_us_.reserve(num_steps);
    hits_before_ = scheduler_.stats();
    is_measuring_ = true;
  }

  void Print(const char* name) const {
    std::vector<double> step_us;
    for (size_t i = 0; i < plan_us_.size(); ++i) step_us.push_back(plan_us_[i] + commit_us_[i]);
    const double num_steps = static_cast<double>(step_us.size());
    const SchedulerStats stats = scheduler_.stats();
    const int64_t hits = stats.prefix_device_hit_tokens + stats.prefix_host_hit_tokens -
                         hits_before_.prefix_device_hit_tokens -
                         hits_before_.prefix_host_hit_tokens;
    std::printf(
        "%-14s step %7.1f us (p99 %7.1f), plan %7.1f (%7.1f), commit %6.1f (%6.1f), %6.2f "
        "allocations, %5.1f rows, %6.0f tokens hit, %d waiting\n",
        name, Percentile(step_us, 50), Percentile(step_us, 99), Percentile(plan_us_, 50),
        Percentile(plan_us_, 99), Percentile(commit_us_, 50), Percentile(commit_us_, 99),
        static_cast<double>(num_allocations_) / num_steps,
        static_cast<double>(num_rows_) / num_steps, static_cast<double>(hits) / num_steps,
        stats.num_waiting);
  }

 private:
  Scheduler scheduler_;
  StepPlan plans_[2];
  StepResult result_;
  CommitResult commit_;
  int64_t num_steps_ = 0;
  int64_t num_ended_ = 0;
  bool is_measuring_ = false;
  SchedulerStats hits_before_;
  std::vector<double> plan_us_;
  std::vector<double> commit_us_;
  int64_t num_allocations_ = 0;
  int64_t num_rows_ = 0;
};

// As many host blocks as half of the device's.
SchedulerOptions WithHostTier(SchedulerOptions options) {
  options.num_host_blocks = 12000;
  options.page_us_per_token = 0.1;
  return options;
}

void Decode(const char* name, const SchedulerOptions& options) {
  constexpr int32_t kNumSteps = 2000;
  Driver driver(options);
  SequenceId id = 0;
  for (int32_t i = 0; i < kNumRunning + kNumQueued; ++i) {
    driver.scheduler().Add(MakeSequence(++id, 0, 0, 2048, kNeverEnds));
  }
  for (int32_t i = 0; i < 2 * kNumRunning; ++i) driver.Step();
  driver.StartMeasuring(kNumSteps);
  for (int32_t i = 0; i < kNumSteps; ++i) driver.Step();
  driver.Print(name);
}

// One ends and one is admitted in each step: the first ones end one a step, those after them have equal lengths.
void Churn(const char* name, const SchedulerOptions& options, int32_t num_shared, int32_t num_own) {
  constexpr int32_t kNumSteps = 2000;
  constexpr int32_t kNumTexts = 16;
  Driver driver(options);
  SequenceId id = 0;
  for (int32_t i = 0; i < kNumRunning; ++i) {
    ++id;
    driver.scheduler().Add(
        MakeSequence(id, static_cast<int32_t>(id) % kNumTexts, num_shared, num_own, 300 + i));
  }
  const auto step = [&] {
    const int64_t ended_before = driver.num_ended();
    driver.Step();
    for (int64_t i = driver.num_ended() - ended_before; i > 0; --i) {
      ++id;
      driver.scheduler().Add(
          MakeSequence(id, static_cast<int32_t>(id) % kNumTexts, num_shared, num_own, kNumRunning));
    }
  };
  for (int32_t i = 0; i < 1500; ++i) step();
  driver.StartMeasuring(kNumSteps);
  for (int32_t i = 0; i < kNumSteps; ++i) step();
  driver.Print(name);
}

// A running sequence holds 100,000 tokens; the head of the queue has them too, and needs more blocks than there are.
void BlockedHead(const char* name, const SchedulerOptions& options) {
  constexpr int32_t kNumSteps = 300;
  constexpr int32_t kShared = 100000;
  Driver driver(options);
  driver.scheduler().Add(MakeSequence(1, 1, kShared, 32, kNeverEnds));
  for (SequenceId id = 2; id < kNumRunning; ++id) {
    driver.scheduler().Add(MakeSequence(id, 0, 0, 2048, kNeverEnds));
  }
  for (int32_t i = 0; i < 500; ++i) driver.Step();
  const int64_t room = int64_t{driver.scheduler().stats().num_free_blocks} * kBlockSize;
  NewSequence head = MakeSequence(5000, 1, kShared, static_cast<int32_t>(room), 8);
  const std::vector<int32_t> prompt = head.prompt;
  driver.scheduler().Add(std::move(head));
  for (int32_t i = 0; i < 10; ++i) driver.Step();
  driver.StartMeasuring(kNumSteps);
  for (int32_t i = 0; i < kNumSteps; ++i) driver.Step();
  driver.Print(name);
  const double began_us = NowUs();
  const CachedPrefix found = driver.scheduler().Lookup(prompt, "");
  std::printf("%-14s Lookup of %zu tokens: %.1f us, %d found on the device\n", "", prompt.size(),
              NowUs() - began_us, found.num_device_tokens);
}

void LongPrompt(const char* name, const SchedulerOptions& options) {
  constexpr int32_t kNumSteps = 45;
  Driver driver(options);
  driver.scheduler().Add(MakeSequence(1, 0, 0, 100000, 8));
  driver.Step();
  driver.Step();
  driver.StartMeasuring(kNumSteps);
  for (int32_t i = 0; i < kNumSteps; ++i) driver.Step();
  driver.Print(name);
}

struct Case {
  const char* name;
  std::function<void(const char*)> run;
};

int Main(int argc, char** argv) {
  const std::vector<Case> cases = {
      {"decode", [](const char* name) { Decode(name, Options()); }},
      {"decode, host", [](const char* name) { Decode(name, WithHostTier(Options())); }},
      {"churn", [](const char* name) { Churn(name, Options(), 1024, 32); }},
      {"churn, host", [](const char* name) { Churn(name, WithHostTier(Options()), 0, 1024); }},
      {"blocked head", [](const char* name) { BlockedHead(name, Options()); }},
      {"blocked, host", [](const char* name) { BlockedHead(name, WithHostTier(Options())); }},
      {"long prompt", [](const char* name) { LongPrompt(name, WithHostTier(Options())); }},
  };
  const std::string wanted = argc > 1 ? argv[1] : "";
  int num_run = 0;
  for (const Case& one : cases) {
    if (std::string(one.name).compare(0, wanted.size(), wanted) != 0) continue;
    one.run(one.name);
    ++num_run;
  }
  if (num_run > 0) return 0;
  std::fprintf(stderr, "usage: schedule_bench [case]; the cases:");
  for (const Case& one : cases) std::fprintf(stderr, " \"%s\"", one.name);
  std::fprintf(stderr, "\n");
  return 2;
}

}  // namespace
}  // namespace fastgen

int main(int argc, char** argv) { return fastgen::Main(argc, argv); }
