#include "kernels/cpu/int8_calibration.h"

#include "kernels/cpu/matmul.h"
#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/emulated_amx.h"
#include "tests/testing/skip.h"

namespace fastgen::testing {
namespace {

using cpu::Int8Rates;
using cpu::MatMulKernels;
using cpu::MinInt8BlockRows;

// A clock that only the kernels below advance.
int64_t now_ns = 0;
int64_t block_ns = 0;
int64_t tile_ns = 0;
int64_t num_blocks_run = 0;

MatMulKernels ClockedKernels() {
  MatMulKernels kernels;
  for (auto& tiles : kernels.int8_tile) {
    for (cpu::TileKernel& kernel : tiles) {
      kernel = [](const uint8_t*, int64_t, const void*, int64_t, float*) { now_ns += tile_ns; };
    }
  }
  for (cpu::BlockKernel& kernel : kernels.blocks.int8) {
    kernel = [](const uint8_t*, int64_t, int num_panels, const void*, int num_blocks, int64_t,
                float*) {
      now_ns += block_ns * num_panels * num_blocks;
      num_blocks_run += num_blocks;
      // Now and then the core is somebody else's.
      if (num_blocks_run % 37 == 0) now_ns += 1000000;
    };
  }
  return kernels;
}

Int8Rates Measure(int64_t block, int64_t tile) {
  now_ns = num_blocks_run = 0;
  block_ns = block;
  tile_ns = tile;
  return cpu::MeasureInt8(ClockedKernels(), [] { return now_ns; });
}

TEST_CASE("the faster of tiles and vectors is chosen by their measured times", "[kernels]") {
  // A block of 16 against a tile of 8: as long as 12, 8, 16 and 17 rows take.
  CHECK(MinInt8BlockRows(Measure(1500, 1000)) == 12);
  CHECK(MinInt8BlockRows(Measure(1000, 1000)) == 9);
  CHECK(MinInt8BlockRows(Measure(100, 1000)) == 9);
  CHECK(MinInt8BlockRows(Measure(2000, 1000)) == 16);
  CHECK(MinInt8BlockRows(Measure(2125, 1000)) == cpu::kNeverInt8Blocks);
}

TEST_CASE("a rate is the median of undisturbed and disturbed samples", "[kernels]") {
  // 16 rows x 16 outputs x 512 k, two operations each.
  const Int8Rates rates = Measure(1000, 1000);
  CHECK(rates.tiles_16_rows == Approx(2 * 16 * 16 * 512 / 1000.0));
  CHECK(rates.vectors_16_rows == Approx(8 * 16 * 512 * 2 / 1000.0));
  CHECK(rates.vectors_64_rows == rates.vectors_16_rows);
}

TEST_CASE("tiles that gain only from several blocks start at 64 rows", "[kernels]") {
  const Int8Rates rates = {300, 500, 400, 400};
  CHECK(MinInt8BlockRows(rates) == 64);
  CHECK(cpu::DescribeInt8(rates) ==
        "int8 tiles 500, vectors 400 GOP/s a thread: tiles from 64 rows");
  CHECK(cpu::DescribeInt8({300, 350, 400, 400}) ==
        "int8 tiles 350, vectors 400 GOP/s a thread: no tiles");
  CHECK(cpu::Int8BlockRows(4096, MinInt8BlockRows({300, 350, 400, 400})) == 0);
}

TEST_CASE("a clock that stands still chooses something", "[kernels]") {
  CHECK(MinInt8BlockRows(Measure(0, 0)) >= 9);
}

TEST_CASE("the kernels themselves can be measured", "[kernels]") {
  if (!cpu::HasIsa(cpu::Isa::kAvx512Bf16)) {
    SkipCase("the kernels around the emulated tiles need AVX-512 with BF16");
    return;
  }
  MatMulKernels kernels;
  FillMatMulAmxEmulated(&kernels);
  const Int8Rates rates = cpu::MeasureInt8(kernels, cpu::SteadyNanoseconds);
  CHECK(rates.vectors_64_rows > 0);
  CHECK(rates.tiles_64_rows > 0);
  CHECK(rates.tiles_64_rows < rates.vectors_64_rows);  // emulated: a hundred times slower
}

}  // namespace
}  // namespace fastgen::testing
