#include "kernels/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>

#include "base/check.h"
#include "base/int_math.h"

namespace fastgen::cpu {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kActiveMask = kOpen - 1;

uint64_t EpochOf(uint64_t state) { return state >> 32; }

// Where the system refuses, the thread stays free.
void Bind(std::thread* thread, const std::vector<int>& cpus) {
  // Of any size: the last CPU of a large machine does not fit a plain cpu_set_t.
  const size_t last = static_cast<size_t>(*std::max_element(cpus.begin(), cpus.end()));
  std::vector<cpu_set_t> mask(last / CPU_SETSIZE + 1);
  const size_t bytes = mask.size() * sizeof(cpu_set_t);
  for (int cpu : cpus) CPU_SET_S(static_cast<size_t>(cpu), bytes, mask.data());
  pthread_setaffinity_np(thread->native_handle(), bytes, mask.data());
}

void Pause() { __builtin_ia32_pause(); }

}  // namespace

ThreadPool::ThreadPool(int num_threads, const std::vector<std::vector<int>>& cpus,
                       void (*before_sleep)())
    : num_threads_(num_threads), before_sleep_(before_sleep) {
  CHECK_GE(num_threads, 1);
  CHECK(cpus.empty() || cpus.size() == static_cast<size_t>(num_threads));
  parts_ = std::make_unique<Part[]>(num_threads);
  workers_.reserve(num_threads - 1);
  for (int i = 1; i < num_threads; ++i) {
    workers_.emplace_back([this, i] {
      pthread_setname_np(pthread_self(), "compute");
      WorkerLoop(i);
    });
    if (!cpus.empty()) Bind(&workers_.back(), cpus[static_cast<size_t>(i)]);
  }
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(&mutex_);
    stop_.store(true);
  }
  wake_.SignalAll();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int64_t count, int64_t grain, Piece piece, void* context) {
  CHECK_GE(grain, 1);
  if (count <= 0) return;
  if (num_threads_ == 1 || count <= grain) {
    piece(context, 0, count, 0);
    return;
  }
  // Nobody is active, so these plain fields are ours until the store to state_ below publishes
  // them.
  piece_ = piece;
  context_ = context;
  grain_ = grain;
  const int64_t num_pieces = CeilDiv(count, grain);
  for (int i = 0; i < num_threads_; ++i) {
    parts_[i].next.store(num_pieces * i / num_threads_ * grain, std::memory_order_relaxed);
    parts_[i].end = std::min(count, num_pieces * (i + 1) / num_threads_ * grain);
  }
  const uint64_t epoch = EpochOf(state_.load(std::memory_order_relaxed)) + 1;
  // Sequentially consistent with the sleepers' count: either we see the sleeper, or it sees this
  // job.
  state_.store(epoch << 32 | kOpen, std::memory_order_seq_cst);
  if (num_sleeping_.load(std::memory_order_seq_cst) > 0) {
    // Taking the lock orders the signal after a sleeper's check of state_.
    { MutexLock lock(&mutex_); }
    wake_.SignalAll();
  }
  TakePieces(0);
  // Closes the job; from here on nobody joins. Acquire pairs with the workers' release when they
  // leave.
  uint64_t state = state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; (state & kActiveMask) != 0; ++spins) {
    // The worker that holds the last piece may need this very core.
    if (spins < 2000) {
      Pause();
    } else {
      std::this_thread::yield();
    }
    state = state_.load(std::memory_order_acquire);
  }
}

void ThreadPool::TakePieces(int thread) {
  for (int i = 0; i < num_threads_; ++i) {
    Part& part = parts_[(thread + i) % num_threads_];
    while (true) {
      // Relaxed: a piece belongs to whoever takes it; the job's fields were published by state_.
      const int64_t begin = part.next.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= part.end) break;
      piece_(context_, begin, std::min(begin + grain_, part.end), thread);
    }
  }
}

bool ThreadPool::Joinable(uint64_t state, uint64_t last_epoch) const {
  return (state & kOpen) != 0 && EpochOf(state) != last_epoch;
}

uint64_t ThreadPool::Join(uint64_t last_epoch) {
  auto spin_end = std::chrono::steady_clock::now() + kSpin;
  for (int spins = 1;; ++spins) {
    uint64_t state = state_.load(std::memory_order_acquire);
    while (Joinable(state, last_epoch)) {
      if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) return state;
    }
    if (stop_.load(std::memory_order_relaxed)) return 0;
    Pause();
    if (spins % 64 != 0 || std::chrono::steady_clock::now() < spin_end) continue;
    if (before_sleep_ != nullptr) before_sleep_();
    num_sleeping_.fetch_add(1, std::memory_order_seq_cst);
    {
      MutexLock lock(&mutex_);
      while (!stop_.load() && !Joinable(state_.load(std::memory_order_seq_cst), last_epoch)) {
        wake_.Wait(&mutex_);
      }
    }
    num_sleeping_.fetch_sub(1, std::memory_order_seq_cst);
    spin_end = std::chrono::steady_clock::now() + kSpin;
  }
}

void ThreadPool::WorkerLoop(int thread) {
  uint64_t last_epoch = 0;
  while (true) {
    const uint64_t state = Join(last_epoch);
    if (state == 0) return;
    last_epoch = EpochOf(state);
    TakePieces(thread);
    state_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace fastgen::cpu
