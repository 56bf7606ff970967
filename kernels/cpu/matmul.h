// MatMul: cuts a product into panels x row tiles and hands them to a path's kernels.
//
// 1. Activations are converted once per call to the tiles that the kernels read (panel.h): int8
//    where the weights are integers, bf16 where they are bf16 and the path has the instruction,
//    e4m3 values with a scale per row where the weights are fp8 (held as bf16 or float: both hold
//    them exactly), float otherwise and always in fp32 mode.
//    A path with tile instructions has kernels for blocks of 16 rows. Bf16 (and fp8) then always
//    go through them, filled up with rows of zeros, because they add in another order than any
//    other kernel. Int8 sums are the same bits either way, so whole blocks go through tiles where
//    that is faster (Int8BlockRows) and up to 15 rows remain for the kernels of 8 rows.
// 2. Work is (range of rows) x (panel, or two panels). A range of rows is as many as stay in a
//    core's L2, so the weights of a panel are read from memory once per range. A thread's panels
//    are contiguous.
// 3. Bias and residual are added as a panel's sums are written.
// A row's sums never depend on 1-3: a kernel adds in the same order for every number of rows.
// Thread rule: one thread calls Run.
// Tested by tests/kernels/matmul_test.cc, tests/kernels/amx_test.cc.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/make_backend.h"
#include "kernels/tensor.h"

namespace fastgen::cpu {

// From how many rows on int8 products go through tiles, unless it is measured
// (int8_calibration.h): 12 rows through two kernels of 8 take as long as a block of 16.
inline constexpr int64_t kMinInt8BlockRows = 12;

// Of `rows` rows, how many at the front go through blocks of 16: a multiple of 16, the last of them
// perhaps not full. Up to 8 rows never do.
int64_t Int8BlockRows(int64_t rows, int64_t min_rows);

class MatMul {
 public:
  MatMul(const MatMulKernels& kernels, ComputeDType compute_dtype, ThreadPool* pool,
         int64_t min_int8_block_rows = kMinInt8BlockRows)
      : kernels_(kernels),
        compute_dtype_(compute_dtype),
        pool_(pool),
        min_int8_block_rows_(min_int8_block_rows) {}

  absl::Status Reserve(int64_t max_rows, int64_t max_cols);

  // As Backend::MatMul. REQUIRES: shapes were checked.
  void Run(const Tensor& x, const CpuPackedMatrix& w, const Tensor& bias, const Tensor& residual,
           const Tensor& out);

 private:
  struct Layout;
  struct Call;
  struct Cut;

  ActivationKind KindFor(PanelFormat format, int64_t rows) const;
  // Whether activations of a kind lie in bf16 tiles or blocks.
  bool UsesBf16(ActivationKind kind) const;
  Layout LayoutOf(ActivationKind kind, int64_t rows, int64_t cols) const;
  void Prepare(const Tensor& x, const Layout& layout);
  // Rows [row, row + rows) as they are, or rounded to e4m3 in this thread's scratch; sets `stride`.
  const float* RowsOf(const Tensor& x, ActivationKind kind, int64_t row, int rows, int thread,
                      int64_t* stride);
  // Whether a segment wants the call's kind of activations.
  bool Wants(const Call& call, const PanelSegment& segment) const;
  Cut CutOf(const Call& call) const;
  void RunSegments(const Call& call);
  void RunRange(const Call& call, const PanelSegment& segment, int64_t panel, int num_panels,
                int64_t row_begin, int64_t row_end) const;
  void RunBlocks(const Call& call, const PanelSegment& segment, int64_t panel, int num_panels,
                 int64_t row_begin, int64_t row_end) const;
  void RunTiles(const Call& call, const PanelSegment& segment, int64_t panel, int64_t row_begin,
                int64_t row_end) const;
  void StoreSums(const Call& call, const PanelSegment& segment, int64_t panel, int64_t row,
                 int rows, float* sums) const;

  const MatMulKernels& kernels_;
  const ComputeDType compute_dtype_;
  ThreadPool* const pool_;
  const int64_t min_int8_block_rows_;
  HostMemory tiles_;
  HostMemory fp8_rows_;  // [threads][kBlockRows] rows that are being rounded
  int64_t fp8_row_bytes_ = 0;
  std::vector<float> fp8_scales_;  // [rows] of the activations
};

}  // namespace fastgen::cpu
