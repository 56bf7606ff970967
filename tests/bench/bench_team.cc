#include "tests/bench/bench_team.h"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/check.h"

namespace fastgen::bench {
namespace {

double Now(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

std::vector<int> UsableCores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &mask)) cores.push_back(core);
  }
  return cores;
}

void Pin(int core) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(core, &mask);
  sched_setaffinity(0, sizeof(mask), &mask);
}

}  // namespace

BenchTeam::BenchTeam(int num_threads) : num_threads_(num_threads), cores_(UsableCores()) {
  CHECK(num_threads >= 1);
}

double BenchTeam::Run(const std::function<void(int)>& body) const {
  if (num_threads_ == 1) return Time([&] { body(0); }).seconds;
  std::atomic<int> num_ready{0};
  std::vector<double> starts(num_threads_), ends(num_threads_);
  std::vector<std::thread> threads;
  for (int i = 0; i < num_threads_; ++i) {
    threads.emplace_back([&, i] {
      if (!cores_.empty()) Pin(cores_[static_cast<size_t>(i) % cores_.size()]);
      ++num_ready;
      while (num_ready < num_threads_) std::this_thread::yield();
      starts[i] = Now(CLOCK_MONOTONIC);
      body(i);
      ends[i] = Now(CLOCK_MONOTONIC);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return *std::max_element(ends.begin(), ends.end()) -
         *std::min_element(starts.begin(), starts.end());
}

Elapsed BenchTeam::Time(const std::function<void()>& work) const {
  const double wall = Now(CLOCK_MONOTONIC);
  const double processor = Now(CLOCK_PROCESS_CPUTIME_ID);
  const double own = Now(CLOCK_THREAD_CPUTIME_ID);
  work();
  const double own_seconds = Now(CLOCK_THREAD_CPUTIME_ID) - own;
  const double processor_seconds = Now(CLOCK_PROCESS_CPUTIME_ID) - processor;
  const double wall_seconds = Now(CLOCK_MONOTONIC) - wall;
  return {num_threads_ == 1 ? own_seconds : wall_seconds,
          std::min(1.0, processor_seconds / (wall_seconds * num_threads_))};
}

double Median(std::vector<double> values) {
  CHECK(!values.empty());
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace fastgen::bench
