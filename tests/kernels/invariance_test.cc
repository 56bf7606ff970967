// A row's result is one function of the row: bit for bit the same for every number of rows around
// it, in any order, on any number of threads. And what the paths share they share to the bit: the
// quantisation of activations and the products with integer weights.
#include <cstring>
#include <limits>
#include <numeric>

#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/products_under_test.h"

namespace fastgen::testing {
namespace {

constexpr int64_t kMaxRows = 40;

// Every row alone.
std::vector<float> RowByRow(Backend* backend, const std::vector<float>& x, int64_t rows,
                            const PackedMatrix& w) {
  std::vector<float> out;
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<float> y = Product(backend, RowsOf(x, w.cols(), row, row + 1), 1, w);
    out.insert(out.end(), y.begin(), y.end());
  }
  return out;
}

TEST_CASE("a row's product has the same bits among any number of rows from 1 to 40", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends(1)));
  const auto backend = Open(options);
  for (const WeightKind& kind : WeightKinds()) {
    INFO(backend->Describe() << " " << kind.name());
    const int64_t cols = kind.unit() == 256 ? 256 : 96, outputs = 37;
    const auto packed = PackKind(backend.get(), kind, outputs, cols, 5);
    const std::vector<float> x = Gaussian(kMaxRows * cols, 6);
    const std::vector<float> alone = RowByRow(backend.get(), x, kMaxRows, *packed);
    int64_t first_wrong = 0;
    for (int64_t rows = kMaxRows; rows >= 1; --rows) {
      const std::vector<float> batch =
          Product(backend.get(), RowsOf(x, cols, 0, rows), rows, *packed);
      if (!SameBits(batch, RowsOf(alone, outputs, 0, rows))) first_wrong = rows;
    }
    CHECK(first_wrong == 0);
  }
}

TEST_CASE("a row's product has the same bits wherever the row stands", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends(2)));
  const auto backend = Open(options);
  for (const WeightKind& kind : WeightKinds()) {
    INFO(backend->Describe() << " " << kind.name());
    const int64_t cols = kind.unit() == 256 ? 256 : 160, outputs = 19;
    const auto packed = PackKind(backend.get(), kind, outputs, cols, 7);
    const std::vector<float> x = Gaussian(kMaxRows * cols, 8);
    const std::vector<float> in_order = Product(backend.get(), x, kMaxRows, *packed);
    std::vector<int64_t> order(kMaxRows);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(9));
    std::vector<float> shuffled, expected;
    for (int64_t row : order) {
      const std::vector<float> from = RowsOf(x, cols, row, row + 1);
      const std::vector<float> to = RowsOf(in_order, outputs, row, row + 1);
      shuffled.insert(shuffled.end(), from.begin(), from.end());
      expected.insert(expected.end(), to.begin(), to.end());
    }
    CHECK(SameBits(Product(backend.get(), shuffled, kMaxRows, *packed), expected));
  }
}

TEST_CASE("a product has the same bits on any number of threads, also more than cores",
          "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const ComputeDType compute = GENERATE(ComputeDType::kAuto, ComputeDType::kF32);
  const auto one = Open(OptionsFor(path, compute, 1));
  for (int num_threads : {2, 3, 4, 9}) {
    const auto many = Open(OptionsFor(path, compute, num_threads));
    for (const WeightKind& kind : WeightKinds()) {
      // More panels than threads, and a last one that is not full.
      const int64_t cols = 512, outputs = 330;
      const auto on_one = PackKind(one.get(), kind, outputs, cols, 15);
      const auto on_many = PackKind(many.get(), kind, outputs, cols, 15);
      INFO(many->Describe() << " " << kind.name());
      for (int64_t rows : {1, 35}) {
        const std::vector<float> x = Gaussian(rows * cols, 16);
        CHECK(
            SameBits(Product(many.get(), x, rows, *on_many), Product(one.get(), x, rows, *on_one)));
      }
    }
  }
}

TEST_CASE("rows beyond what a core's cache holds at once have the bits that they have alone",
          "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends(3)));
  const auto backend = Open(options);
  const int64_t cols = 2048, rows = 256, outputs = 35;
  for (const WeightKind kind : {WeightKind{DType::kF32}, WeightKind{DType::kBF16},
                                WeightKind{DType::kQ4_1}, WeightKind{DType::kQ6_K}}) {
    INFO(backend->Describe() << " " << kind.name());
    const auto packed = PackKind(backend.get(), kind, outputs, cols, 17);
    const std::vector<float> x = Gaussian(rows * cols, 18);
    const std::vector<float> whole = Product(backend.get(), x, rows, *packed);
    for (int64_t row : {0, 63, 64, 65, 127, 128, 200, 255}) {
      INFO("row " << row);
      CHECK(SameBits(Product(backend.get(), RowsOf(x, cols, row, row + 1), 1, *packed),
                     RowsOf(whole, outputs, row, row + 1)));
    }
  }
}

// Activations that make rounding hard: ties between two integers, groups of zeros, of next to
// nothing and of huge values, one-hot groups, groups that int8 holds exactly.
std::vector<float> HardToQuantize(int64_t rows, int64_t cols) {
  std::mt19937 random(31);
  std::vector<float> x = Gaussian(rows * cols, 32);
  for (int64_t group = 0; group < rows * cols / 32; ++group) {
    float* at = &x[group * 32];
    const float magnitude = std::ldexp(1.0f, static_cast<int>(random() % 120) - 60);
    switch (random() % 8) {
      case 0:  // ties: the largest is 127, so that the scale is 1
        for (int i = 0; i < 32; ++i) at[i] = static_cast<float>(random() % 253) - 126 + 0.5f;
        at[random() % 32] = 127;
        break;
      case 1:
        std::fill_n(at, 32, 0.0f);
        break;
      case 2:
        for (int i = 0; i < 32; ++i) at[i] *= 1e-40f;
        break;
      case 3:
        for (int i = 0; i < 32; ++i) at[i] *= 1e30f;
        break;
      case 4:
        std::fill_n(at, 32, 0.0f);
        at[random() % 32] = -magnitude;
        break;
      case 5:
        for (int i = 0; i < 32; ++i) at[i] = i % 2 == 0 ? magnitude : -magnitude;
        break;
      case 6:  // at the border below which a group is nothing
        for (int i = 0; i < 32; ++i) at[i] = 1e-30f * (random() % 2 == 0 ? 1.0f : 0.5f);
        break;
      default:
        for (int i = 0; i < 32; ++i) at[i] *= magnitude;
        break;
    }
  }
  return x;
}

// A matrix of Q8_0 whose product with x is x as the backend quantises it: the identity.
std::unique_ptr<PackedMatrix> Identity(Backend* backend, int64_t cols) {
  const size_t stride = Info(DType::kQ8_0).block_bytes;
  std::vector<uint8_t> bytes(BytesOf(DType::kQ8_0, cols * cols));
  for (size_t block = 0; block < bytes.size() / stride; ++block) {
    const uint16_t one = 0x3c00;
    std::memcpy(&bytes[block * stride], &one, 2);
  }
  for (int64_t row = 0; row < cols; ++row) {
    bytes[(row * cols + row) / 32 * stride + 2 + row % 32] = 1;
  }
  const MatrixSource source = {bytes.data(), DType::kQ8_0, cols, cols, {}};
  auto packed = backend->PackMatrix({&source, 1});
  REQUIRE(packed.ok());
  return *std::move(packed);
}

TEST_CASE("activations become the same int8 values on every path", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  const int64_t cols = 128;
  const auto identity = Identity(backend.get(), cols);
  for (int64_t rows = 1; rows <= 17; ++rows) {
    const std::vector<float> x = HardToQuantize(rows, cols);
    std::vector<float> expected = x;
    for (size_t i = 0; i < expected.size(); i += 32) QuantizeGroupInt8(&expected[i]);
    const std::vector<float> got = Product(backend.get(), x, rows, *identity);
    INFO(path << " " << rows << " rows");
    // == instead of memcmp: 0 and -0 are the same value.
    CHECK(got == expected);
  }
}

// Sums are exact integers inside a group and fp32 in one order across groups, rounded once a step.
TEST_CASE("products with integer weights have the same bits on every path", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 2));
  const auto generic = Open(OptionsFor("generic", ComputeDType::kAuto, 1));
  for (const WeightKind& kind : WeightKinds()) {
    if (!kind.is_integer()) continue;
    // One block, one group, and rows whose last block of several groups is not full.
    for (int64_t units : {1, 2, 5, 9}) {
      const int64_t cols = units * kind.unit(), outputs = 41;
      const auto on_path = PackKind(backend.get(), kind, outputs, cols, 51);
      const auto on_generic = PackKind(generic.get(), kind, outputs, cols, 51);
      for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33}) {
        const std::vector<float> x =
            rows % 2 == 0 ? Gaussian(rows * cols, 52) : HardToQuantize(rows, cols);
        INFO(path << " " << kind.name() << " " << rows << " x " << cols);
        CHECK(Product(backend.get(), x, rows, *on_path) ==
              Product(generic.get(), x, rows, *on_generic));
      }
    }
  }
}

TEST_CASE("a row that is not finite leaves every other row's bits alone", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends(2)));
  const float poison =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
               -std::numeric_limits<float>::infinity());
  const auto backend = Open(options);
  for (const WeightKind& kind : WeightKinds()) {
    const int64_t cols = 256, outputs = 20;
    const auto packed = PackKind(backend.get(), kind, outputs, cols, 61);
    for (const auto& [rows, poisoned] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 0}, {2, 1}, {8, 7}, {9, 8}, {16, 0}, {17, 16}, {33, 15}, {33, 32}}) {
      std::vector<float> x = Gaussian(rows * cols, 62);
      const std::vector<float> clean = Product(backend.get(), x, rows, *packed);
      x[poisoned * cols + 37] = poison;
      const std::vector<float> out = Product(backend.get(), x, rows, *packed);
      INFO(backend->Describe() << " " << kind.name() << " row " << poisoned << " of " << rows);
      int64_t num_wrong = 0;
      for (int64_t row = 0; row < rows; ++row) {
        const std::vector<float> got = RowsOf(out, outputs, row, row + 1);
        if (row != poisoned) {
          num_wrong += !SameBits(got, RowsOf(clean, outputs, row, row + 1));
        } else {
          num_wrong +=
              std::any_of(got.begin(), got.end(), [](float y) { return std::isfinite(y); });
        }
      }
      CHECK(num_wrong == 0);
    }
  }
}

// ---- the other ops ----

TEST_CASE("norms, SiLU and RoPE give a row the same bits alone, in a batch and on any threads",
          "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto one = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  const AttentionShape shape = {3, 1, 40, 1, 0};
  const int64_t rows = 200, width = 5 * shape.head_dim;  // enough values to be cut up
  const std::vector<float> x = Gaussian(rows * width, 71, 3);
  std::vector<float> weight = Gaussian(width, 72), cos_sin = Gaussian(rows * shape.head_dim, 73);
  const Tensor head_norm(weight.data(), DType::kF32, {shape.head_dim});
  const int64_t num_blocks = 13, block_size = 16;
  const int64_t cache_elements = num_blocks * block_size * shape.head_dim;
  auto k_memory = *one->Allocate(BytesOf(one->kv_dtype(), cache_elements));
  auto v_memory = *one->Allocate(BytesOf(one->kv_dtype(), cache_elements));
  // All ops on rows [begin, end), one result behind the other.
  const auto run = [&](Backend* backend, int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    const std::vector<float> in = RowsOf(x, width, begin, end);
    const std::vector<float> normed = InputReader(backend, width).RmsNorm(in, weight, 1e-5f);
    const std::vector<float> silu = InputReader(backend, width / 2).SiluMul(in);
    std::vector<float> qkv = in;
    backend->RmsNormQueriesAndKeys(View(qkv, count, width), shape, head_norm, head_norm, 1e-6f);
    std::vector<int32_t> positions(count);
    std::vector<int64_t> slots(count);
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(begin));
    std::iota(slots.begin(), slots.end(), begin);
    const std::initializer_list<int64_t> dims = {num_blocks, 1, block_size, shape.head_dim};
    backend->RopeAndWriteKv(View(qkv, count, width), shape, View(cos_sin, rows, shape.head_dim),
                            absl::MakeSpan(positions), absl::MakeSpan(slots),
                            Tensor(k_memory->data(), one->kv_dtype(), dims),
                            Tensor(v_memory->data(), one->kv_dtype(), dims));
    REQUIRE(backend->Synchronize().ok());
    return std::vector<std::vector<float>>{normed, silu, qkv};
  };
  const auto whole = run(one.get(), 0, rows);
  const std::vector<int64_t> widths = {width, width / 2, width};
  for (int num_threads : {1, 2, 3, 4}) {
    const auto many = Open(OptionsFor(path, ComputeDType::kAuto, num_threads));
    const auto together = run(many.get(), 0, rows);
    for (int op = 0; op < 3; ++op) {
      INFO(many->Describe() << " op " << op);
      CHECK(SameBits(together[op], whole[op]));
    }
  }
  int64_t num_wrong = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const auto alone = run(one.get(), row, row + 1);
    for (int op = 0; op < 3; ++op) {
      num_wrong += !SameBits(alone[op], RowsOf(whole[op], widths[op], row, row + 1));
    }
  }
  CHECK(num_wrong == 0);
}

}  // namespace
}  // namespace fastgen::testing
