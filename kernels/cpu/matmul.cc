#include "kernels/cpu/matmul.h"

#include <algorithm>

#include "base/check.h"
#include "base/int_math.h"
#include "base/status_macros.h"

namespace fastgen::cpu {
namespace {

// Activations of a range of rows take at most half of a core's L2 (1 MB on Zen 4, 2 MB on Sapphire
// Rapids and all others that have tiles); the rest is for the panel.
constexpr int64_t kRangeBytes = 512 << 10;
constexpr int64_t kBlockRangeBytes = 1 << 20;

// Row blocks that one call of a kernel gets: enough to unpack their weights for, and 16 KB of sums
// with two panels.
constexpr int kMaxCallBlocks = 8;
constexpr int kMaxCallPanels = 2;

// Items that each thread should have at least, so that the last one does not idle the others long.
constexpr int kMinThreadItems = 4;

// A piece of work should take several times what taking it costs (0.1 us): 32 KB of weights are 2
// us at 15 GB/s, and every 8 rows on a panel take at least as long again.
constexpr int64_t kPieceBytes = 32 << 10;

// A lone tile of so many rows fetches its weights so far ahead: with fewer, the CPU has enough
// loads in flight by itself.
constexpr int kMinAheadRows = 3;
constexpr int64_t kAheadBytes = 8192;

// Multiplies the sums of e4m3 values by the scales of their outputs and, unless null, rows.
void ScaleFp8(const float* output_scales, const float* row_scales, int rows, float* sums) {
  for (int r = 0; r < rows; ++r, sums += kPanelOutputs) {
    const float row_scale = row_scales == nullptr ? 1 : row_scales[r];
    for (int n = 0; n < kPanelOutputs; ++n) sums[n] = sums[n] * row_scale * output_scales[n];
  }
}

}  // namespace

// One kind of activation against the segments that want it.
struct MatMul::Call {
  const Tensor& out;
  const float* bias;
  const float* residual;
  int64_t residual_stride;
  const CpuPackedMatrix& w;
  const Activations::Layout& layout;
};

// How a call is cut into items of work: a range of rows x one panel or several of a segment.
struct MatMul::Cut {
  int panels_per_item = 1;
  int64_t num_items = 0;  // for each range of rows
  int64_t range_rows = 0;
  int64_t grain = 1;

  int64_t ItemsOf(const PanelSegment& segment) const {
    return CeilDiv<int64_t>(segment.num_panels, panels_per_item);
  }
};

void MatMul::StoreSums(const Call& call, const PanelSegment& segment, int64_t panel, int64_t row,
                       int rows, float* sums) const {
  const int64_t column = segment.first_row + panel * kPanelOutputs;
  const int num_outputs =
      static_cast<int>(std::min<int64_t>(kPanelOutputs, segment.rows - panel * kPanelOutputs));
  if (segment.format == PanelFormat::kFp8) {
    ScaleFp8(segment.RowScales(panel, call.w.cols()), activations_.Fp8Scales(row), rows, sums);
  }
  kernels_.store(
      sums, rows, num_outputs, call.bias == nullptr ? nullptr : call.bias + column,
      call.residual == nullptr ? nullptr : call.residual + row * call.residual_stride + column,
      call.residual_stride, call.out.as<float>() + row * call.out.row_stride + column,
      call.out.row_stride);
}

void MatMul::RunBlocks(const Call& call, const PanelSegment& segment, int64_t panel, int num_panels,
                       int64_t row_begin, int64_t row_end) const {
  const BlockKernel kernel = IsIntegerFormat(segment.format)
                                 ? kernels_.blocks.int8[static_cast<int>(segment.format)]
                                 : kernels_.blocks.bf16;
  const uint8_t* weights = segment.panels + panel * segment.panel_bytes;
  alignas(64) float sums[kMaxCallPanels * kMaxCallBlocks * kBlockRows * kPanelOutputs];
  for (int64_t row = row_begin; row < row_end; row += kMaxCallBlocks * kBlockRows) {
    const int rows =
        static_cast<int>(std::min<int64_t>(kMaxCallBlocks * kBlockRows, row_end - row));
    const int num_blocks = CeilDiv(rows, kBlockRows);
    kernel(weights, segment.panel_bytes, num_panels, activations_.At(row), num_blocks,
           call.w.cols(), sums);
    for (int p = 0; p < num_panels; ++p) {
      StoreSums(call, segment, panel + p, row, rows,
                sums + p * num_blocks * kBlockRows * kPanelOutputs);
    }
  }
}

void MatMul::RunTiles(const Call& call, const PanelSegment& segment, int64_t panel,
                      int64_t row_begin, int64_t row_end) const {
  const ActivationKind kind = call.layout.kind;
  const int format = static_cast<int>(segment.format);
  const TileKernel* kernels = IsIntegerFormat(segment.format) && kind != ActivationKind::kFloat
                                  ? kernels_.int8_tile[format]
                              : activations_.UsesBf16(kind) ? kernels_.bf16_tile
                                                            : kernels_.float_tile[format];
  const uint8_t* weights = segment.panels + panel * segment.panel_bytes;
  alignas(64) float sums[kTileRows * kPanelOutputs];
  for (int64_t row = row_begin; row < row_end; row += kTileRows) {
    const int rows = static_cast<int>(std::min<int64_t>(kTileRows, row_end - row));
    // The first of several tiles fetches the next panel.
    int64_t ahead = 0;
    if (row == row_begin) {
      ahead = row_end - row > kTileRows ? segment.panel_bytes
              : rows >= kMinAheadRows   ? kAheadBytes
                                        : 0;
    }
    kernels[rows - 1](weights, ahead, activations_.At(row), call.w.cols(), sums);
    StoreSums(call, segment, panel, row, rows, sums);
  }
}

void MatMul::RunRange(const Call& call, const PanelSegment& segment, int64_t panel, int num_panels,
                      int64_t row_begin, int64_t row_end) const {
  const int64_t block_end = std::min(row_end, call.layout.block_rows);
  if (row_begin < block_end) {
    RunBlocks(call, segment, panel, num_panels, row_begin, block_end);
    row_begin = block_end;
  }
  for (int p = 0; p < num_panels; ++p) {
    RunTiles(call, segment, panel + p, row_begin, row_end);
  }
}

bool MatMul::Wants(const Call& call, const PanelSegment& segment) const {
  return activations_.KindFor(segment.format, call.layout.rows) == call.layout.kind;
}

MatMul::Cut MatMul::CutOf(const Call& call) const {
  const Activations::Layout& layout = call.layout;
  int64_t num_panels = 0;
  int64_t bytes = 0;
  for (const PanelSegment& segment : call.w.segments()) {
    if (!Wants(call, segment)) continue;
    num_panels += segment.num_panels;
    bytes += segment.num_panels * segment.panel_bytes;
  }
  Cut cut;
  const bool has_blocks = layout.block_rows > 0;
  // Two panels share the tiles of activations of bf16; not where threads would have too few items.
  if (has_blocks && activations_.UsesBf16(layout.kind) && layout.rows > kBlockRows &&
      num_panels >= int64_t{kMaxCallPanels} * kMinThreadItems * pool_->num_threads()) {
    cut.panels_per_item = kMaxCallPanels;
  }
  for (const PanelSegment& segment : call.w.segments()) {
    if (Wants(call, segment)) cut.num_items += cut.ItemsOf(segment);
  }
  const int unit = has_blocks ? kBlockRows : kTileRows;
  const int64_t row_bytes = has_blocks ? layout.block_row_bytes : layout.tile_row_bytes;
  const int64_t range_bytes = has_blocks ? kBlockRangeBytes : kRangeBytes;
  cut.range_rows = std::max<int64_t>(unit, range_bytes / row_bytes / unit * unit);
  const int64_t units_per_range = CeilDiv<int64_t>(std::min(layout.rows, cut.range_rows), unit);
  cut.grain = std::max<int64_t>(
      1, kPieceBytes * num_panels / bytes / units_per_range / cut.panels_per_item);
  return cut;
}

void MatMul::RunSegments(const Call& call) {
  const Cut cut = CutOf(call);
  const int64_t num_rows = call.layout.rows;
  const int64_t num_ranges = CeilDiv(num_rows, cut.range_rows);
  pool_->ParallelFor(num_ranges * cut.num_items, cut.grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row_begin = i / cut.num_items * cut.range_rows;
      const int64_t row_end = std::min(num_rows, row_begin + cut.range_rows);
      int64_t item = i % cut.num_items;
      for (const PanelSegment& segment : call.w.segments()) {
        if (!Wants(call, segment)) continue;
        if (item < cut.ItemsOf(segment)) {
          const int64_t panel = item * cut.panels_per_item;
          const int count =
              static_cast<int>(std::min<int64_t>(cut.panels_per_item, segment.num_panels - panel));
          RunRange(call, segment, panel, count, row_begin, row_end);
          break;
        }
        item -= cut.ItemsOf(segment);
      }
    }
  });
}

void MatMul::Run(const MatMulInput& input, const CpuPackedMatrix& w, const Tensor& bias,
                 const Tensor& residual, const Tensor& out) {
  if (input.rows() == 0) return;
  for (ActivationKind kind :
       {ActivationKind::kFloat, ActivationKind::kBf16, ActivationKind::kInt8, ActivationKind::kFp8,
        ActivationKind::kBf16Blocks, ActivationKind::kInt8Blocks}) {
    const auto wants = [&](const PanelSegment& segment) {
      return activations_.KindFor(segment.format, input.rows()) == kind;
    };
    if (std::none_of(w.segments().begin(), w.segments().end(), wants)) continue;
    activations_.Prepare(input, kind);
    RunSegments({out, static_cast<const float*>(bias.data),
                 static_cast<const float*>(residual.data), residual.row_stride, w,
                 activations_.layout()});
  }
}

}  // namespace fastgen::cpu
