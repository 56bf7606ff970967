#include "kernels/cpu/thread_pool.h"

#include <sched.h>
#include <time.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>
#include <vector>

namespace fastgen::cpu {
namespace {

double ProcessSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

TEST_CASE("every index is visited exactly once", "[kernels]") {
  const int num_threads = GENERATE(1, 2, 5);
  ThreadPool pool(num_threads);
  for (int64_t count : {0, 1, 2, 7, 64, 1001}) {
    for (int64_t grain : {1, 3, 64, 5000}) {
      std::vector<std::atomic<int>> visits(count);
      std::atomic<bool> in_range{true};
      pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end, int thread) {
        if (thread < 0 || thread >= num_threads || begin >= end || end > count) in_range = false;
        for (int64_t i = begin; i < end; ++i) visits[i].fetch_add(1);
      });
      int64_t once = 0;
      for (const auto& visit : visits) once += visit.load() == 1 ? 1 : 0;
      CHECK(once == count);
      CHECK(in_range);
    }
  }
}

TEST_CASE("what a job wrote is visible to its caller, job after job", "[kernels]") {
  ThreadPool pool(3);
  std::vector<int64_t> values(500);
  int64_t wrong = 0;
  for (int64_t job = 1; job <= 3000; ++job) {
    pool.ParallelFor(500, 7, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) values[i] += i + job;
    });
    // Now and then long enough for the workers to go to sleep.
    if (job % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (int64_t i = 0; i < 500; ++i) wrong += values[i] != 3000 * i + 3000 * 3001 / 2 ? 1 : 0;
  CHECK(wrong == 0);
}

TEST_CASE("an idle pool takes no processor time", "[kernels]") {
  ThreadPool pool(4);
  std::atomic<int64_t> sum{0};
  pool.ParallelFor(100, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double before = ProcessSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(ProcessSeconds() - before < 0.02);
  CHECK(sum == 4950);
}

std::atomic<int> num_slept{0};

TEST_CASE("a worker calls what was given for it each time that it goes to sleep", "[kernels]") {
  num_slept = 0;
  ThreadPool pool(3, {}, [] { ++num_slept; });
  while (num_slept < 2) std::this_thread::yield();
  // Wakes them for sure: no piece ends before all threads have one.
  std::atomic<int> num_started{0};
  pool.ParallelFor(3, 1, [&](int64_t, int64_t, int) {
    ++num_started;
    while (num_started < 3) std::this_thread::yield();
  });
  while (num_slept < 4) std::this_thread::yield();
  SUCCEED();
}

TEST_CASE("a pool that never worked stops at once", "[kernels]") {
  for (int i = 0; i < 20; ++i) ThreadPool pool(4);
  SUCCEED();
}

TEST_CASE("workers stay on their CPUs, and the caller is free", "[kernels]") {
  cpu_set_t before;
  REQUIRE(sched_getaffinity(0, sizeof(before), &before) == 0);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &before)) ++cpu;
  const std::vector<int> one = {cpu};
  ThreadPool pool(3, {one, one, one});
  std::vector<std::atomic<int>> num_cpus(3);
  std::atomic<int> num_arrived{0};
  pool.ParallelFor(3, 1, [&](int64_t, int64_t, int thread) {
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof(mask), &mask) == 0) num_cpus[thread] = CPU_COUNT(&mask);
    // Nobody takes a second piece before all have one.
    ++num_arrived;
    while (num_arrived < 3) std::this_thread::yield();
  });
  CHECK(num_cpus[0] == CPU_COUNT(&before));
  CHECK(num_cpus[1] == 1);
  CHECK(num_cpus[2] == 1);
}

}  // namespace
}  // namespace fastgen::cpu
