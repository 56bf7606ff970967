#include "clients/fgbench/statistics.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace fastgen {

double Percentile(const std::vector<double>& sorted, double fraction) {
  CHECK(!sorted.empty() && fraction >= 0 && fraction <= 1);
  const double position = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Summary Summarize(std::vector<double> values) {
  Summary summary;
  if (values.empty()) return summary;
  std::sort(values.begin(), values.end());
  summary.count = static_cast<int64_t>(values.size());
  summary.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  summary.p50 = Percentile(values, 0.5);
  summary.p90 = Percentile(values, 0.9);
  summary.p99 = Percentile(values, 0.99);
  summary.max = values.back();
  return summary;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : Percentile(values, 0.5);
}

}  // namespace fastgen
