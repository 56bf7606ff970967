// Histogram: how often a value fell below each of some bounds, and the sum of all values.
//
// Counts are kept per bucket (not cumulated) in atomics, so that observing costs a search among
// about twenty bounds and two relaxed additions, and takes no lock: threads that serve tokens
// observe, any thread reads. A reader gets every value that was observed before it began; of one
// that comes meanwhile it may see the count and not yet the sum. Nothing is allocated after
// construction. Thread rule: any thread. Tested by tests/base/histogram_test.cc.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"

namespace fastgen {

// A histogram as it was at one moment.
struct HistogramCounts {
  std::vector<double> bounds;   // rising; a value belongs to the first bound that is >= it
  std::vector<int64_t> counts;  // one more than bounds: the last holds what exceeds them all
  double sum = 0;

  int64_t total() const {
    int64_t total = 0;
    for (const int64_t count : counts) total += count;
    return total;
  }
};

class Histogram {
 public:
  // REQUIRES: bounds rise strictly.
  explicit Histogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)),
        counts_(std::make_unique<std::atomic<int64_t>[]>(bounds_.size() + 1)) {
    for (size_t i = 1; i < bounds_.size(); ++i) CHECK_GT(bounds_[i], bounds_[i - 1]);
  }

  // The value was seen so many times.
  void Observe(double value, int64_t times = 1) {
    const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
    counts_[bucket].fetch_add(times, std::memory_order_relaxed);
    sum_.fetch_add(value * static_cast<double>(times), std::memory_order_relaxed);
  }

  HistogramCounts Read() const {
    HistogramCounts read;
    read.bounds = bounds_;
    read.counts.reserve(bounds_.size() + 1);
    for (size_t i = 0; i <= bounds_.size(); ++i) {
      read.counts.push_back(counts_[i].load(std::memory_order_relaxed));
    }
    read.sum = sum_.load(std::memory_order_relaxed);
    return read;
  }

 private:
  const std::vector<double> bounds_;
  const std::unique_ptr<std::atomic<int64_t>[]> counts_;
  std::atomic<double> sum_ = 0;
};

}  // namespace fastgen
