#include "kernels/cpu/int8_calibration.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace fastgen::cpu {
namespace {

constexpr PanelFormat kFormat = PanelFormat::kQ4_0;  // the fewest bits and instructions to unpack
constexpr int kNumPanels = 8;
constexpr int64_t kCols = 512;
constexpr int kMaxRows = 64;
constexpr int kNumSamples = 15;
constexpr int kNumWarmUps = 2;

struct alignas(64) Line {
  uint8_t bytes[64] = {};
};

// Weights, activations and sums of the products that are timed.
struct Operands {
  Operands()
      : panels(kNumPanels * panel_bytes / sizeof(Line)),
        x(kMaxRows * ActivationRowBytes(ActivationKind::kInt8, kCols) / sizeof(Line)),
        sums(kMaxRows * kPanelOutputs * sizeof(float) / sizeof(Line)) {
    static_assert(panel_bytes % sizeof(Line) == 0);
    // Any bits multiply alike, but for scales that are denormal or NaN: every half and every float
    // of four equal bytes 0x3c is about 1.
    for (Line& line : panels) std::memset(line.bytes, 0x3c, sizeof(line.bytes));
    for (Line& line : x) std::memset(line.bytes, 0x3c, sizeof(line.bytes));
  }

  static constexpr int64_t panel_bytes = PanelBytes(kFormat, kCols);
  std::vector<Line> panels;
  std::vector<Line> x;
  std::vector<Line> sums;
};

void MultiplyByTiles(const MatMulKernels& kernels, int rows, Operands* operands) {
  const BlockKernel kernel = kernels.blocks.int8[static_cast<int>(kFormat)];
  for (int panel = 0; panel < kNumPanels; ++panel) {
    kernel(operands->panels[0].bytes + panel * Operands::panel_bytes, Operands::panel_bytes, 1,
           operands->x.data(), rows / kBlockRows, kCols,
           reinterpret_cast<float*>(operands->sums.data()));
  }
}

void MultiplyByVectors(const MatMulKernels& kernels, int rows, Operands* operands) {
  const TileKernel kernel = kernels.int8_tile[static_cast<int>(kFormat)][kTileRows - 1];
  const int64_t tile_bytes = kTileRows * ActivationRowBytes(ActivationKind::kInt8, kCols);
  for (int panel = 0; panel < kNumPanels; ++panel) {
    for (int tile = 0; tile < rows / kTileRows; ++tile) {
      kernel(operands->panels[0].bytes + panel * Operands::panel_bytes, 0,
             operands->x[0].bytes + tile * tile_bytes, kCols,
             reinterpret_cast<float*>(operands->sums.data()));
    }
  }
}

double Rate(int rows, std::vector<int64_t> nanoseconds) {
  const auto median = nanoseconds.begin() + nanoseconds.size() / 2;
  std::nth_element(nanoseconds.begin(), median, nanoseconds.end());
  return 2.0 * rows * kNumPanels * kPanelOutputs * kCols /
         static_cast<double>(std::max<int64_t>(1, *median));
}

}  // namespace

int64_t SteadyNanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Int8Rates MeasureInt8(const MatMulKernels& kernels, int64_t (*now_ns)()) {
  CHECK(kernels.blocks.int8[static_cast<int>(kFormat)] != nullptr);
  struct Kind {
    void (*multiply)(const MatMulKernels&, int rows, Operands*);
    int rows;
    std::vector<int64_t> nanoseconds;
  };
  Kind kinds[] = {{MultiplyByTiles, 16, {}},
                  {MultiplyByTiles, 64, {}},
                  {MultiplyByVectors, 16, {}},
                  {MultiplyByVectors, 64, {}}};
  Operands operands;
  for (int sample = -kNumWarmUps; sample < kNumSamples; ++sample) {
    for (Kind& kind : kinds) {
      const int64_t start = now_ns();
      kind.multiply(kernels, kind.rows, &operands);
      const int64_t end = now_ns();
      if (sample >= 0) kind.nanoseconds.push_back(end - start);
    }
  }
  return {Rate(16, kinds[0].nanoseconds), Rate(64, kinds[1].nanoseconds),
          Rate(16, kinds[2].nanoseconds), Rate(64, kinds[3].nanoseconds)};
}

int64_t MinInt8BlockRows(const Int8Rates& rates) {
  // A block takes the same time whether it is full, vectors a time in proportion to the rows.
  const double rows = std::ceil(kBlockRows * rates.vectors_16_rows / rates.tiles_16_rows);
  if (rows <= kBlockRows) return std::max<int64_t>(kTileRows + 1, static_cast<int64_t>(rows));
  return rates.tiles_64_rows > rates.vectors_64_rows ? 64 : kNeverInt8Blocks;
}

std::string DescribeInt8(const Int8Rates& rates) {
  const int64_t rows = MinInt8BlockRows(rates);
  return absl::StrCat(
      "int8 tiles ", std::lround(rates.tiles_64_rows), ", vectors ",
      std::lround(rates.vectors_64_rows), " GOP/s a thread: ",
      rows == kNeverInt8Blocks ? "no tiles" : absl::StrCat("tiles from ", rows, " rows"));
}

}  // namespace fastgen::cpu
