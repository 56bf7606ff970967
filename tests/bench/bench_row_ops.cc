// The ops that work a row at a time: norms, SiLU, rope with the write of keys and values,
// embedding, and sampling.
#include <algorithm>
#include <random>

#include "base/check.h"
#include "tests/bench/bench_run.h"

namespace fastgen::bench {
namespace {

constexpr int64_t kBlockSize = 64;

void AddTime(const BenchRun& run, const ModelShape& model, const char* section, const char* name,
             int64_t width, int64_t rows, const std::function<void()>& call) {
  const Subject subject = {section, model.name, name, "f32", rows, width, rows};
  if (run.table->Wants(subject)) {
    run.table->AddTime(subject, run.ceilings->MedianSeconds(call));
  }
}

void BenchRopeAndWrite(const BenchRun& run, Backend* backend, const ModelShape& model,
                       int64_t rows) {
  const AttentionShape& shape = model.attention;
  const int64_t width = (shape.q_heads + 2 * shape.kv_heads) * shape.head_dim;
  const int64_t num_blocks = (rows + kBlockSize - 1) / kBlockSize;
  const int64_t cache_bytes =
      BytesOf(backend->kv_dtype(), num_blocks * shape.kv_heads * kBlockSize * shape.head_dim);
  auto k = backend->Allocate(cache_bytes);
  auto v = backend->Allocate(cache_bytes);
  CHECK(k.ok() && v.ok());
  const auto cache = [&](Buffer* pages) {
    return Tensor(pages->data(), backend->kv_dtype(),
                  {num_blocks, shape.kv_heads, kBlockSize, shape.head_dim});
  };
  std::vector<float> qkv(rows * width, 0.5f), cos_sin(rows * shape.head_dim, 0.7f);
  std::vector<int32_t> positions(rows);
  std::vector<int64_t> slots(rows);
  for (int64_t i = 0; i < rows; ++i) {
    positions[i] = static_cast<int32_t>(i);
    slots[i] = i;
  }
  AddTime(run, model, "row op", "rope and kv write", width, rows, [&] {
    backend->RopeAndWriteKv(Tensor(qkv.data(), DType::kF32, {rows, width}), shape,
                            Tensor(cos_sin.data(), DType::kF32, {rows, shape.head_dim}),
                            absl::MakeSpan(positions), absl::MakeSpan(slots), cache(k->get()),
                            cache(v->get()));
  });
}

// An input's op with what follows it, the conversion to int8: a product with a single output.
void BenchInput(const BenchRun& run, Backend* backend, const ModelShape& model, const char* name,
                const MatMulInput& input) {
  const std::vector<uint8_t> zeros(BytesOf(DType::kQ8_0, input.cols()));
  const MatrixSource source = {zeros.data(), DType::kQ8_0, 1, input.cols(), {}};
  const auto matrix = backend->PackMatrix({&source, 1});
  CHECK(matrix.ok()) << matrix.status().ToString();
  std::vector<float> out(input.rows());
  AddTime(run, model, "row op", name, input.cols(), input.rows(), [&] {
    backend->MatMul(input, **matrix, Tensor(), Tensor(),
                    Tensor(out.data(), DType::kF32, {input.rows(), 1}));
  });
}

void BenchRows(const BenchRun& run, Backend* backend, const ModelShape& model, int64_t rows) {
  const int64_t hidden = model.hidden, ffn = model.ffn;
  std::vector<float> x(rows * std::max(hidden, 2 * ffn), 0.5f), weight(hidden, 1);
  BenchInput(run, backend, model, "norm + int8",
             MatMulInput::RmsNorm(Tensor(x.data(), DType::kF32, {rows, hidden}),
                                  Tensor(weight.data(), DType::kF32, {hidden}), 1e-5f));
  BenchInput(run, backend, model, "silu-mul + int8",
             MatMulInput::SiluMul(Tensor(x.data(), DType::kF32, {rows, 2 * ffn})));
  BenchRopeAndWrite(run, backend, model, rows);
}

void BenchSamplingRows(const BenchRun& run, Backend* backend, const ModelShape& model,
                       int64_t rows) {
  const int64_t vocab = model.vocab;
  std::vector<float> logits(rows * vocab);
  std::mt19937 random(5);
  for (float& logit : logits) logit = static_cast<float>(random() % 20001) * 1e-3f - 10;
  std::vector<SampleRow> samples(rows);
  std::vector<SampleResult> results(rows);
  const auto add = [&](const char* name) {
    AddTime(run, model, "sampling", name, vocab, rows, [&] {
      backend->SampleRows(Tensor(logits.data(), DType::kF32, {rows, vocab}),
                          absl::MakeSpan(samples), absl::MakeSpan(results));
    });
  };
  add("greedy");
  for (SampleRow& row : samples) row.temperature = 0.7f;
  add("temperature");
  for (SampleRow& row : samples) row.top_p = 0.95f;
  add("top-p 0.95");
  for (SampleRow& row : samples) row.top_k = 50;
  add("top-k 50 and top-p");
}

}  // namespace

void BenchRowOps(const BenchRun& run, const ModelShape& model) {
  if (model.attention.q_heads == 0) return;
  const std::unique_ptr<Backend> backend = BackendFor(run, model, 512, 512);
  for (int64_t rows : {1, 32, 512}) BenchRows(run, backend.get(), model, rows);
}

void BenchSampling(const BenchRun& run, const ModelShape& model) {
  if (model.vocab == 0) return;
  const std::unique_ptr<Backend> backend = BackendFor(run, model, 64, 64);
  for (int64_t rows : {1, 8, 32}) BenchSamplingRows(run, backend.get(), model, rows);
}

}  // namespace fastgen::bench
