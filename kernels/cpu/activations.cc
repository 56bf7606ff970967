#include "kernels/cpu/activations.h"

#include "base/check.h"
#include "base/status_macros.h"

namespace fastgen::cpu {
namespace {

// Below this many values, converting on the calling thread beats waking the others.
constexpr int64_t kMinParallelValues = 16 << 10;

// SiLU takes several times what a norm or a conversion takes.
constexpr int64_t kSiluCost = 4;

// Values that are computed before they are converted: 16 KB, half of L1.
constexpr int64_t kChunkValues = 4096;

// Columns are cut at multiples of this: eight groups, which a lone row's kernel takes at once.
constexpr int64_t kCutCols = 8 * kGroup;

// Units that each thread should have; with fewer, columns are cut as well.
constexpr int64_t kMinThreadUnits = 2;

int64_t ChunkCols(int rows) {
  return std::max<int64_t>(kCutCols, kChunkValues / rows / kCutCols * kCutCols);
}

}  // namespace

int64_t Int8BlockRows(int64_t rows, int64_t min_rows) {
  if (rows < min_rows || rows <= kTileRows) return 0;
  const int64_t rest = rows % kBlockRows;
  const bool fills_block = rest > kTileRows && rest >= min_rows;
  return rows - rest + (fills_block ? kBlockRows : 0);
}

absl::Status Activations::Reserve(int64_t max_rows, int64_t max_cols) {
  // Float tiles are the largest but for the rows and columns that fill up blocks.
  const bool has_blocks = kernels_.blocks.bf16 != nullptr;
  const int64_t rows = has_blocks ? RoundUp<int64_t>(max_rows, kBlockRows) : max_rows;
  const int64_t cols = has_blocks ? RoundUp<int64_t>(max_cols, kGroup) : max_cols;
  const int64_t bytes = rows * ActivationRowBytes(ActivationKind::kFloat, cols);
  ASSIGN_OR_RETURN(tiles_, HostMemory::Allocate(bytes));
  // A scale of e4m3 needs all of a row.
  scratch_bytes_ = kBlockRows * std::max(max_cols, kCutCols) * static_cast<int64_t>(sizeof(float));
  ASSIGN_OR_RETURN(scratch_, HostMemory::Allocate(pool_->num_threads() * scratch_bytes_));
  fp8_scales_.resize(max_rows);
  return absl::OkStatus();
}

ActivationKind Activations::KindFor(PanelFormat format, int64_t rows) const {
  if (compute_dtype_ == ComputeDType::kF32) return ActivationKind::kFloat;
  if (IsIntegerFormat(format)) {
    const bool uses_blocks = kernels_.blocks.int8[static_cast<int>(format)] != nullptr &&
                             Int8BlockRows(rows, min_int8_block_rows_) > 0;
    return uses_blocks ? ActivationKind::kInt8Blocks : ActivationKind::kInt8;
  }
  if (format == PanelFormat::kFp8) return ActivationKind::kFp8;
  if (format == PanelFormat::kBF16 && kernels_.blocks.bf16 != nullptr)
    return ActivationKind::kBf16Blocks;
  if (format == PanelFormat::kBF16 && kernels_.prepare_bf16 != nullptr)
    return ActivationKind::kBf16;
  return ActivationKind::kFloat;
}

bool Activations::UsesBf16(ActivationKind kind) const {
  return kind == ActivationKind::kBf16 || kind == ActivationKind::kBf16Blocks ||
         (kind == ActivationKind::kFp8 &&
          (kernels_.prepare_bf16 != nullptr || kernels_.blocks.bf16 != nullptr));
}

Activations::Layout Activations::LayoutOf(ActivationKind kind, int64_t rows, int64_t cols) const {
  Layout layout;
  layout.kind = kind;
  layout.rows = rows;
  layout.cols = cols;
  layout.tile_kind = kind;
  if (kind == ActivationKind::kInt8Blocks) {
    layout.block_kind = kind;
    layout.tile_kind = ActivationKind::kInt8;
    layout.block_rows = Int8BlockRows(rows, min_int8_block_rows_);
  } else if (UsesBf16(kind) && kernels_.blocks.bf16 != nullptr) {
    layout.block_rows = RoundUp<int64_t>(rows, kBlockRows);
  }
  layout.block_row_bytes = ActivationRowBytes(layout.block_kind, cols);
  layout.tile_row_bytes = ActivationRowBytes(layout.tile_kind, cols);
  CHECK_LE(static_cast<size_t>(layout.bytes()), tiles_.bytes()) << "Reserve() was given less";
  return layout;
}

PrepareKernel Activations::KernelFor(bool is_block) const {
  const bool is_int8 =
      layout_.kind == ActivationKind::kInt8 || layout_.kind == ActivationKind::kInt8Blocks;
  if (is_block) return is_int8 ? kernels_.blocks.prepare_int8 : kernels_.blocks.prepare_bf16;
  return is_int8                  ? kernels_.prepare_int8
         : UsesBf16(layout_.kind) ? kernels_.prepare_bf16
                                  : kernels_.prepare_float;
}

void Activations::Prepare(const MatMulInput& input, ActivationKind kind) {
  layout_ = LayoutOf(kind, input.rows(), input.cols());
  const int64_t cols = layout_.cols;
  const int64_t num_units = layout_.num_units();
  const int64_t cost = input.op == MatMulInput::Op::kSiluMul ? kSiluCost : 1;
  const bool is_parallel = layout_.rows * cols * cost >= kMinParallelValues;
  // A norm's statistics are computed once for each range of columns, a scale of e4m3 needs them
  // all.
  int64_t range_cols = cols;
  if (is_parallel && kind != ActivationKind::kFp8) {
    const int64_t num_ranges = CeilDiv(kMinThreadUnits * pool_->num_threads(), num_units);
    range_cols = RoundUp(CeilDiv(cols, num_ranges), kCutCols);
  }
  const int64_t num_ranges = CeilDiv(cols, range_cols);
  const int64_t num_items = num_units * num_ranges;
  pool_->ParallelFor(
      num_items, is_parallel ? 1 : num_items, [&](int64_t first, int64_t last, int thread) {
        for (int64_t item = first; item < last; ++item) {
          const int64_t begin = item % num_ranges * range_cols;
          PrepareUnit(input, item / num_ranges, begin, std::min(cols, begin + range_cols), thread);
        }
      });
}

void Activations::PrepareUnit(const MatMulInput& input, int64_t unit, int64_t begin, int64_t end,
                              int thread) {
  const bool is_block = unit < layout_.num_blocks();
  const int64_t row =
      is_block ? unit * kBlockRows : layout_.block_rows + (unit - layout_.num_blocks()) * kTileRows;
  const int rows =
      static_cast<int>(std::min<int64_t>(is_block ? kBlockRows : kTileRows, layout_.rows - row));
  const ActivationKind kind = is_block ? layout_.block_kind : layout_.tile_kind;
  const auto destination = [&](int64_t col) {
    return tiles_.data() + layout_.OffsetOf(row) +
           (is_block ? kBlockRows : rows) * ActivationRowBytes(kind, col);
  };
  const PrepareKernel prepare = KernelFor(is_block);
  const float* x = input.x.as<float>() + row * input.x.row_stride;
  const bool is_fp8 = layout_.kind == ActivationKind::kFp8;
  if (input.op == MatMulInput::Op::kNone && !is_fp8) {
    prepare(x + begin, input.x.row_stride, rows, end - begin, destination(begin));
    return;
  }

  float inverse_rms[kBlockRows] = {};
  if (input.op == MatMulInput::Op::kRmsNorm) {
    for (int r = 0; r < rows; ++r) {
      inverse_rms[r] =
          row_kernels_.inverse_rms(x + r * input.x.row_stride, layout_.cols, input.eps);
    }
  }
  float* const computed = reinterpret_cast<float*>(scratch_.data() + thread * scratch_bytes_);
  const int64_t chunk_cols = is_fp8 ? layout_.cols : ChunkCols(rows);
  for (int64_t k = begin; k < end; k += chunk_cols) {
    const int64_t count = std::min(chunk_cols, end - k);
    for (int r = 0; r < rows; ++r) {
      float* const out = computed + r * count;
      ComputeRow(input, row + r, k, k + count, inverse_rms[r], out);
      if (is_fp8) fp8_scales_[row + r] = kernels_.quantize_fp8(out, count, out);
    }
    prepare(computed, count, rows, count, destination(k));
  }
}

void Activations::ComputeRow(const MatMulInput& input, int64_t row, int64_t begin, int64_t end,
                             float inverse_rms, float* out) const {
  const float* x = input.x.as<float>() + row * input.x.row_stride + begin;
  switch (input.op) {
    case MatMulInput::Op::kNone:
      std::copy(x, x + (end - begin), out);
      break;
    case MatMulInput::Op::kRmsNorm:
      row_kernels_.scale(x, inverse_rms, input.weight.as<float>() + begin, end - begin, out);
      break;
    case MatMulInput::Op::kSiluMul:
      row_kernels_.silu_mul(x, x + layout_.cols, end - begin, out);
      break;
  }
}

}  // namespace fastgen::cpu
