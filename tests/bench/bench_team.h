// BenchTeam: threads that begin a piece of work together, one on each core, and the clock by which
// benchmarks measure.
//
// One thread is the caller, and its processor time counts: what else runs on the machine then does
// not. More threads are pinned, wait for one another, and count from the release of all to the end
// of the last in wall time. Threads live for one Run, so that none of them takes a core from the
// backend's pool in between.
// Thread rule: one thread owns a team; a body runs on all of its threads at once.
// Tested by the smoke run of kernels_bench (tests/bench/CMakeLists.txt).
#pragma once

#include <functional>
#include <vector>

namespace fastgen::bench {

// What a piece of work took.
struct Elapsed {
  double seconds = 0;
  // Of the cores that the work could use, the part that this process had: below 1 where other
  // programs ran on them.
  double core_share = 1;
};

class BenchTeam {
 public:
  // REQUIRES: num_threads >= 1.
  explicit BenchTeam(int num_threads);

  int num_threads() const { return num_threads_; }
  // body(thread) on each thread; seconds from the release of all to the end of the last.
  double Run(const std::function<void(int)>& body) const;
  // What `work` takes that the caller begins, on whatever threads it runs.
  Elapsed Time(const std::function<void()>& work) const;

 private:
  const int num_threads_;
  const std::vector<int> cores_;  // in the process's affinity mask
};

double Median(std::vector<double> values);

}  // namespace fastgen::bench
