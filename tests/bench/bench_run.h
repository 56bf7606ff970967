// BenchRun: what every part of kernels_bench measures with, and the parts themselves.
//
// Each part makes a backend of its own for a model, so that the memory of one shape is back before
// the next takes its own; none holds more than kMaxSetBytes of weights or pages.
// Thread rule: one thread.
// Tested by the smoke run of kernels_bench (tests/bench/CMakeLists.txt).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/make_backend.h"
#include "tests/bench/ceilings.h"
#include "tests/bench/figure_table.h"
#include "tests/bench/model_shapes.h"

namespace fastgen::bench {

inline constexpr int64_t kMaxSetBytes = int64_t{768} << 20;

struct BenchRun {
  BackendOptions backend;
  PathInstructions instructions;
  std::vector<int64_t> row_counts;
  int64_t set_bytes = 0;  // weights and pages rotate through at least so many
  Ceilings* ceilings = nullptr;
  FigureTable* table = nullptr;
};

// A backend that has room for `max_rows` rows of the model.
std::unique_ptr<Backend> BackendFor(const BenchRun& run, const ModelShape& model, int64_t max_rows,
                                    int64_t max_context);

void BenchProducts(const BenchRun& run, const ModelShape& model);
void BenchAttention(const BenchRun& run, const ModelShape& model);
void BenchRowOps(const BenchRun& run, const ModelShape& model);
void BenchSampling(const BenchRun& run, const ModelShape& model);

}  // namespace fastgen::bench
