// MatMul: cuts a product into panels x row tiles and hands them to a path's kernels.
//
// 1. Activations are computed and converted once per call (activations.h).
// 2. Work is (range of rows) x (panel, or two panels). A range of rows is as many as stay in a
//    core's L2, so the weights of a panel are read from memory once per range. A thread's panels
//    are contiguous.
// 3. Bias and residual are added as a panel's sums are written.
// A row's sums never depend on 1-3: a kernel adds in the same order for every number of rows.
// Thread rule: one thread calls Run.
// Tested by tests/kernels/matmul_test.cc, tests/kernels/amx_test.cc.
#pragma once

#include "absl/status/status.h"
#include "kernels/cpu/activations.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/make_backend.h"
#include "kernels/tensor.h"

namespace fastgen::cpu {

class MatMul {
 public:
  MatMul(const MatMulKernels& kernels, const RowKernels& row_kernels, ComputeDType compute_dtype,
         ThreadPool* pool, int64_t min_int8_block_rows = kMinInt8BlockRows)
      : kernels_(kernels),
        pool_(pool),
        activations_(kernels, row_kernels, compute_dtype, pool, min_int8_block_rows) {}

  absl::Status Reserve(int64_t max_rows, int64_t max_cols) {
    return activations_.Reserve(max_rows, max_cols);
  }

  // As Backend::MatMul. REQUIRES: shapes were checked.
  void Run(const MatMulInput& input, const CpuPackedMatrix& w, const Tensor& bias,
           const Tensor& residual, const Tensor& out);

 private:
  struct Call;
  struct Cut;

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
  ThreadPool* const pool_;
  Activations activations_;
};

}  // namespace fastgen::cpu
