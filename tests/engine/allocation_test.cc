// Once warm, the engine thread and the rank thread take no memory from step to step. A program of
// its own: it counts every operator new.
#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/testing/engine_under_test.h"

namespace {

thread_local bool is_watched = false;
std::atomic<int64_t> num_allocations = 0;

void* Allocate(size_t size) {
  if (is_watched) num_allocations.fetch_add(1);
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void* AllocateAligned(size_t size, std::align_val_t alignment) {
  if (is_watched) num_allocations.fetch_add(1);
  const size_t bytes = static_cast<size_t>(alignment);
  void* memory = std::aligned_alloc(bytes, (size + bytes - 1) / bytes * bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

// Not inlined: a compiler that sees free() beside operator new takes them for a mismatch.
[[gnu::noinline]] void Free(void* memory) { std::free(memory); }

}  // namespace

void* operator new(size_t size) { return Allocate(size); }
void* operator new[](size_t size) { return Allocate(size); }
void* operator new(size_t size, std::align_val_t alignment) {
  return AllocateAligned(size, alignment);
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return AllocateAligned(size, alignment);
}
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete[](void* memory) noexcept { Free(memory); }
void operator delete(void* memory, size_t) noexcept { Free(memory); }
void operator delete[](void* memory, size_t) noexcept { Free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { Free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { Free(memory); }

namespace fastgen {
namespace {

using testing::FakeTokenizer;
using testing::MakeRequest;
using testing::RecordingSink;

// Samples 'a' for every row, in storage that it keeps. Stops before a step until the test lets it
// go on.
class SteadyExecutor final : public Executor {
 public:
  absl::Status Run(const StepPlan& plan, StepResult* result) override {
    is_watched = true;
    {
      MutexLock lock(&mutex_);
      num_steps_ = plan.step;
      changed_.SignalAll();
      while (num_steps_ > limit_) changed_.Wait(&mutex_);
    }
    result->sequences.resize(plan.sequences.size());
    for (size_t i = 0; i < plan.sequences.size(); ++i) {
      result->sequences[i].sampled = plan.sequences[i].samples;
      result->sequences[i].next.token = 'a';
    }
    return absl::OkStatus();
  }
  // Lets steps below `limit` run, and waits until step `limit` has come.
  void RunUpTo(uint64_t limit) {
    MutexLock lock(&mutex_);
    limit_ = limit - 1;
    changed_.SignalAll();
    while (num_steps_ < limit) changed_.Wait(&mutex_);
  }
  void RunOn() {
    MutexLock lock(&mutex_);
    limit_ = UINT64_MAX;
    changed_.SignalAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  uint64_t num_steps_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t limit_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST_CASE("a steady decode takes no memory on the engine and rank threads", "[engine]") {
  auto tokenizer = std::make_unique<FakeTokenizer>();
  auto owned = std::make_unique<SteadyExecutor>();
  SteadyExecutor* const executor = owned.get();
  EngineParts parts;
  parts.info.vocab_size = tokenizer->vocab_size();
  parts.scheduler.max_num_seqs = 8;
  parts.scheduler.max_num_batched_tokens = 64;
  parts.scheduler.max_model_len = 1024;
  parts.scheduler.block_size = 16;
  parts.scheduler.num_blocks = 512;
  parts.scheduler.max_steps_in_flight = GENERATE(1, 2);
  parts.executor = std::move(owned);
  parts.tokenizer = std::move(tokenizer);
  const std::unique_ptr<Engine> engine = MakeEngine(std::move(parts));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 8; ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    REQUIRE(engine
                ->Submit(MakeRequest(std::to_string(i), std::vector<int32_t>(20, 'a' + i), 700),
                         sinks.back())
                .ok());
  }
  // Answers come on the engine thread: from now on it is watched.
  std::atomic<bool> is_marked = false;
  engine->ListRequests([&](const std::vector<RequestInfo>&) {
    is_watched = true;
    is_marked = true;
  });
  executor->RunUpTo(150);
  CHECK(is_marked);
  CHECK(num_allocations > 0);  // it does count
  const int64_t before = num_allocations;
  executor->RunUpTo(600);
#ifdef NDEBUG
  CHECK(num_allocations - before == 0);
#else
  // Debug builds check all invariants in each step, in memory of their own.
  CHECK(num_allocations > before);
#endif
  executor->RunOn();
  for (const auto& sink : sinks) CHECK(sink->WaitForEnd().ids().size() == 700);
}

}  // namespace
}  // namespace fastgen
