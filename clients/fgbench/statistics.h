// Summary: mean and percentiles of a list of values.
//
// A percentile p of n values in order is the value at position p * (n - 1), between two of them in
// proportion (what numpy.percentile does by default). Thread rule: values.
// Tested by tests/clients/fgbench_test.cc.
#pragma once

#include <cstdint>
#include <vector>

namespace fastgen {

struct Summary {
  int64_t count = 0;  // 0: the rest means nothing
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double max = 0;
};

Summary Summarize(std::vector<double> values);

// REQUIRES: `sorted` rises and is not empty; fraction in [0, 1].
double Percentile(const std::vector<double>& sorted, double fraction);

// 0 of none.
double Median(std::vector<double> values);

}  // namespace fastgen
