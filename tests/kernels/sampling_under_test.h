// Driving SampleRows with plain vectors, and the chi-squared test of its draws.
//
// Draws are keyed by seed and position, so what is statistical here is decided once for all: a test
// that passes always passes.
// Thread rule: the test's main thread.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "tests/testing/reference_ops.h"
// Last: it brings Catch2.
#include "tests/kernels/backends_under_test.h"

namespace fastgen::testing {

inline std::vector<SampleResult> Sample(Backend* backend, std::vector<float> logits,
                                        const std::vector<SampleRow>& rows) {
  const int64_t num_rows = static_cast<int64_t>(rows.size());
  std::vector<SampleResult> results(rows.size());
  backend->SampleRows(View(logits, num_rows, static_cast<int64_t>(logits.size()) / num_rows),
                      absl::MakeSpan(rows), absl::MakeSpan(results));
  REQUIRE(backend->Synchronize().ok());
  return results;
}

inline SampleResult SampleOne(Backend* backend, const std::vector<float>& logits,
                              const SampleRow& row) {
  return std::move(Sample(backend, logits, {row})[0]);
}

// `draws` tokens of one distribution, ids counted.
inline std::vector<int> Histogram(Backend* backend, const std::vector<float>& logits, SampleRow row,
                                  int draws) {
  std::vector<int> counts(logits.size());
  for (int first = 0; first < draws; first += 16) {
    std::vector<float> all;
    std::vector<SampleRow> rows;
    for (int i = 0; i < 16; ++i) {
      row.output_position = first + i;
      rows.push_back(row);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    for (const SampleResult& result : Sample(backend, all, rows)) {
      REQUIRE(result.token >= 0);
      REQUIRE(result.token < static_cast<int32_t>(logits.size()));
      ++counts[result.token];
    }
  }
  return counts;
}

// Every kept token is drawn about as often as it should be, no other at all.
inline void CheckDraws(Backend* backend, const std::vector<float>& logits, const SampleRow& row,
                       int draws = 4000) {
  const std::vector<int> counts = Histogram(backend, logits, row, draws);
  const std::vector<double> p = ReferenceDistribution(logits, row);
  double chi_squared = 0;
  int cells = 0;
  for (size_t id = 0; id < p.size(); ++id) {
    if (p[id] == 0) {
      INFO("token " << id << " was filtered out");
      CHECK(counts[id] == 0);
    } else if (p[id] * draws > 5) {
      const double expected = p[id] * draws;
      chi_squared += (counts[id] - expected) * (counts[id] - expected) / expected;
      ++cells;
    }
  }
  // Mean cells, deviation sqrt(2 cells): five deviations.
  CHECK(chi_squared < cells + 5 * std::sqrt(2.0 * cells) + 5);
}

}  // namespace fastgen::testing
