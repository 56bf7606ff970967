// ThreadPool: the compute threads of the CPU backend.
//
// A job is a range [0, count) cut into pieces of `grain`. Every thread, the caller included, owns
// one contiguous part (one linear stream of weights each) and takes pieces from its front; a thread
// that has finished takes pieces from the others' parts, so a core that the operating system lends
// to somebody else delays a job by one piece only. What a piece computes must not depend on who
// computes it.
//
// Invariants
//  1. A worker reads the job only between joining (the active count of state_ goes up while the job
//  is open) and
//     leaving (it goes down); the caller returns only when the job is closed and nobody is active.
//  2. A worker that comes late finds the job closed and does nothing: the caller never waits for a
//  sleeper.
// Workers spin for kSpin after a job, because the next op of the same step follows within
// microseconds, and then sleep on a condition variable: an idle engine takes no CPU time. Thread
// rule: one thread at a time calls ParallelFor; a job must not call it. Tested by
// tests/kernels/thread_pool_test.cc.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "base/mutex.h"

namespace fastgen::cpu {

class ThreadPool {
 public:
  // Longer than the gap between two ops of a step (1-20 us) and between two steps of a busy engine
  // (20-50 us).
  static constexpr std::chrono::microseconds kSpin{50};

  // Starts num_threads - 1 workers; the thread that calls ParallelFor is thread 0. `cpus` is empty,
  // or has the CPUs on which each thread may run, a node's: panels then stay where they were first
  // touched. The caller is not bound, as threads that it starts would be too; nor is a worker bound
  // to one CPU, as it would have to wake up on the caller's where that sits there (8 clients on two
  // cores: 0.83 of the rate, 2026-11). A worker calls `before_sleep`, unless null, when it goes to
  // sleep. REQUIRES: num_threads >= 1.
  explicit ThreadPool(int num_threads, const std::vector<std::vector<int>>& cpus = {},
                      void (*before_sleep)() = nullptr);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls body(begin, end, thread) for pieces that cover [0, count) exactly once; thread <
  // num_threads(). Returns when all have ended. A job of one piece runs on the caller without
  // waking anybody.
  template <typename Body>
  void ParallelFor(int64_t count, int64_t grain, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    Run(
        count, grain,
        [](void* context, int64_t begin, int64_t end, int thread) {
          (*static_cast<Plain*>(context))(begin, end, thread);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Piece = void (*)(void* context, int64_t begin, int64_t end, int thread);

  // The part of a job that one thread starts with. On its own cache line: `next` is written at
  // every piece.
  struct alignas(64) Part {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void Run(int64_t count, int64_t grain, Piece piece, void* context);
  void TakePieces(int thread);
  void WorkerLoop(int thread);
  // Returns the state of a job that this worker has joined, or 0 when the pool stops.
  uint64_t Join(uint64_t last_epoch);
  bool Joinable(uint64_t state, uint64_t last_epoch) const;

  const int num_threads_;
  void (*const before_sleep_)();
  Piece piece_ = nullptr;
  void* context_ = nullptr;
  int64_t grain_ = 1;
  std::unique_ptr<Part[]> parts_;  // [num_threads_]

  // epoch << 32 | open << 31 | active workers. The epoch counts jobs.
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int> num_sleeping_{0};
  std::atomic<bool> stop_{false};
  Mutex mutex_;
  CondVar wake_;
  std::vector<std::thread> workers_;
};

}  // namespace fastgen::cpu
