#include "kernels/cpu/matmul.h"

#include <algorithm>

#include "base/check.h"
#include "base/int_math.h"
#include "base/status_macros.h"

namespace fastgen::cpu {
namespace {

// Activations of a block of rows take at most half of a core's L2 (1 MB on Zen 4, 2 MB on Sapphire
// Rapids); the rest is for the panel.
constexpr int64_t kRowBlockBytes = 512 << 10;

// A piece of work should take several times what taking it costs (0.1 us): 32 KB of weights are 2
// us at 15 GB/s, and every 8 rows on a panel take at least as long again.
constexpr int64_t kPieceBytes = 32 << 10;

// Below this many values, converting on the calling thread beats waking the others.
constexpr int64_t kMinParallelValues = 16 << 10;

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
  ActivationKind kind;
  int64_t rows;
  int64_t row_bytes;
};

absl::Status MatMul::Reserve(int64_t max_rows, int64_t max_cols) {
  // Float tiles are the largest.
  const int64_t bytes = max_rows * ActivationRowBytes(ActivationKind::kFloat, max_cols);
  ASSIGN_OR_RETURN(tiles_, HostMemory::Allocate(bytes));
  fp8_row_bytes_ = max_cols * static_cast<int64_t>(sizeof(float));
  ASSIGN_OR_RETURN(fp8_rows_,
                   HostMemory::Allocate(pool_->num_threads() * kTileRows * fp8_row_bytes_));
  fp8_scales_.resize(max_rows);
  return absl::OkStatus();
}

ActivationKind MatMul::KindFor(PanelFormat format) const {
  if (compute_dtype_ == ComputeDType::kF32) return ActivationKind::kFloat;
  if (IsIntegerFormat(format)) return ActivationKind::kInt8;
  if (format == PanelFormat::kFp8) return ActivationKind::kFp8;
  if (format == PanelFormat::kBF16 && kernels_.prepare_bf16 != nullptr)
    return ActivationKind::kBf16;
  return ActivationKind::kFloat;
}

bool MatMul::UsesBf16(ActivationKind kind) const {
  return kind == ActivationKind::kBf16 ||
         (kind == ActivationKind::kFp8 && kernels_.prepare_bf16 != nullptr);
}

void MatMul::Prepare(const Tensor& x, int64_t cols, ActivationKind kind) {
  const PrepareKernel prepare = kind == ActivationKind::kInt8 ? kernels_.prepare_int8
                                : UsesBf16(kind)              ? kernels_.prepare_bf16
                                                              : kernels_.prepare_float;
  const int64_t row_bytes = ActivationRowBytes(kind, cols);
  CHECK_LE(static_cast<size_t>(x.rows() * row_bytes), tiles_.bytes()) << "Reserve() was given less";
  const int64_t num_tiles = CeilDiv<int64_t>(x.rows(), kTileRows);
  const int64_t grain = x.num_elements() < kMinParallelValues ? num_tiles : 1;
  pool_->ParallelFor(num_tiles, grain, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tile * kTileRows;
      const int rows = static_cast<int>(std::min<int64_t>(kTileRows, x.rows() - row));
      const float* from = x.as<float>() + row * x.row_stride;
      int64_t stride = x.row_stride;
      if (kind == ActivationKind::kFp8) {
        float* rounded = reinterpret_cast<float*>(fp8_rows_.data() +
                                                  thread * kTileRows * fp8_row_bytes_);
        for (int r = 0; r < rows; ++r) {
          fp8_scales_[row + r] = kernels_.quantize_fp8(from + r * stride, cols, rounded + r * cols);
        }
        from = rounded;
        stride = cols;
      }
      prepare(from, stride, rows, cols, tiles_.data() + row * row_bytes);
    }
  });
}

void MatMul::RunPanel(const Call& call, const PanelSegment& segment, int64_t panel,
                      int64_t row_begin, int64_t row_end) const {
  const auto* kernels =
      call.kind == ActivationKind::kInt8 ? kernels_.int8_tile[static_cast<int>(segment.format)]
      : UsesBf16(call.kind)              ? kernels_.bf16_tile
                                         : kernels_.float_tile[static_cast<int>(segment.format)];
  const int64_t column = segment.first_row + panel * kPanelOutputs;
  const int num_outputs =
      static_cast<int>(std::min<int64_t>(kPanelOutputs, segment.rows - panel * kPanelOutputs));
  const uint8_t* weights = segment.panels + panel * segment.panel_bytes;
  alignas(64) float sums[kTileRows * kPanelOutputs];
  for (int64_t row = row_begin; row < row_end; row += kTileRows) {
    const int rows = static_cast<int>(std::min<int64_t>(kTileRows, row_end - row));
    kernels[rows - 1](weights, tiles_.data() + row * call.row_bytes, call.w.cols(), sums);
    if (segment.format == PanelFormat::kFp8) {
      ScaleFp8(segment.RowScales(panel, call.w.cols()),
               call.kind == ActivationKind::kFp8 ? &fp8_scales_[row] : nullptr, rows, sums);
    }
    kernels_.store(
        sums, rows, num_outputs, call.bias == nullptr ? nullptr : call.bias + column,
        call.residual == nullptr ? nullptr : call.residual + row * call.residual_stride + column,
        call.residual_stride, call.out.as<float>() + row * call.out.row_stride + column,
        call.out.row_stride);
  }
}

void MatMul::RunSegments(const Call& call) {
  const auto& segments = call.w.segments();
  int64_t num_panels = 0;
  int64_t bytes = 0;
  for (const PanelSegment& segment : segments) {
    if (KindFor(segment.format) != call.kind) continue;
    num_panels += segment.num_panels;
    bytes += segment.num_panels * segment.panel_bytes;
  }
  const int64_t block_rows =
      std::max<int64_t>(kTileRows, kRowBlockBytes / call.row_bytes / kTileRows * kTileRows);
  const int64_t num_blocks = CeilDiv(call.rows, block_rows);
  const int64_t tiles_per_block = CeilDiv<int64_t>(std::min(call.rows, block_rows), kTileRows);
  const int64_t grain = std::max<int64_t>(1, kPieceBytes * num_panels / bytes / tiles_per_block);
  pool_->ParallelFor(num_blocks * num_panels, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row_begin = item / num_panels * block_rows;
      const int64_t row_end = std::min(call.rows, row_begin + block_rows);
      int64_t panel = item % num_panels;
      for (const PanelSegment& segment : segments) {
        if (KindFor(segment.format) != call.kind) continue;
        if (panel < segment.num_panels) {
          RunPanel(call, segment, panel, row_begin, row_end);
          break;
        }
        panel -= segment.num_panels;
      }
    }
  });
}

void MatMul::Run(const Tensor& x, const CpuPackedMatrix& w, const Tensor& bias,
                 const Tensor& residual, const Tensor& out) {
  if (x.rows() == 0) return;
  for (ActivationKind kind :
       {ActivationKind::kFloat, ActivationKind::kBf16, ActivationKind::kInt8,
        ActivationKind::kFp8}) {
    const auto wants = [&](const PanelSegment& segment) { return KindFor(segment.format) == kind; };
    if (std::none_of(w.segments().begin(), w.segments().end(), wants)) continue;
    Prepare(x, w.cols(), kind);
    RunSegments({out, static_cast<const float*>(bias.data),
                 static_cast<const float*>(residual.data), residual.row_stride, w, kind, x.rows(),
                 ActivationRowBytes(kind, w.cols())});
  }
}

}  // namespace fastgen::cpu
