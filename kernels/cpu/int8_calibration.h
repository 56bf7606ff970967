// From how many rows on int8 products go through tiles: measured when a backend starts, because
// tiles reach anything from a tenth to the whole of their rate, depending on who shares the core.
//
// Blocks of 16 rows through tiles are timed against the kernels of 8 rows, at 16 rows and at 64
// (where unpacked weights serve four blocks), on 128 outputs that stay in the cache, in turns, and
// the median taken: about a millisecond. Both give the same bits, so a poor measurement costs time
// only and a model's output never depends on one.
// Thread rule: any thread; measures on the calling one, whose tiles it leaves configured.
// Tested by tests/kernels/int8_calibration_test.cc.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "kernels/cpu/kernel_table.h"

namespace fastgen::cpu {

// Billions of operations a second of one thread; a multiply-add counts as two.
struct Int8Rates {
  double tiles_16_rows = 0;
  double tiles_64_rows = 0;
  double vectors_16_rows = 0;
  double vectors_64_rows = 0;
};

// `now_ns` never goes back. REQUIRES: kernels has int8 tiles and blocks.
Int8Rates MeasureInt8(const MatMulKernels& kernels, int64_t (*now_ns)());
int64_t SteadyNanoseconds();

inline constexpr int64_t kNeverInt8Blocks = std::numeric_limits<int64_t>::max();

// What MatMul takes as its least number of rows: 9 to 16, 64 or kNeverInt8Blocks.
int64_t MinInt8BlockRows(const Int8Rates& rates);

// "int8 tiles 600, vectors 420 GOP/s a thread: tiles from 12 rows"
std::string DescribeInt8(const Int8Rates& rates);

}  // namespace fastgen::cpu
