// MatMul: cuts a product into panels x row tiles and hands them to a path's kernels.
//
// 1. Activations are converted once per call to the tiles that the kernels read (panel.h): int8
//    where the weights are integers, bf16 where they are bf16 and the path has the instruction,
//    e4m3 values with a scale per row where the weights are fp8 (held as bf16 or float: both hold
//    them exactly), float otherwise and always in fp32 mode.
// 2. Work is (block of rows) x (panel). A block of rows is as many tiles as stay in a core's L2, so
//    the weights of a panel are read from memory once per block. A thread's panels are contiguous.
// 3. Bias and residual are added as a panel's sums are written.
// A row's sums never depend on 1-3: a kernel adds in the same order for every number of rows.
// Thread rule: one thread calls Run.
// Tested by tests/kernels/matmul_test.cc.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/make_backend.h"
#include "kernels/tensor.h"

namespace fastgen::cpu {

class MatMul {
 public:
  MatMul(const MatMulKernels& kernels, ComputeDType compute_dtype, ThreadPool* pool)
      : kernels_(kernels), compute_dtype_(compute_dtype), pool_(pool) {}

  absl::Status Reserve(int64_t max_rows, int64_t max_cols);

  // As Backend::MatMul. REQUIRES: shapes were checked.
  void Run(const Tensor& x, const CpuPackedMatrix& w, const Tensor& bias, const Tensor& residual,
           const Tensor& out);

 private:
  struct Call;

  ActivationKind KindFor(PanelFormat format) const;
  // Whether activations of a kind lie in bf16 tiles.
  bool UsesBf16(ActivationKind kind) const;
  void Prepare(const Tensor& x, int64_t cols, ActivationKind kind);
  void RunSegments(const Call& call);
  void RunPanel(const Call& call, const PanelSegment& segment, int64_t panel, int64_t row_begin,
                int64_t row_end) const;

  const MatMulKernels& kernels_;
  const ComputeDType compute_dtype_;
  ThreadPool* const pool_;
  HostMemory tiles_;
  HostMemory fp8_rows_;  // [threads][kTileRows] rows that are being rounded
  int64_t fp8_row_bytes_ = 0;
  std::vector<float> fp8_scales_;  // [rows] of the activations
};

}  // namespace fastgen::cpu
