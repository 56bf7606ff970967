// The matrix products of a model's shapes, weights cold: they rotate through more memory than the
// caches hold, as the layers of a model do.
#include <algorithm>
#include <cstdio>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/strings.h"
#include "tests/bench/bench_run.h"
#include "tests/testing/block_scales.h"

namespace fastgen::bench {
namespace {

// Random bits with positive scales of sane size: 0x20.. is about 2^-7 as f16, 2^-63 as bf16 and
// f32.
std::vector<uint8_t> RandomWeights(const MatrixShape& shape) {
  std::vector<uint8_t> bytes(BytesOf(shape.dtype, shape.rows * shape.cols));
  uint64_t state = 7;
  for (uint8_t& byte : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<uint8_t>(state >> 56);
  }
  const size_t stride = static_cast<size_t>(Info(shape.dtype).block_bytes);
  const std::vector<int> halves =
      IsBlockType(shape.dtype) ? testing::BlockScaleOffsets(shape.dtype) : std::vector<int>{0};
  for (size_t i = 0; i < bytes.size(); i += stride) {
    for (int at : halves) bytes[i + static_cast<size_t>(at) + 1] = 0x20;
    if (shape.dtype == DType::kF32) bytes[i + 3] = 0x20;
  }
  return bytes;
}

std::vector<float> RandomFloats(int64_t count) {
  std::mt19937 random(3);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random() % 2001) * 1e-3f - 1;
  return values;
}

std::string FormatOf(const MatrixShape& shape) {
  return std::string(shape.form == WeightForm::kAsStored ? Info(shape.dtype).name
                                                         : FormName(shape.form));
}

Instruction InstructionOf(const BenchRun& run, const MatrixShape& shape) {
  if (run.backend.compute_dtype == ComputeDType::kF32) return run.instructions.f32;
  if (IsBlockType(shape.dtype) || shape.form != WeightForm::kAsStored) return run.instructions.int8;
  return shape.dtype == DType::kBF16 ? run.instructions.bf16 : run.instructions.f32;
}

// As many copies of a random matrix as fill the working set. Empty: the reason is in `why`.
std::vector<std::unique_ptr<PackedMatrix>> Copies(const BenchRun& run, Backend* backend,
                                                  const MatrixShape& shape, std::string* why) {
  std::vector<std::unique_ptr<PackedMatrix>> copies;
  const std::vector<uint8_t> weights = RandomWeights(shape);
  int64_t bytes = 0;
  do {
    MatrixSource source;
    source.data = weights.data();
    source.dtype = shape.dtype;
    source.rows = shape.rows;
    source.cols = shape.cols;
    source.form = shape.form;
    auto matrix = backend->PackMatrix({&source, 1});
    if (!matrix.ok()) {
      *why = matrix.status().ToString();
      return {};
    }
    copies.push_back(*std::move(matrix));
    bytes += static_cast<int64_t>(copies.back()->bytes());
  } while (bytes < run.set_bytes);
  return copies;
}

void BenchMatrix(const BenchRun& run, const ModelShape& model, const MatrixShape& shape) {
  Subject subject = {"product", model.name, shape.name, FormatOf(shape), shape.rows, shape.cols};
  if (!run.table->Wants(subject)) return;
  std::vector<int64_t> row_counts;
  for (int64_t rows : run.row_counts) {
    if (!shape.is_head || rows <= kMaxHeadRows) row_counts.push_back(rows);
  }
  if (row_counts.empty()) return;
  const int64_t max_rows = *std::max_element(row_counts.begin(), row_counts.end());
  const std::unique_ptr<Backend> backend = BackendFor(run, model, max_rows, 64);
  std::string why;
  const auto copies = Copies(run, backend.get(), shape, &why);
  if (copies.empty()) return run.table->Skip(subject, why);
  std::vector<float> x = RandomFloats(max_rows * shape.cols);
  std::vector<float> out(max_rows * shape.rows);
  size_t next = 0;
  for (int64_t rows : row_counts) {
    Work work;
    work.call = [&] {
      backend->MatMul(Tensor(x.data(), DType::kF32, {rows, shape.cols}),
                      *copies[next++ % copies.size()], Tensor(), Tensor(),
                      Tensor(out.data(), DType::kF32, {rows, shape.rows}));
    };
    work.bytes = static_cast<double>(copies[0]->bytes());
    work.ops = 2.0 * static_cast<double>(rows * shape.rows * shape.cols);
    work.instruction = InstructionOf(run, shape);
    subject.m = rows;
    run.table->Add(subject, work, run.ceilings->Measure(work));
  }
}

}  // namespace

std::unique_ptr<Backend> BackendFor(const BenchRun& run, const ModelShape& model, int64_t max_rows,
                                    int64_t max_context) {
  auto backend = MakeBackend(run.backend);
  CHECK(backend.ok()) << backend.status().ToString();
  Backend::Limits limits;
  limits.max_rows = max_rows;
  limits.max_cols = 1;
  for (const MatrixShape& matrix : model.matrices) {
    limits.max_cols = std::max(limits.max_cols, matrix.cols);
  }
  limits.max_context = max_context;
  limits.max_sequences = 64;
  limits.max_logit_rows = 64;
  limits.vocab = std::max<int64_t>(1, model.vocab);
  limits.attention = model.attention.q_heads > 0 ? model.attention : AttentionShape{1, 1, 64, 1, 0};
  limits.block_size = 64;
  const absl::Status reserved = (*backend)->Reserve(limits);
  CHECK(reserved.ok()) << reserved.ToString();
  return *std::move(backend);
}

void BenchProducts(const BenchRun& run, const ModelShape& model) {
  for (const MatrixShape& shape : model.matrices) BenchMatrix(run, model, shape);
}

}  // namespace fastgen::bench
