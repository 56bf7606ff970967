// Activations: the rows of a product in the form that its kernels read (panel.h).
//
// int8 where the weights are integers, bf16 where they are bf16 and the path has the instruction,
// e4m3 values with a scale per row where the weights are fp8 (held as bf16 or float: both hold them
// exactly), float otherwise and always in fp32 mode.
// A path with tile instructions has kernels for blocks of 16 rows. Bf16 (and fp8) then always go
// through them, filled up with rows of zeros, because they add in another order than any other
// kernel. Int8 sums are the same bits either way, so whole blocks go through tiles where that is
// faster (Int8BlockRows) and up to 15 rows remain for the kernels of 8 rows.
// What the input's op (norm, SiLU) makes of a row is computed some columns at a time, as many as
// stay in L1 until they are converted. A row's bits depend on nothing but the row.
// Thread rule: one thread calls Prepare; then any number read.
// Tested by tests/kernels/matmul_test.cc, tests/kernels/product_input_test.cc,
// tests/kernels/amx_test.cc.
#pragma once

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "base/int_math.h"
#include "kernels/backend.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/make_backend.h"

namespace fastgen::cpu {

// From how many rows on int8 products go through tiles, unless it is measured
// (int8_calibration.h): 12 rows through two kernels of 8 take as long as a block of 16.
inline constexpr int64_t kMinInt8BlockRows = 12;

// Of `rows` rows, how many at the front go through blocks of 16: a multiple of 16, the last of them
// perhaps not full. Up to 8 rows never do.
int64_t Int8BlockRows(int64_t rows, int64_t min_rows);

class Activations {
 public:
  // Where a kind's rows lie: rows before block_rows in blocks of 16, the others in tiles of 8.
  struct Layout {
    ActivationKind kind = ActivationKind::kFloat;
    int64_t rows = 0;
    int64_t cols = 0;
    ActivationKind block_kind = ActivationKind::kBf16Blocks;
    ActivationKind tile_kind = ActivationKind::kFloat;
    int64_t block_rows = 0;  // a multiple of 16; may exceed rows by up to 15
    int64_t block_row_bytes = 0;
    int64_t tile_row_bytes = 0;

    int64_t OffsetOf(int64_t row) const {
      return std::min(row, block_rows) * block_row_bytes +
             std::max<int64_t>(0, row - block_rows) * tile_row_bytes;
    }
    int64_t bytes() const { return OffsetOf(std::max(rows, block_rows)); }
    int64_t num_blocks() const { return block_rows / kBlockRows; }
    int64_t num_tiles() const {
      return CeilDiv<int64_t>(std::max<int64_t>(0, rows - block_rows), kTileRows);
    }
    int64_t num_units() const { return num_blocks() + num_tiles(); }
  };

  Activations(const MatMulKernels& kernels, const RowKernels& row_kernels,
              ComputeDType compute_dtype, ThreadPool* pool, int64_t min_int8_block_rows)
      : kernels_(kernels),
        row_kernels_(row_kernels),
        compute_dtype_(compute_dtype),
        pool_(pool),
        min_int8_block_rows_(min_int8_block_rows) {}

  absl::Status Reserve(int64_t max_rows, int64_t max_cols);

  // The kind in which weights of a format want `rows` rows.
  ActivationKind KindFor(PanelFormat format, int64_t rows) const;
  // Whether activations of a kind lie in bf16 tiles or blocks.
  bool UsesBf16(ActivationKind kind) const;

  // Computes and converts all rows. REQUIRES: no more than Reserve was told.
  void Prepare(const MatMulInput& input, ActivationKind kind);

  // Of the last Prepare.
  const Layout& layout() const { return layout_; }
  // The block or tile that starts with `row`.
  const uint8_t* At(int64_t row) const { return tiles_.data() + layout_.OffsetOf(row); }
  // [rows] what multiplies a row of e4m3 values, from `row` on; null for other kinds.
  const float* Fp8Scales(int64_t row) const {
    return layout_.kind == ActivationKind::kFp8 ? &fp8_scales_[row] : nullptr;
  }

 private:
  Layout LayoutOf(ActivationKind kind, int64_t rows, int64_t cols) const;
  // Columns [begin, end) of one block or tile.
  void PrepareUnit(const MatMulInput& input, int64_t unit, int64_t begin, int64_t end, int thread);
  // Columns [begin, end) of `row` as the op makes them. inverse_rms: of that row.
  void ComputeRow(const MatMulInput& input, int64_t row, int64_t begin, int64_t end,
                  float inverse_rms, float* out) const;
  PrepareKernel KernelFor(bool is_block) const;

  const MatMulKernels& kernels_;
  const RowKernels& row_kernels_;
  const ComputeDType compute_dtype_;
  ThreadPool* const pool_;
  const int64_t min_int8_block_rows_;
  Layout layout_;
  HostMemory tiles_;
  HostMemory scratch_;  // [threads] rows that are being computed
  int64_t scratch_bytes_ = 0;
  std::vector<float> fp8_scales_;  // [rows]
};

}  // namespace fastgen::cpu
