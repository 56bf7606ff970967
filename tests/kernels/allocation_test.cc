// Counts every allocation of the process, so it holds nothing but this claim.
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>

#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/random_sample_row.h"
#include "tests/kernels/random_weights.h"

namespace {

std::atomic<int64_t> num_allocations{0};

// Not inlined: GCC would see malloc meet operator delete and warn of a mismatch.
__attribute__((noinline)) void* Take(size_t bytes) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

__attribute__((noinline)) void Return(void* memory) { std::free(memory); }

}  // namespace

void* operator new(size_t bytes) { return Take(bytes); }
void* operator new[](size_t bytes) { return Take(bytes); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return Take(bytes); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return Take(bytes); }
void operator delete(void* memory) noexcept { Return(memory); }
void operator delete[](void* memory) noexcept { Return(memory); }
void operator delete(void* memory, size_t) noexcept { Return(memory); }
void operator delete[](void* memory, size_t) noexcept { Return(memory); }

namespace fastgen::testing {
namespace {

TEST_CASE("no op allocates after Reserve", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const AttentionShape shape = {4, 2, 32, 0.2f, 0};
  const int64_t rows = 40, hidden = 128, vocab = 5000, block_size = 16, num_blocks = 64;
  const RandomWeights qkv_weights(DType::kQ4_1, 256, hidden, 1),
      table_weights(DType::kQ8_0, vocab, hidden, 2), float_weights(DType::kBF16, 256, hidden, 3);
  const auto qkv_matrix = *backend->PackMatrix({&qkv_weights.source, 1});
  const auto table = *backend->PackMatrix({&table_weights.source, 1});
  const auto float_matrix = *backend->PackMatrix({&float_weights.source, 1});
  const int64_t kv_bytes = BytesOf(backend->kv_dtype(), num_blocks * 2 * block_size * 32);
  const auto k_memory = *backend->Allocate(kv_bytes);
  const auto v_memory = *backend->Allocate(kv_bytes);
  const Tensor k(k_memory->data(), backend->kv_dtype(), {num_blocks, 2, block_size, 32});
  const Tensor v(v_memory->data(), backend->kv_dtype(), {num_blocks, 2, block_size, 32});
  std::vector<float> x(rows * hidden), weight(hidden, 1), qkv(rows * 256), attended(rows * 128),
      mixed(rows * 256), logits(4 * vocab), cos_sin(1024 * 32, 0.5f), last(4 * hidden);
  std::vector<int32_t> ids(rows, 7), positions(rows), last_rows = {0, 1, 2, 39}, banned = {3};
  std::vector<int64_t> slots(rows);
  for (int64_t i = 0; i < rows; ++i) {
    positions[i] = static_cast<int32_t>(600 + i);
    slots[i] = 600 + i;
  }
  std::vector<int32_t> starts = {0, 39, 40}, contexts = {639, 700}, blocks(2 * num_blocks);
  for (int64_t i = 0; i < 2 * num_blocks; ++i) blocks[i] = static_cast<int32_t>(i % num_blocks);
  std::vector<SampleRow> sample_rows(4);
  sample_rows[1].temperature = sample_rows[2].temperature = sample_rows[3].temperature = 1;
  sample_rows[2].top_k = 30;
  sample_rows[2].top_p = 0.9f;
  sample_rows[3].top_p = 0.9f;
  sample_rows[3].banned_tokens = absl::MakeSpan(banned);
  sample_rows[3].num_top_logprobs = 0;
  std::vector<SampleResult> results(4);

  const int64_t before = num_allocations.load();
  backend->EmbedRows(*table, absl::MakeSpan(ids), View(x, rows, hidden));
  backend->MatMul(MatMulInput::RmsNorm(View(x, rows, hidden),
                                       Tensor(weight.data(), DType::kF32, {hidden}), 1e-5f),
                  *qkv_matrix, Tensor(), Tensor(), View(qkv, rows, 256));
  backend->RopeAndWriteKv(View(qkv, rows, 256), shape, View(cos_sin, 1024, 32),
                          absl::MakeSpan(positions), absl::MakeSpan(slots), k, v);
  backend->PagedAttention(
      View(qkv, rows, 256).Cols(0, 128), shape,
      {absl::MakeSpan(starts), absl::MakeSpan(contexts), absl::MakeSpan(blocks), num_blocks}, k, v,
      View(attended, rows, 128));
  backend->MatMul(View(attended, rows, hidden), *float_matrix, Tensor(), Tensor(),
                  View(qkv, rows, 256));
  backend->MatMul(MatMulInput::SiluMul(View(qkv, rows, 256)), *qkv_matrix, Tensor(), Tensor(),
                  View(mixed, rows, 256));
  backend->GatherRows(View(attended, rows, 128), absl::MakeSpan(last_rows), View(last, 4, hidden));
  backend->MatMul(View(last, 4, hidden), *table, Tensor(), Tensor(), View(logits, 4, vocab));
  backend->SampleRows(View(logits, 4, vocab), absl::MakeSpan(sample_rows), absl::MakeSpan(results));
  const bool synchronized = backend->Synchronize().ok();
  const int64_t after = num_allocations.load();
  CHECK(synchronized);
  CHECK(after == before);
}

TEST_CASE("rows with every rule and block copies allocate nothing once results are kept",
          "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const int64_t vocab = 5000, num_rows = 12;
  const int32_t num_blocks = 40;
  std::vector<float> logits = Gaussian(num_rows * vocab, 3, 2);
  std::fill(logits.end() - vocab, logits.end(), -INFINITY);  // nothing may be chosen
  std::vector<OwnedRow> owned;
  std::vector<SampleRow> rows;
  for (uint32_t i = 0; i < num_rows; ++i) {
    owned.push_back(RandomRow(vocab, i < 6 ? 1u << i : kAllRules, i));
    owned.back().row.temperature = i % 3 == 0 ? 0.0f : 1.0f;
    owned.back().row.top_k = i % 4 == 1 ? 50 : 0;
    owned.back().row.top_p = i % 2 == 1 ? 0.9f : 1.0f;
    owned.back().row.num_top_logprobs = i % 2 == 0 ? 3 : -1;
    rows.push_back(owned.back().Bind());
  }
  std::vector<SampleResult> results(num_rows);
  const size_t kv_bytes = BytesOf(backend->kv_dtype(), num_blocks * 2 * 16 * 64);
  const auto cache_memory = *backend->Allocate(kv_bytes);
  const auto pool_memory = *backend->AllocateHost(kv_bytes);
  const Tensor cache(cache_memory->data(), backend->kv_dtype(), {num_blocks, 2, 16, 64});
  const Tensor pool(pool_memory->data(), backend->kv_dtype(), {num_blocks, 2, 16, 64});
  std::vector<BlockCopy> copies;
  std::vector<int32_t> blocks;
  for (int32_t i = 0; i < num_blocks; ++i) {
    copies.push_back({i, num_blocks - 1 - i});
    blocks.push_back(i);
  }
  int64_t num_allocated[2];
  for (int64_t& count : num_allocated) {
    const int64_t before = num_allocations.load();
    backend->SampleRows(View(logits, num_rows, vocab), absl::MakeSpan(rows),
                        absl::MakeSpan(results));
    backend->CopyBlocks(absl::MakeSpan(copies), cache, pool);
    backend->PoisonBlocks(absl::MakeSpan(blocks), cache);
    count = num_allocations.load() - before;
    // The next step asks for more of some rows.
    for (SampleRow& row : rows) {
      if (row.num_top_logprobs == 3) row.num_top_logprobs = Backend::kMaxTopLogprobs;
    }
  }
  CHECK(num_allocated[0] == num_rows / 2);  // the arrays of top logprobs
  CHECK(num_allocated[1] == 0);
}

}  // namespace
}  // namespace fastgen::testing
