// Attention over contexts of several partitions, for every sharing of keys, head size and window:
// the rows of a prompt against double precision, and the same rows to the bit when they are decoded
// alone, in chunks, beside others and on any number of threads.
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "tests/kernels/pages_under_test.h"
#include "tests/kernels/products_under_test.h"

namespace fastgen::testing {
namespace {

// Beyond two partitions of 256 keys, the last block not full.
constexpr int64_t kLength = 597;

// Positions at and around the borders of blocks, key tiles, partitions and the window of 300.
const std::vector<int64_t>& Positions() {
  static const std::vector<int64_t> positions = {0,   1,   15,  64,  255, 256, 257,
                                                 299, 300, 301, 511, 512, 513, kLength - 1};
  return positions;
}

struct Case {
  AttentionShape shape;
  int64_t block_size;
  std::string name() const {
    return "heads " + std::to_string(shape.q_heads) + "/" + std::to_string(shape.kv_heads) +
           " dim " + std::to_string(shape.head_dim) + " window " + std::to_string(shape.window) +
           " block " + std::to_string(block_size);
  }
};

// Every sharing with every head size, half of them with a window; each sharing and each size has
// both windows and both block sizes.
std::vector<Case> Cases() {
  const std::vector<int64_t> ratios = {1, 3, 4, 8}, head_dims = {64, 80, 96, 128};
  std::vector<Case> cases;
  for (size_t i = 0; i < ratios.size(); ++i) {
    for (size_t j = 0; j < head_dims.size(); ++j) {
      const int64_t kv_heads = ratios[i] == 8 ? 1 : 2;
      const float scale = 1 / std::sqrt(static_cast<float>(head_dims[j]));
      const int64_t window = (i + j) % 2 == 0 ? 0 : 300;
      const int64_t block_size = (i / 2 + j) % 2 == 0 ? 16 : 64;
      cases.push_back({{ratios[i] * kv_heads, kv_heads, head_dims[j], scale, window}, block_size});
    }
  }
  return cases;
}

// q, k and v of every row of a case.
const std::vector<float>& Inputs(size_t index) {
  static std::map<size_t, std::vector<float>> known;
  std::vector<float>& inputs = known[index];
  if (inputs.empty()) {
    const AttentionShape shape = Cases()[index].shape;
    inputs = Gaussian(kLength * (shape.q_heads + 2 * shape.kv_heads) * shape.head_dim, 5);
  }
  return inputs;
}

// One row of attention in double, its keys and values as the pages hold them.
std::vector<double> ExpectedRow(const std::vector<float>& qkv, const AttentionShape& shape,
                                int64_t position, bool is_bf16) {
  const int64_t dim = shape.head_dim, width = (shape.q_heads + 2 * shape.kv_heads) * dim;
  const auto held = [&](int64_t row, int64_t at) {
    const float value = qkv[row * width + at];
    return is_bf16 ? ToBf16(value) : double{value};
  };
  std::vector<double> out(shape.q_heads * dim);
  const int64_t first = shape.window > 0 ? std::max<int64_t>(0, position - shape.window + 1) : 0;
  for (int64_t head = 0; head < shape.q_heads; ++head) {
    const int64_t kv_head = head / (shape.q_heads / shape.kv_heads);
    const int64_t key_at = (shape.q_heads + kv_head) * dim;
    const int64_t value_at = key_at + shape.kv_heads * dim;
    std::vector<double> weights;
    for (int64_t j = first; j <= position; ++j) {
      double dot = 0;
      for (int64_t d = 0; d < dim; ++d) {
        dot += double{qkv[position * width + head * dim + d]} * held(j, key_at + d);
      }
      weights.push_back(dot * double{shape.scale});
    }
    const double max = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - max);
    for (int64_t j = first; j <= position; ++j) {
      for (int64_t d = 0; d < dim; ++d) {
        out[head * dim + d] += weights[j - first] / sum * held(j, value_at + d);
      }
    }
  }
  return out;
}

// The chosen rows of every case, computed once for all backends.
const std::vector<double>& Expected(size_t index, int64_t position, bool is_bf16) {
  static std::map<std::tuple<size_t, int64_t, bool>, std::vector<double>> known;
  std::vector<double>& row = known[{index, position, is_bf16}];
  if (row.empty()) row = ExpectedRow(Inputs(index), Cases()[index].shape, position, is_bf16);
  return row;
}

TEST_CASE("long rows of every shape agree with double precision", "[kernels][attention]") {
  const std::vector<Case> cases = Cases();
  for (const BackendOptions& options : Backends()) {
    const auto backend = Open(options);
    const bool is_bf16 = backend->kv_dtype() == DType::kBF16;
    for (size_t i = 0; i < cases.size(); ++i) {
      const Case& c = cases[i];
      const int64_t num_blocks = (kLength + c.block_size - 1) / c.block_size;
      Pages pages(backend.get(), c.shape, 2 * num_blocks + 1, c.block_size);
      const std::vector<float> out = pages.Step(Inputs(i), Table(num_blocks), 0, kLength);
      const int64_t out_width = c.shape.q_heads * c.shape.head_dim;
      for (int64_t position : Positions()) {
        INFO(backend->Describe() << " " << c.name() << " position " << position);
        // bf16 scores round q, and weights that are added (2^-9 relative).
        CHECK(RelativeError(RowsOf(out, out_width, position, position + 1),
                            Expected(i, position, is_bf16)) < (is_bf16 ? 5e-3 : 4e-6));
      }
    }
  }
}

TEST_CASE("a prompt's rows have the same bits decoded, in chunks, in a crowd, on any threads",
          "[kernels][attention]") {
  const std::string path = GENERATE(from_range(Paths()));
  const ComputeDType compute = GENERATE(ComputeDType::kAuto, ComputeDType::kF32);
  std::vector<std::unique_ptr<Backend>> backends;
  for (int num_threads : {1, 2, 4}) {
    backends.push_back(Open(OptionsFor(path, compute, num_threads)));
  }
  const std::vector<Case> cases = Cases();
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    const int64_t num_blocks = (kLength + c.block_size - 1) / c.block_size;
    const std::vector<int32_t> table = Table(num_blocks);
    const int64_t out_width = c.shape.q_heads * c.shape.head_dim;
    std::vector<float> whole;
    for (const auto& backend : backends) {
      INFO(backend->Describe() << " " << c.name());
      Pages pages(backend.get(), c.shape, 2 * num_blocks + 1, c.block_size);
      const std::vector<float>& qkv = Inputs(i);
      const std::vector<float> out = pages.Step(qkv, table, 0, kLength);
      if (whole.empty()) whole = out;
      CHECK(SameBits(out, whole));
      // Every chosen row as a sequence of its own, all in one step; then each alone.
      std::vector<Pages::Part> parts;
      std::vector<float> rows, expected;
      for (int64_t position : Positions()) {
        const std::vector<float> row = RowsOf(qkv, pages.width(), position, position + 1);
        const std::vector<float> wanted = RowsOf(whole, out_width, position, position + 1);
        INFO("position " << position);
        CHECK(SameBits(pages.Attend(row, table, {{position, position + 1}}), wanted));
        parts.push_back({position, position + 1});
        rows.insert(rows.end(), row.begin(), row.end());
        expected.insert(expected.end(), wanted.begin(), wanted.end());
      }
      CHECK(SameBits(pages.Attend(rows, table, parts), expected));
      // Chunks of odd sizes beside one another.
      parts = {{3, 40}, {250, 261}, {0, 1}, {290, 301}, {590, kLength}};
      rows.clear();
      expected.clear();
      for (const Pages::Part& part : parts) {
        const std::vector<float> chunk = RowsOf(qkv, pages.width(), part.begin, part.end);
        const std::vector<float> wanted = RowsOf(whole, out_width, part.begin, part.end);
        rows.insert(rows.end(), chunk.begin(), chunk.end());
        expected.insert(expected.end(), wanted.begin(), wanted.end());
      }
      CHECK(SameBits(pages.Attend(rows, table, parts), expected));
    }
  }
}

TEST_CASE("rows before one that is not finite do not notice it, wherever it stands",
          "[kernels][attention]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const AttentionShape shape = {6, 2, 64, 0.125f, 0};
  const int64_t length = 90, block_size = 16, num_blocks = 6;
  const std::vector<int32_t> table = Table(num_blocks);
  Pages clean_pages(backend.get(), shape, 2 * num_blocks + 1, block_size);
  const int64_t width = clean_pages.width(), out_width = shape.q_heads * shape.head_dim;
  const std::vector<float> qkv = Gaussian(length * width, 7);
  const std::vector<float> clean = clean_pages.Step(qkv, table, 0, length);
  for (int64_t poisoned : {1, 7, 45, 48, 89}) {
    std::vector<float> with_nan = qkv;
    std::fill_n(with_nan.begin() + poisoned * width, width,
                std::numeric_limits<float>::quiet_NaN());
    Pages pages(backend.get(), shape, 2 * num_blocks + 1, block_size);
    const std::vector<float> out = pages.Step(with_nan, table, 0, length);
    INFO(backend->Describe() << " row " << poisoned);
    CHECK(SameBits(RowsOf(out, out_width, 0, poisoned), RowsOf(clean, out_width, 0, poisoned)));
    const auto is_nan = [](float value) { return std::isnan(value); };
    CHECK(std::all_of(out.begin() + poisoned * out_width, out.end(), is_nan));
  }
}

TEST_CASE(
    "rows of a chunk that follows a long context do not notice a later one that is not finite",
    "[kernels][attention]") {
  const BackendOptions options = GENERATE(from_range(Backends(3)));
  const auto backend = Open(options);
  const AttentionShape shape = {6, 2, 64, 0.125f, 0};
  const int64_t length = 530, begin = 520, poisoned = 526, block_size = 16, num_blocks = 34;
  const std::vector<int32_t> table = Table(num_blocks);
  Pages pages(backend.get(), shape, 2 * num_blocks + 1, block_size);
  const int64_t width = pages.width(), out_width = shape.q_heads * shape.head_dim;
  std::vector<float> qkv = Gaussian(length * width, 9);
  const std::vector<float> clean = pages.Step(qkv, table, 0, length);
  std::fill_n(qkv.begin() + poisoned * width, width, std::numeric_limits<float>::quiet_NaN());
  const std::vector<float> out = pages.Step(qkv, table, begin, length);
  INFO(backend->Describe());
  CHECK(SameBits(RowsOf(out, out_width, 0, poisoned - begin),
                 RowsOf(clean, out_width, begin, poisoned)));
  CHECK(std::isnan(out[(poisoned - begin) * out_width]));
}

TEST_CASE("queries, keys and values at the ends of the range do not overflow",
          "[kernels][attention]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const bool is_bf16 = backend->kv_dtype() == DType::kBF16;
  const AttentionShape shape = {4, 1, 80, 0.1118f, 0};
  const int64_t length = 70, block_size = 16, num_blocks = 5, dim = shape.head_dim;
  // Magnitudes of q, of k and of v.
  for (const auto& [q, k, v] : std::vector<std::tuple<float, float, float>>{{1e-40f, 1.0f, 1.0f},
                                                                            {1.0f, 1e-40f, 1e30f},
                                                                            {1e4f, 1e4f, 1.0f},
                                                                            {1e-3f, 1.0f, 1e-30f},
                                                                            {0.0f, 0.0f, 0.0f}}) {
    Pages pages(backend.get(), shape, 2 * num_blocks + 1, block_size);
    const int64_t width = pages.width();
    std::vector<float> qkv = Gaussian(length * width, 8);
    for (int64_t i = 0; i < length * width; ++i) {
      const int64_t head = i % width / dim;
      qkv[i] *= head < shape.q_heads ? q : head == shape.q_heads ? k : v;
    }
    const std::vector<float> out = pages.Step(qkv, Table(num_blocks), 0, length);
    INFO(backend->Describe() << " q " << q << " k " << k << " v " << v);
    const int64_t out_width = shape.q_heads * dim;
    for (int64_t position : {0, 1, 33, 69}) {
      const std::vector<float> got = RowsOf(out, out_width, position, position + 1);
      // Scores of 1e8 choose one key or another: what is rounded decides. They must choose some.
      if (q == 1e4f && is_bf16) {
        CHECK(std::all_of(got.begin(), got.end(), [](float y) { return std::abs(y) < 6; }));
        continue;
      }
      const std::vector<double> expected = ExpectedRow(qkv, shape, position, is_bf16);
      CHECK(RelativeError(got, expected) < (is_bf16 ? 5e-3 : q == 1e4f ? 1e-3 : 4e-6));
    }
  }
}

}  // namespace
}  // namespace fastgen::testing
