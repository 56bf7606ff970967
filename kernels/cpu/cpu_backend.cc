#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/int_math.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/packed_matrix.h"

namespace fastgen::cpu {
namespace {

// A piece of row work should be worth taking: 4096 values are about a microsecond.
constexpr int64_t kPieceValues = 4096;
// Below this much, waking another thread costs more than it saves.
constexpr int64_t kMinParallelValues = 4 * kPieceValues;

// Copying 32 KiB takes about 3 us, waking a thread about 5 us.
constexpr int64_t kPieceBytes = 32 << 10;
constexpr int64_t kMinParallelBytes = 4 * kPieceBytes;

class HostBuffer final : public Buffer {
 public:
  HostBuffer(HostMemory memory, std::shared_ptr<std::atomic<int64_t>> total)
      : memory_(std::move(memory)), total_(std::move(total)) {
    total_->fetch_add(static_cast<int64_t>(memory_.bytes()));
  }
  ~HostBuffer() override { total_->fetch_sub(static_cast<int64_t>(memory_.bytes())); }
  void* data() override { return memory_.data(); }
  size_t bytes() const override { return memory_.bytes(); }

 private:
  HostMemory memory_;
  std::shared_ptr<std::atomic<int64_t>> total_;
};

const CpuPackedMatrix& Unwrap(const PackedMatrix& matrix) {
  return static_cast<const CpuPackedMatrix&>(matrix);
}

void CheckActivations(const Tensor& t, int64_t rows, int64_t cols) {
  CHECK(t.dtype == DType::kF32);
  CHECK_EQ(t.rows(), rows);
  CHECK_EQ(t.cols(), cols);
}

char* BlockOf(const Tensor& cache, int32_t block) {
  CHECK(block >= 0 && block < cache.rows()) << "block " << block << " of " << cache.rows();
  return cache.as<char>() + BytesOf(cache.dtype, block * cache.row_stride);
}

}  // namespace

CpuBackend::CpuBackend(Isa isa, ComputeDType compute_dtype, int num_threads,
                       const std::vector<std::vector<int>>& cpus)
    : isa_(isa),
      compute_dtype_(compute_dtype),
      kernels_(MakeKernelTable(isa)),
      int8_rates_(UsesInt8Tiles() ? MeasureInt8(kernels_.matmul, SteadyNanoseconds) : Int8Rates{}),
      pool_(num_threads, cpus, kernels_.matmul.blocks.release),
      matmul_(kernels_.matmul, kernels_.rows, compute_dtype, &pool_,
              UsesInt8Tiles() ? MinInt8BlockRows(int8_rates_) : kNeverInt8Blocks),
      attention_(
          compute_dtype == ComputeDType::kF32 ? kernels_.attention_f32 : kernels_.attention_bf16,
          &pool_),
      sampler_(kernels_.rows, &pool_),
      available_at_start_(AvailableMemoryBytes()),
      allocated_bytes_(std::make_shared<std::atomic<int64_t>>(0)) {}

std::string CpuBackend::Describe() const {
  return absl::StrCat("cpu: ", ToAbsl(IsaName(isa_)), ", ", pool_.num_threads(),
                      pool_.num_threads() == 1 ? " thread" : " threads",
                      compute_dtype_ == ComputeDType::kF32 ? ", fp32" : "",
                      UsesInt8Tiles() ? absl::StrCat(", ", DescribeInt8(int8_rates_)) : "");
}

bool CpuBackend::UsesInt8Tiles() const {
  return compute_dtype_ != ComputeDType::kF32 && kernels_.matmul.blocks.bf16 != nullptr;
}

DType CpuBackend::kv_dtype() const {
  return compute_dtype_ == ComputeDType::kF32 ? DType::kF32 : DType::kBF16;
}

int64_t CpuBackend::FreeMemoryBytes() const {
  return std::max<int64_t>(
      0, std::min(AvailableMemoryBytes(), available_at_start_ - allocated_bytes_->load()));
}

absl::StatusOr<std::unique_ptr<Buffer>> CpuBackend::Allocate(size_t bytes) {
  if (static_cast<int64_t>(bytes) < 0 || static_cast<int64_t>(bytes) > FreeMemoryBytes()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot take ", bytes, " bytes of memory: ", FreeMemoryBytes(), " bytes are free"));
  }
  ASSIGN_OR_RETURN(HostMemory memory, HostMemory::Allocate(bytes));
  return std::unique_ptr<Buffer>(std::make_unique<HostBuffer>(std::move(memory), allocated_bytes_));
}

absl::StatusOr<std::unique_ptr<Buffer>> CpuBackend::AllocateHost(size_t bytes) {
  return Allocate(bytes);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> CpuBackend::PackMatrix(
    absl::Span<const MatrixSource> parts) {
  ASSIGN_OR_RETURN(std::unique_ptr<CpuPackedMatrix> matrix,
                   CpuPackedMatrix::Pack(parts, &weights_, &pool_));
  return std::unique_ptr<PackedMatrix>(std::move(matrix));
}

absl::Status CpuBackend::Reserve(const Limits& limits) {
  RETURN_IF_ERROR(matmul_.Reserve(limits.max_rows, limits.max_cols));
  RETURN_IF_ERROR(attention_.Reserve(limits));
  sampler_.Reserve(limits.vocab);
  return absl::OkStatus();
}

template <typename Body>
void CpuBackend::ForRows(int64_t rows, int64_t row_values, Body&& body) {
  const int64_t grain = rows * row_values < kMinParallelValues ? std::max<int64_t>(1, rows)
                                                               : CeilDiv(kPieceValues, row_values);
  pool_.ParallelFor(rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

template <typename Body>
void CpuBackend::ForBlocks(size_t num_blocks, int64_t block_bytes, Body&& body) {
  const int64_t count = static_cast<int64_t>(num_blocks);
  const int64_t grain = count * block_bytes < kMinParallelBytes ? std::max<int64_t>(1, count)
                                                                : CeilDiv(kPieceBytes, block_bytes);
  pool_.ParallelFor(count, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

void CpuBackend::EmbedRows(const PackedMatrix& table, absl::Span<const int32_t> ids, Tensor out) {
  CheckActivations(out, static_cast<int64_t>(ids.size()), table.cols());
  const CpuPackedMatrix& matrix = Unwrap(table);
  // Unpacking a value takes several times what the other row ops take.
  ForRows(out.rows(), 4 * out.cols(), [&](int64_t row) {
    matrix.DequantizeRow(ids[row], out.as<float>() + row * out.row_stride);
  });
}

void CpuBackend::RmsNormQueriesAndKeys(Tensor qkv, const AttentionShape& shape, Tensor q_weight,
                                       Tensor k_weight, float eps) {
  const int64_t head_dim = shape.head_dim;
  CheckActivations(qkv, qkv.rows(), (shape.q_heads + 2 * shape.kv_heads) * head_dim);
  CHECK(q_weight.dtype == DType::kF32 && k_weight.dtype == DType::kF32);
  CHECK_EQ(q_weight.num_elements(), head_dim);
  CHECK_EQ(k_weight.num_elements(), head_dim);
  const int64_t num_heads = shape.q_heads + shape.kv_heads;
  ForRows(qkv.rows(), num_heads * head_dim, [&](int64_t row) {
    float* head = qkv.as<float>() + row * qkv.row_stride;
    for (int64_t h = 0; h < num_heads; ++h, head += head_dim) {
      const Tensor& weight = h < shape.q_heads ? q_weight : k_weight;
      const float factor = kernels_.rows.inverse_rms(head, head_dim, eps);
      kernels_.rows.scale(head, factor, weight.as<float>(), head_dim, head);
    }
  });
}

void CpuBackend::MatMul(const MatMulInput& input, const PackedMatrix& w, Tensor bias,
                        Tensor residual, Tensor out) {
  const bool is_gated = input.op == MatMulInput::Op::kSiluMul;
  CheckActivations(input.x, out.rows(), is_gated ? 2 * w.cols() : w.cols());
  CheckActivations(out, input.rows(), w.rows());
  if (input.op == MatMulInput::Op::kRmsNorm) {
    CHECK(input.weight.dtype == DType::kF32);
    CHECK_EQ(input.weight.num_elements(), w.cols());
  }
  if (bias.data != nullptr) {
    CHECK(bias.dtype == DType::kF32);
    CHECK_EQ(bias.num_elements(), w.rows());
  }
  if (residual.data != nullptr) CheckActivations(residual, out.rows(), w.rows());
  matmul_.Run(input, Unwrap(w), bias, residual, out);
}

void CpuBackend::RopeAndWriteKv(Tensor qkv, const AttentionShape& shape, Tensor cos_sin,
                                absl::Span<const int32_t> positions,
                                absl::Span<const int64_t> slots, Tensor k_cache, Tensor v_cache) {
  const int64_t head_dim = shape.head_dim;
  CheckActivations(qkv, static_cast<int64_t>(positions.size()),
                   (shape.q_heads + 2 * shape.kv_heads) * head_dim);
  CHECK_EQ(slots.size(), positions.size());
  CHECK(cos_sin.dtype == DType::kF32 && k_cache.dtype == kv_dtype() && v_cache.dtype == kv_dtype());
  CHECK_EQ(cos_sin.cols(), head_dim);
  CHECK(k_cache.dims == v_cache.dims && k_cache.dims[1] == shape.kv_heads &&
        k_cache.dims[3] == head_dim);
  const int64_t block_size = k_cache.dims[2];
  CHECK_EQ(block_size % 2, 0);
  const auto page = [&](const Tensor& cache, int64_t slot, int64_t head) {
    return BlockOf(cache, static_cast<int32_t>(slot / block_size)) +
           BytesOf(cache.dtype, head * block_size * head_dim);
  };
  ForRows(qkv.rows(), qkv.cols(), [&](int64_t row) {
    CHECK(positions[row] >= 0 && positions[row] < cos_sin.rows()) << "position " << positions[row];
    CHECK_LT(slots[row], k_cache.rows() * block_size);
    float* q = qkv.as<float>() + row * qkv.row_stride;
    kernels_.rows.rope(q, cos_sin.as<float>() + positions[row] * cos_sin.row_stride,
                       shape.q_heads + shape.kv_heads, head_dim);
    if (slots[row] < 0) return;
    const float* k = q + shape.q_heads * head_dim;
    const float* v = k + shape.kv_heads * head_dim;
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      attention_.kernels().store_key(k + head * head_dim, head_dim, block_size,
                                     slots[row] % block_size, page(k_cache, slots[row], head));
      attention_.kernels().store_value(v + head * head_dim, head_dim, slots[row] % block_size,
                                       page(v_cache, slots[row], head));
    }
  });
}

void CpuBackend::PagedAttention(Tensor q, const AttentionShape& shape, const AttentionBatch& batch,
                                Tensor k_cache, Tensor v_cache, Tensor out) {
  const int64_t num_sequences = batch.num_sequences();
  if (num_sequences == 0) return;
  CHECK_EQ(static_cast<int64_t>(batch.query_start.size()), num_sequences + 1);
  CHECK_EQ(static_cast<int64_t>(batch.block_tables.size()), num_sequences * batch.max_blocks);
  CheckActivations(q, out.rows(), shape.q_heads * shape.head_dim);
  CheckActivations(out, q.rows(), q.cols());
  CHECK_LE(batch.query_start[num_sequences], q.rows());
  CHECK(shape.kv_heads > 0 && shape.q_heads % shape.kv_heads == 0 && shape.head_dim % 8 == 0);
  CHECK(k_cache.dtype == kv_dtype() && v_cache.dtype == kv_dtype());
  CHECK(k_cache.dims == v_cache.dims && k_cache.dims[1] == shape.kv_heads &&
        k_cache.dims[3] == shape.head_dim);
  for (int64_t s = 0; s < num_sequences; ++s) {
    CHECK_LE(batch.query_start[s + 1] - batch.query_start[s], batch.context_len[s]);
    CHECK_LE(batch.context_len[s], batch.max_blocks * k_cache.dims[2]);
  }
  attention_.Run(q, shape, batch, k_cache, v_cache, out);
}

void CpuBackend::GatherRows(Tensor x, absl::Span<const int32_t> indices, Tensor out) {
  CheckActivations(out, static_cast<int64_t>(indices.size()), x.cols());
  for (int64_t i = 0; i < out.rows(); ++i) {
    CHECK(indices[i] >= 0 && indices[i] < x.rows()) << "index " << indices[i] << " of " << x.rows();
    std::memcpy(out.as<float>() + i * out.row_stride, x.as<float>() + indices[i] * x.row_stride,
                x.cols() * sizeof(float));
  }
}

void CpuBackend::SampleRows(Tensor logits, absl::Span<const SampleRow> rows,
                            absl::Span<SampleResult> results) {
  CheckActivations(logits, static_cast<int64_t>(rows.size()), logits.cols());
  CHECK_EQ(rows.size(), results.size());
  sampler_.Run(logits, rows, results);
}

void CpuBackend::CopyBlocks(absl::Span<const BlockCopy> copies, Tensor source, Tensor destination) {
  CheckCache(source);
  CheckCache(destination);
  CHECK(source.dims[1] == destination.dims[1] && source.dims[2] == destination.dims[2] &&
        source.dims[3] == destination.dims[3])
      << "caches of different blocks";
  const int64_t block_bytes = BytesOf(source.dtype, source.cols());
  ForBlocks(copies.size(), block_bytes, [&](int64_t i) {
    std::memcpy(BlockOf(destination, copies[i].to), BlockOf(source, copies[i].from),
                static_cast<size_t>(block_bytes));
  });
}

void CpuBackend::PoisonBlocks(absl::Span<const int32_t> blocks, Tensor cache) {
  CheckCache(cache);
  const int64_t block_bytes = BytesOf(cache.dtype, cache.cols());
  ForBlocks(blocks.size(), block_bytes, [&](int64_t i) {
    std::memset(BlockOf(cache, blocks[i]), 0xff, static_cast<size_t>(block_bytes));
  });
}

void CpuBackend::CheckCache(const Tensor& cache) const {
  CHECK_EQ(cache.rank, 4);
  CHECK(cache.dtype == kv_dtype());
}

void CpuBackend::CopyToHost(Tensor source, void* destination) {
  const int64_t row_bytes = BytesOf(source.dtype, source.cols());
  for (int64_t row = 0; row < source.rows(); ++row) {
    std::memcpy(static_cast<char*>(destination) + row * row_bytes,
                source.as<char>() + BytesOf(source.dtype, row * source.row_stride), row_bytes);
  }
}

absl::Status CpuBackend::Synchronize() { return absl::OkStatus(); }

}  // namespace fastgen::cpu
