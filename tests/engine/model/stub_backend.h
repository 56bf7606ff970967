// StubBackend: memory without arithmetic, for what happens before the first step. It records what
// was packed; every op of the step path is a failure.
// Thread rule: one thread.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace fastgen::testing {

class StubBuffer final : public Buffer {
 public:
  explicit StubBuffer(size_t bytes) : bytes_(bytes, '\0') {}
  void* data() override { return bytes_.data(); }
  size_t bytes() const override { return bytes_.size(); }

 private:
  std::string bytes_;
};

// Holds the packed rows one after another, as stored, in output order.
class StubMatrix final : public PackedMatrix {
 public:
  explicit StubMatrix(absl::Span<const MatrixSource> parts) : cols_(parts[0].cols) {
    for (const MatrixSource& part : parts) {
      const size_t row_bytes = static_cast<size_t>(BytesOf(part.dtype, part.cols));
      for (int64_t row = 0; row < part.rows; ++row) {
        const int64_t at = part.row_order.empty() ? row : part.row_order[static_cast<size_t>(row)];
        stored.append(static_cast<const char*>(part.data) + static_cast<size_t>(at) * row_bytes,
                      row_bytes);
      }
      rows_ += part.rows;
      forms.push_back(part.form);
    }
  }
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  size_t bytes() const override { return stored.size(); }

  std::string stored;
  std::vector<WeightForm> forms;  // of the parts

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
};

class StubBackend : public Backend {
 public:
  int64_t free_memory_bytes = int64_t{1} << 40;
  int64_t free_host_memory_bytes = int64_t{1} << 40;
  bool is_host_device = false;
  DType activation = DType::kBF16;
  DType kv = DType::kBF16;
  absl::Status pack_status;  // what PackMatrix answers when it is not OK

  std::string Describe() const override { return "stub"; }
  DType activation_dtype() const override { return activation; }
  DType kv_dtype() const override { return kv; }
  int64_t FreeMemoryBytes() const override { return free_memory_bytes; }
  int64_t FreeHostMemoryBytes() const override { return free_host_memory_bytes; }
  bool host_is_device() const override { return is_host_device; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    return std::unique_ptr<Buffer>(std::make_unique<StubBuffer>(bytes));
  }
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override {
    return Allocate(bytes);
  }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      absl::Span<const MatrixSource> parts) override {
    if (!pack_status.ok()) return pack_status;
    return std::unique_ptr<PackedMatrix>(std::make_unique<StubMatrix>(parts));
  }
  absl::Status Reserve(const Limits&) override { return absl::OkStatus(); }

  void EmbedRows(const PackedMatrix&, absl::Span<const int32_t>, Tensor) override { Fail(); }
  void RmsNormQueriesAndKeys(Tensor, const AttentionShape&, Tensor, Tensor, float) override {
    Fail();
  }
  void MatMul(const MatMulInput&, const PackedMatrix&, Tensor, Tensor, Tensor) override { Fail(); }
  void RopeAndWriteKv(Tensor, const AttentionShape&, Tensor, absl::Span<const int32_t>,
                      absl::Span<const int64_t>, Tensor, Tensor) override {
    Fail();
  }
  void PagedAttention(Tensor, const AttentionShape&, const AttentionBatch&, Tensor, Tensor,
                      Tensor) override {
    Fail();
  }
  void GatherRows(Tensor, absl::Span<const int32_t>, Tensor) override { Fail(); }
  void SampleRows(Tensor, absl::Span<const SampleRow>, absl::Span<SampleResult>) override {
    Fail();
  }
  void CopyBlocks(absl::Span<const BlockCopy>, Tensor, Tensor) override { Fail(); }
  void PoisonBlocks(absl::Span<const int32_t>, Tensor) override { Fail(); }
  void CopyToHost(Tensor, void*) override { Fail(); }
  absl::Status Synchronize() override { return absl::OkStatus(); }

 private:
  [[noreturn]] void Fail() { std::abort(); }
};

}  // namespace fastgen::testing
