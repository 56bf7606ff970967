// CpuPackedMatrix: weight rows rearranged into panels (panel.h), one segment per source matrix.
//
// Segments exist because stacked matrices (q | k | v) may differ in precision. Each starts a fresh
// panel; rows beyond the segment's last are zeros. All panels lie in one piece of memory. A part
// that asks for another form is rounded to it row by row, with one row of floats per thread as its
// only copy.
// Thread rule: immutable after Pack; any thread reads.
// Tested by tests/kernels/matmul_test.cc, dequantize_test.cc, convert_test.cc, row_ops_test.cc.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/thread_pool.h"

namespace fastgen::cpu {

struct PanelSegment {
  PanelFormat format = PanelFormat::kF32;
  int64_t first_row = 0;  // in the matrix
  int64_t rows = 0;
  int64_t num_panels = 0;
  int64_t panel_bytes = 0;
  const uint8_t* panels = nullptr;  // [num_panels][panel_bytes]

  // The scales of a panel's 16 outputs. REQUIRES: kFp8.
  const float* RowScales(int64_t panel, int64_t cols) const {
    return reinterpret_cast<const float*>(panels + panel * panel_bytes +
                                          PanelBytes(PanelFormat::kBF16, cols));
  }
};

class CpuPackedMatrix final : public PackedMatrix {
 public:
  // INVALID_ARGUMENT for a dtype without a kernel or for rows that the form cannot hold,
  // RESOURCE_EXHAUSTED without the memory.
  static absl::StatusOr<std::unique_ptr<CpuPackedMatrix>> Pack(absl::Span<const MatrixSource> parts,
                                                               HostArena* arena, ThreadPool* pool);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  size_t bytes() const override { return bytes_; }
  const std::vector<PanelSegment>& segments() const { return segments_; }

  // Writes row `row` to out[0, cols()).
  void DequantizeRow(int64_t row, float* out) const;

 private:
  CpuPackedMatrix() = default;

  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<PanelSegment> segments_;
  size_t bytes_ = 0;
  std::shared_ptr<uint8_t> memory_;
};

}  // namespace fastgen::cpu
