// CpuBackend: the ops of backend.h on this machine's cores.
//
// It checks shapes, cuts work into pieces for the thread pool and calls one path's kernels
// (kernel_table.h); the larger ops live in matmul, attention and sampling. Every op has ended when
// it returns, so Synchronize() has nothing to wait for. Activations are f32; KV pages bf16, or f32
// in fp32 mode. Thread rule: as Backend. Tested by tests/kernels/*_test.cc.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/int8_calibration.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/sampling.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/make_backend.h"

namespace fastgen::cpu {

class CpuBackend final : public Backend {
 public:
  // `cpus` as ThreadPool's.
  CpuBackend(Isa isa, ComputeDType compute_dtype, int num_threads,
             const std::vector<std::vector<int>>& cpus);

  std::string Describe() const override;
  DType activation_dtype() const override { return DType::kF32; }
  DType kv_dtype() const override;
  int64_t FreeMemoryBytes() const override;
  int64_t FreeHostMemoryBytes() const override { return FreeMemoryBytes(); }
  bool host_is_device() const override { return true; }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override;
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override;
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      absl::Span<const MatrixSource> parts) override;
  absl::Status Reserve(const Limits& limits) override;

  void EmbedRows(const PackedMatrix& table, absl::Span<const int32_t> ids, Tensor out) override;
  void RmsNormQueriesAndKeys(Tensor qkv, const AttentionShape& shape, Tensor q_weight,
                             Tensor k_weight, float eps) override;
  void MatMul(const MatMulInput& input, const PackedMatrix& w, Tensor bias, Tensor residual,
              Tensor out) override;
  void RopeAndWriteKv(Tensor qkv, const AttentionShape& shape, Tensor cos_sin,
                      absl::Span<const int32_t> positions, absl::Span<const int64_t> slots,
                      Tensor k_cache, Tensor v_cache) override;
  void PagedAttention(Tensor q, const AttentionShape& shape, const AttentionBatch& batch,
                      Tensor k_cache, Tensor v_cache, Tensor out) override;
  void GatherRows(Tensor x, absl::Span<const int32_t> indices, Tensor out) override;
  void SampleRows(Tensor logits, absl::Span<const SampleRow> rows,
                  absl::Span<SampleResult> results) override;
  void CopyBlocks(absl::Span<const BlockCopy> copies, Tensor source, Tensor destination) override;
  void PoisonBlocks(absl::Span<const int32_t> blocks, Tensor cache) override;
  void CopyToHost(Tensor source, void* destination) override;
  absl::Status Synchronize() override;

 private:
  // Runs body(row) for every row, on the calling thread alone where `row_values` x rows is little.
  template <typename Body>
  void ForRows(int64_t rows, int64_t row_values, Body&& body);
  // Runs body(i) for every block of `block_bytes`, likewise.
  template <typename Body>
  void ForBlocks(size_t num_blocks, int64_t block_bytes, Body&& body);
  void CheckCache(const Tensor& cache) const;
  bool UsesInt8Tiles() const;

  const Isa isa_;
  const ComputeDType compute_dtype_;
  const KernelTable kernels_;
  const Int8Rates int8_rates_;  // where the path has tiles
  ThreadPool pool_;
  HostArena weights_;
  cpu::MatMul matmul_;
  cpu::PagedAttention attention_;
  RowSampler sampler_;
  // Pages take memory when touched, so what was handed out must be remembered.
  const int64_t available_at_start_;
  std::shared_ptr<std::atomic<int64_t>> allocated_bytes_;
};

}  // namespace fastgen::cpu
