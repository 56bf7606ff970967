#include <limits>
#include <numeric>

#include "tests/kernels/pages_under_test.h"
#include "tests/testing/reference_ops.h"

namespace fastgen::testing {
namespace {

std::vector<double> Expected(const std::vector<float>& qkv, const AttentionShape& shape,
                             bool bf16) {
  const int64_t width = (shape.q_heads + 2 * shape.kv_heads) * shape.head_dim;
  std::vector<double> q, k, v;
  for (size_t row = 0; row < qkv.size(); row += width) {
    const auto at = qkv.begin() + row;
    const int64_t q_end = shape.q_heads * shape.head_dim,
                  k_end = q_end + shape.kv_heads * shape.head_dim;
    q.insert(q.end(), at, at + q_end);
    for (int64_t i = q_end; i < k_end; ++i) k.push_back(bf16 ? ToBf16(at[i]) : at[i]);
    for (int64_t i = k_end; i < width; ++i) v.push_back(bf16 ? ToBf16(at[i]) : at[i]);
  }
  return ReferenceAttention(q, k, v, shape);
}

struct Geometry {
  AttentionShape shape;
  int64_t block_size;
  int64_t length;
};

std::vector<Geometry> Geometries() {
  return {{{4, 2, 16, 0.25f, 0}, 16, 70},     {{3, 1, 64, 0.125f, 0}, 64, 200},
          {{8, 8, 32, 0.2f, 0}, 32, 65},      {{2, 1, 128, 0.09f, 0}, 16, 90},
          {{6, 2, 24, 0.2f, 0}, 8, 37},       {{2, 2, 8, 0.3f, 0}, 16, 33},
          {{35, 1, 16, 0.25f, 0}, 16, 40},    {{4, 2, 64, 0.125f, 20}, 16, 150},
          {{2, 1, 64, 0.125f, 300}, 64, 700}, {{3, 1, 48, 0.15f, 0}, 128, 300}};
}

TEST_CASE("attention agrees with double precision and never reads unwritten slots", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const bool bf16 = backend->kv_dtype() == DType::kBF16;
  for (const Geometry& g : Geometries()) {
    const int64_t num_blocks = (g.length + g.block_size - 1) / g.block_size;
    Pages pages(backend.get(), g.shape, 2 * num_blocks + 1, g.block_size);
    const std::vector<float> qkv = Gaussian(g.length * pages.width(), 3);
    const std::vector<float> out = pages.Step(qkv, Table(num_blocks), 0, g.length);
    INFO(backend->Describe() << " heads " << g.shape.q_heads << "/" << g.shape.kv_heads << " dim "
                             << g.shape.head_dim << " window " << g.shape.window << " block "
                             << g.block_size);
    // bf16 scores round q (2^-9 relative).
    CHECK(RelativeError(out, Expected(qkv, g.shape, bf16)) < (bf16 ? 3e-3 : 2e-6));
  }
}

TEST_CASE("attention has the same bits however the sequence was cut and on any number of threads",
          "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const ComputeDType compute = GENERATE(ComputeDType::kAuto, ComputeDType::kF32);
  const auto two = Open(OptionsFor(path, compute, 2));
  const auto one = Open(OptionsFor(path, compute, 1));
  for (const Geometry& g : Geometries()) {
    const int64_t num_blocks = (g.length + g.block_size - 1) / g.block_size;
    const std::vector<int32_t> table = Table(num_blocks);
    const int64_t width = (g.shape.q_heads + 2 * g.shape.kv_heads) * g.shape.head_dim;
    const std::vector<float> qkv = Gaussian(g.length * width, 4);
    Pages whole_pages(two.get(), g.shape, 2 * num_blocks + 1, g.block_size);
    const std::vector<float> whole = whole_pages.Step(qkv, table, 0, g.length);
    for (int64_t chunk : {1, 7, 33}) {
      for (Backend* backend : {two.get(), one.get()}) {
        Pages pages(backend, g.shape, 2 * num_blocks + 1, g.block_size);
        std::vector<float> joined;
        for (int64_t begin = 0; begin < g.length; begin += chunk) {
          const std::vector<float> part =
              pages.Step(qkv, table, begin, std::min(g.length, begin + chunk));
          joined.insert(joined.end(), part.begin(), part.end());
        }
        INFO(backend->Describe() << " dim " << g.shape.head_dim << " window " << g.shape.window
                                 << " chunk " << chunk);
        // == instead of memcmp: 0 and -0 are the same value.
        CHECK(joined == whole);
      }
    }
  }
}

TEST_CASE("a sequence's attention does not depend on its neighbours in the step", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const AttentionShape shape = {6, 2, 32, 0.2f, 0};
  const int64_t block_size = 16, max_blocks = 20;
  Pages pages(backend.get(), shape, 4 * max_blocks, block_size);
  const std::vector<int64_t> lengths = {300, 1, 17, 64};
  std::vector<std::vector<int32_t>> tables(4, std::vector<int32_t>(max_blocks));
  std::vector<std::vector<float>> qkvs, alone;
  for (int s = 0; s < 4; ++s) {
    for (int64_t b = 0; b < max_blocks; ++b) tables[s][b] = static_cast<int32_t>(4 * b + s);
    qkvs.push_back(Gaussian(lengths[s] * pages.width(), 30 + s));
    pages.Step(qkvs[s], tables[s], 0, lengths[s]);
    alone.push_back(pages.Step(qkvs[s], tables[s], lengths[s] - 1, lengths[s]));
  }
  std::vector<float> last;
  std::vector<int32_t> starts = {0}, contexts, table;
  for (int s = 0; s < 4; ++s) {
    last.insert(last.end(), qkvs[s].end() - pages.width(), qkvs[s].end());
    starts.push_back(s + 1);
    contexts.push_back(static_cast<int32_t>(lengths[s]));
    table.insert(table.end(), tables[s].begin(), tables[s].end());
  }
  std::vector<float> out(4 * 192);
  backend->PagedAttention(
      View(last, 4, pages.width()).Cols(0, 192), shape,
      {absl::MakeSpan(starts), absl::MakeSpan(contexts), absl::MakeSpan(table), max_blocks},
      pages.k, pages.v, View(out, 4, 192));
  for (int s = 0; s < 4; ++s) {
    CHECK(std::vector<float>(out.begin() + s * 192, out.begin() + (s + 1) * 192) == alone[s]);
  }
}

TEST_CASE("scores of any size neither overflow nor vanish", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const AttentionShape shape = {2, 1, 16, 1.0f, 0};
  Pages pages(backend.get(), shape, 9, 16);
  // One key towers over all others: the result is its value alone.
  std::vector<float> qkv(60 * pages.width());
  for (int64_t i = 0; i < 60; ++i) {
    float* row = &qkv[i * pages.width()];
    for (int d = 0; d < 32; ++d) row[d] = 100;
    for (int d = 0; d < 16; ++d) row[32 + d] = i == 20 ? 100 : -100;
    for (int d = 0; d < 16; ++d) row[48 + d] = static_cast<float>(i);
  }
  const std::vector<float> out = pages.Step(qkv, Table(4), 0, 60);
  for (int64_t i = 20; i < 60; ++i) CHECK(out[i * 32 + 5] == 20);
  CHECK(out[10 * 32] == Approx(5));  // equal scores: the mean of 0..10
}

}  // namespace
}  // namespace fastgen::testing
