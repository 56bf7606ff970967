// Attention through tiles, emulated ones on every CPU with AVX-512 and BF16; over the CPU's own it
// is the path "amx" of the other tests of attention.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/kernels/emulated_amx.h"
#include "tests/kernels/pages_under_test.h"
#include "tests/testing/reference_ops.h"
#include "tests/testing/skip.h"

namespace fastgen::testing {
namespace {

using cpu::AttentionKernels;

bool SkipWithoutAvx512Bf16() {
  if (cpu::HasIsa(cpu::Isa::kAvx512Bf16)) return false;
  SkipCase("the kernels around the emulated tiles need AVX-512 with BF16");
  return true;
}

AttentionKernels EmulatedKernels() {
  cpu::KernelTable table;
  FillRowsAmxEmulated(&table);
  return table.attention_bf16;
}

struct Geometry {
  AttentionShape shape;
  int64_t block_size;
  int64_t length;
};

std::vector<Geometry> Geometries() {
  return {{{3, 1, 64, 0.125f, 0}, 64, 150}, {{4, 4, 32, 0.2f, 0}, 16, 45},
          {{8, 1, 128, 0.09f, 0}, 64, 70},  {{6, 2, 96, 0.1f, 30}, 32, 100},
          {{35, 1, 32, 0.2f, 0}, 128, 140}, {{2, 1, 64, 0.125f, 300}, 64, 601},
          {{4, 2, 80, 0.11f, 0}, 16, 40}};  // 80 does not fill tiles: vectors
}

// One sequence's pages over a table of kernels. Every slot starts as NaN.
class TilePages {
 public:
  TilePages(const Geometry& geometry, const AttentionKernels& kernels, int num_threads)
      : geometry_(geometry), kernels_(kernels), pool_(num_threads), attention_(kernels, &pool_) {
    const AttentionShape& shape = geometry.shape;
    const int64_t num_blocks = (geometry.length + geometry.block_size - 1) / geometry.block_size;
    table_ = Table(num_blocks);
    const int64_t all_blocks = 2 * num_blocks + 1;
    const int64_t count = all_blocks * shape.kv_heads * geometry.block_size * shape.head_dim;
    // A vector may be read past the last page.
    k_memory_.assign(static_cast<size_t>(count) + 2048, 0xffff);
    v_memory_ = k_memory_;
    const std::initializer_list<int64_t> dims = {all_blocks, shape.kv_heads, geometry.block_size,
                                                 shape.head_dim};
    k_ = Tensor(k_memory_.data(), DType::kBF16, dims);
    v_ = Tensor(v_memory_.data(), DType::kBF16, dims);
    Backend::Limits limits;
    limits.max_context = geometry.length;
    limits.max_sequences = 1;
    limits.attention = shape;
    REQUIRE(attention_.Reserve(limits).ok());
  }

  // Writes rows [begin, end) of qkv and returns their attention.
  std::vector<float> Step(std::vector<float> qkv, int64_t begin, int64_t end) {
    const AttentionShape& shape = geometry_.shape;
    const int64_t q_width = shape.q_heads * shape.head_dim,
                  kv_width = shape.kv_heads * shape.head_dim;
    const int64_t width = q_width + 2 * kv_width;
    for (int64_t row = begin; row < end; ++row) Write(qkv.data() + row * width + q_width, row);
    const std::vector<int32_t> starts = {0, static_cast<int32_t>(end - begin)};
    const std::vector<int32_t> contexts = {static_cast<int32_t>(end)};
    std::vector<float> out(static_cast<size_t>((end - begin) * q_width));
    const Tensor rows(qkv.data(), DType::kF32, {static_cast<int64_t>(qkv.size()) / width, width});
    attention_.Run(rows.Rows(begin, end - begin).Cols(0, q_width), shape,
                   {absl::MakeSpan(starts), absl::MakeSpan(contexts), absl::MakeSpan(table_),
                    static_cast<int64_t>(table_.size())},
                   k_, v_, View(out, end - begin, q_width));
    return out;
  }

 private:
  // k[kv_heads][head_dim], then v.
  void Write(const float* k, int64_t position) {
    const AttentionShape& shape = geometry_.shape;
    const int64_t block_size = geometry_.block_size, slot = position % block_size;
    const int64_t block = table_[static_cast<size_t>(position / block_size)] * k_.row_stride;
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      const int64_t page = block + head * block_size * shape.head_dim;
      kernels_.store_key(k + head * shape.head_dim, shape.head_dim, block_size, slot,
                         k_.as<uint16_t>() + page);
      kernels_.store_value(k + (shape.kv_heads + head) * shape.head_dim, shape.head_dim, slot,
                           v_.as<uint16_t>() + page);
    }
  }

  const Geometry geometry_;
  const AttentionKernels kernels_;
  cpu::ThreadPool pool_;
  cpu::PagedAttention attention_;
  std::vector<int32_t> table_;
  std::vector<uint16_t> k_memory_, v_memory_;
  Tensor k_, v_;
};

std::vector<float> RandomRows(const Geometry& g, uint32_t seed) {
  return Gaussian(g.length * (g.shape.q_heads + 2 * g.shape.kv_heads) * g.shape.head_dim, seed);
}

TEST_CASE("attention through tiles agrees with double precision", "[kernels][amx]") {
  if (SkipWithoutAvx512Bf16()) return;
  for (const Geometry& g : Geometries()) {
    const std::vector<float> qkv = RandomRows(g, 3);
    const int64_t q_width = g.shape.q_heads * g.shape.head_dim;
    const int64_t kv_width = g.shape.kv_heads * g.shape.head_dim;
    std::vector<double> q, k, v;
    for (auto at = qkv.begin(); at != qkv.end(); at += q_width + 2 * kv_width) {
      q.insert(q.end(), at, at + q_width);
      std::transform(at + q_width, at + q_width + kv_width, std::back_inserter(k), ToBf16);
      std::transform(at + q_width + kv_width, at + q_width + 2 * kv_width, std::back_inserter(v),
                     ToBf16);
    }
    INFO("heads " << g.shape.q_heads << "/" << g.shape.kv_heads << " dim " << g.shape.head_dim
                  << " window " << g.shape.window);
    const std::vector<float> out = TilePages(g, EmulatedKernels(), 1).Step(qkv, 0, g.length);
    CHECK(RelativeError(out, ReferenceAttention(q, k, v, g.shape)) < 3e-3);
  }
}

TEST_CASE("attention through tiles has the same bits however a sequence was cut, on any threads",
          "[kernels][amx]") {
  if (SkipWithoutAvx512Bf16()) return;
  for (const Geometry& g : Geometries()) {
    const std::vector<float> qkv = RandomRows(g, 4);
    const std::vector<float> whole = TilePages(g, EmulatedKernels(), 1).Step(qkv, 0, g.length);
    for (int64_t chunk : {1, 7, 33}) {
      TilePages pages(g, EmulatedKernels(), chunk == 7 ? 1 : 2);
      std::vector<float> joined;
      for (int64_t begin = 0; begin < g.length; begin += chunk) {
        const std::vector<float> part = pages.Step(qkv, begin, std::min(g.length, begin + chunk));
        joined.insert(joined.end(), part.begin(), part.end());
      }
      INFO("dim " << g.shape.head_dim << " window " << g.shape.window << " chunk " << chunk);
      CHECK(joined == whole);
    }
  }
}

}  // namespace
}  // namespace fastgen::testing
