#include <cstring>
#include <limits>

#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/random_weights.h"
#include "tests/testing/reference_ops.h"

namespace fastgen::testing {
namespace {

std::unique_ptr<PackedMatrix> Pack(Backend* backend, const std::vector<MatrixSource>& parts) {
  auto packed = backend->PackMatrix(absl::MakeSpan(parts));
  REQUIRE(packed.ok());
  return *std::move(packed);
}

std::vector<float> Multiply(Backend* backend, std::vector<float> x, int64_t rows,
                            const PackedMatrix& w) {
  std::vector<float> out(rows * w.rows(), -1);
  backend->MatMul(View(x, rows, w.cols()), w, Tensor(), Tensor(), View(out, rows, w.rows()));
  REQUIRE(backend->Synchronize().ok());
  return out;
}

// The activations that a backend multiplies: x itself in fp32 mode and for float weights, else
// rounded to int8 per group of 32 with scale max / 127, or to bf16.
std::vector<float> AsServed(std::vector<float> x, int64_t cols, const BackendOptions& options,
                            DType dtype) {
  if (options.compute_dtype == ComputeDType::kF32) return x;
  if (dtype == DType::kBF16 && (options.cpu_isa == "avx512-bf16" || options.cpu_isa == "amx")) {
    for (float& value : x) {
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
      std::memcpy(&value, &bits, 4);
    }
  }
  if (!IsBlockType(dtype)) return x;
  for (auto group = x.begin(); group != x.end(); group += 32) {
    float max = 0;
    for (int i = 0; i < 32; ++i) max = std::max(max, std::abs(group[i]));
    for (int i = 0; i < 32; ++i) group[i] = std::nearbyint(group[i] * (127 / max)) * (max / 127);
  }
  return x;
}

// The sums are fp32. A value at the middle between two integers may be rounded either way.
constexpr double kTolerance = 2e-6;
double Tolerance(const BackendOptions& options, DType dtype) {
  return options.compute_dtype == ComputeDType::kAuto && IsBlockType(dtype) ? 1e-4 : kTolerance;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_CASE("product agrees with double precision for every weight type and number of rows",
          "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (DType dtype : WeightDTypes()) {
    const bool is_long = Info(dtype).block_elements == 256;
    for (const auto& [outputs, cols] : std::vector<std::pair<int64_t, int64_t>>{
             {70, is_long ? 256 : 96}, {33, is_long ? 512 : 576}, {5, is_long ? 256 : 160}}) {
      const RandomWeights weights(dtype, outputs, cols, 11);
      const auto packed = Pack(backend.get(), {weights.source});
      CHECK(packed->rows() == outputs);
      for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 40}) {
        const std::vector<float> x = Gaussian(rows * cols, 5);
        INFO(backend->Describe() << " " << Info(dtype).name << " " << rows << " x " << cols << " x "
                                 << outputs);
        const std::vector<double> expected =
            ReferenceMatMul(AsServed(x, cols, options, dtype), rows, weights.source);
        CHECK(RelativeError(Multiply(backend.get(), x, rows, *packed), expected) <
              Tolerance(options, dtype));
      }
    }
  }
}

TEST_CASE("float weights of any width multiply right", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int64_t cols : {1, 2, 7, 31, 33, 47, 63, 145}) {
      const RandomWeights weights(dtype, 19, cols, 3);
      const auto packed = Pack(backend.get(), {weights.source});
      const std::vector<float> x = Gaussian(3 * cols, 6);
      INFO(backend->Describe() << " " << Info(dtype).name << " cols " << cols);
      const std::vector<double> expected =
          ReferenceMatMul(AsServed(x, cols, options, dtype), 3, weights.source);
      CHECK(RelativeError(Multiply(backend.get(), x, 3, *packed), expected) < 2 * kTolerance);
    }
  }
}

TEST_CASE(
    "a row's product has the same bits alone, in a batch, in pieces and on any number of threads",
    "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const ComputeDType compute = GENERATE(ComputeDType::kAuto, ComputeDType::kF32);
  const auto two = Open(OptionsFor(path, compute, 2));
  const auto one = Open(OptionsFor(path, compute, 1));
  const int64_t rows = 33, cols = 768, outputs = 200;
  for (DType dtype : WeightDTypes()) {
    INFO(two->Describe() << " " << Info(dtype).name);
    const RandomWeights weights(dtype, outputs, cols, 12);
    const auto on_two = Pack(two.get(), {weights.source});
    const auto on_one = Pack(one.get(), {weights.source});
    const std::vector<float> x = Gaussian(rows * cols, 7);
    const std::vector<float> whole = Multiply(two.get(), x, rows, *on_two);
    CHECK(SameBits(whole, Multiply(one.get(), x, rows, *on_one)));
    for (int64_t piece : {1, 5, 8, 20}) {
      std::vector<float> joined;
      for (int64_t row = 0; row < rows; row += piece) {
        const int64_t count = std::min(piece, rows - row);
        const std::vector<float> part(x.begin() + row * cols, x.begin() + (row + count) * cols);
        const std::vector<float> out = Multiply(two.get(), part, count, *on_two);
        joined.insert(joined.end(), out.begin(), out.end());
      }
      INFO("pieces of " << piece);
      CHECK(SameBits(whole, joined));
    }
  }
}

TEST_CASE("int8 sums do not saturate at the largest values", "[kernels]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  for (DType dtype : BlockDTypes()) {
    for (uint8_t fill : {0x00, 0x7f, 0x80, 0xff}) {
      RandomWeights weights(dtype, 16, 256, 1);
      std::memset(weights.bytes.data(), fill, weights.bytes.size());
      const size_t stride = Info(dtype).block_bytes;
      for (size_t i = 0; i < weights.bytes.size(); i += stride) {
        const uint16_t one = 0x3c00;
        for (int at : BlockScaleOffsets(dtype)) std::memcpy(&weights.bytes[i + at], &one, 2);
      }
      const auto packed = Pack(backend.get(), {weights.source});
      for (float sign : {1.0f, -1.0f}) {
        const std::vector<float> x(256 * 2, sign);
        INFO(path << " " << Info(dtype).name << " fill " << int{fill} << " x " << sign);
        CHECK(RelativeError(Multiply(backend.get(), x, 2, *packed),
                            ReferenceMatMul(x, 2, weights.source)) < 1e-6);
      }
    }
  }
}

TEST_CASE("bias and residual are added, the residual in place", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const int64_t rows = 11, cols = 96, outputs = 45;
  const RandomWeights weights(DType::kF32, outputs, cols, 2);
  const auto packed = Pack(backend.get(), {weights.source});
  std::vector<float> x = Gaussian(rows * cols, 1), bias = Gaussian(outputs, 2);
  const std::vector<float> residual = Gaussian(rows * outputs, 3);
  std::vector<float> out = residual;
  const Tensor out_view = View(out, rows, outputs);
  backend->MatMul(View(x, rows, cols), *packed, Tensor(bias.data(), DType::kF32, {outputs}),
                  out_view, out_view);
  std::vector<double> expected = ReferenceMatMul(x, rows, weights.source);
  for (int64_t i = 0; i < rows * outputs; ++i) expected[i] += bias[i % outputs] + residual[i];
  CHECK(RelativeError(out, expected) < 1e-6);
}

TEST_CASE("stacked parts of different types keep their rows and order", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const int64_t cols = 256, rows = 10;
  const RandomWeights q(DType::kQ4_1, 40, cols, 1), k(DType::kQ5_K, 24, cols, 2),
      v(DType::kBF16, 24, cols, 3), o(DType::kF32, 7, cols, 4);
  std::vector<int32_t> order(40);
  for (int i = 0; i < 40; ++i) order[i] = (i * 7) % 40;
  std::vector<MatrixSource> parts = {q.source, k.source, v.source, o.source};
  parts[0].row_order = order;
  const auto packed = Pack(backend.get(), parts);
  REQUIRE(packed->rows() == 95);
  const std::vector<float> x = Gaussian(rows * cols, 9);
  const std::vector<float> out = Multiply(backend.get(), x, rows, *packed);
  int64_t first = 0;
  for (const MatrixSource& part : parts) {
    const std::vector<double> expected =
        ReferenceMatMul(AsServed(x, cols, options, part.dtype), rows, part);
    std::vector<float> got;
    for (int64_t r = 0; r < rows; ++r) {
      got.insert(got.end(), out.begin() + r * 95 + first, out.begin() + r * 95 + first + part.rows);
    }
    INFO(backend->Describe() << " " << Info(part.dtype).name);
    CHECK(RelativeError(got, expected) < Tolerance(options, part.dtype));
    first += part.rows;
  }
}

TEST_CASE("embedding reads rows of the packed table as the file defines them", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (DType dtype : WeightDTypes()) {
    const RandomWeights weights(dtype, 77, 256, 21);
    const RandomWeights tail(DType::kF16, 5, 256, 22);
    const auto packed = Pack(backend.get(), {weights.source, tail.source});
    const std::vector<int32_t> ids = {0, 76, 16, 15, 31, 76, 77, 81};
    std::vector<float> out(ids.size() * 256);
    backend->EmbedRows(*packed, absl::MakeSpan(ids),
                       View(out, static_cast<int64_t>(ids.size()), 256));
    std::vector<double> expected;
    for (int32_t id : ids) {
      const std::vector<double> row =
          id < 77 ? DequantizedRow(weights.source, id) : DequantizedRow(tail.source, id - 77);
      expected.insert(expected.end(), row.begin(), row.end());
    }
    INFO(backend->Describe() << " " << Info(dtype).name);
    CHECK(RelativeError(out, expected) < 1e-7);
  }
}

TEST_CASE("a NaN or infinity poisons its own row only", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const float poison =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  const auto backend = Open(options);
  for (DType dtype : WeightDTypes()) {
    const RandomWeights weights(dtype, 32, 256, 4);
    const auto packed = Pack(backend.get(), {weights.source});
    std::vector<float> x = Gaussian(9 * 256, 2);
    const std::vector<float> clean = Multiply(backend.get(), x, 9, *packed);
    x[3 * 256 + 100] = poison;
    const std::vector<float> out = Multiply(backend.get(), x, 9, *packed);
    INFO(backend->Describe() << " " << Info(dtype).name);
    bool others_equal = true, poisoned = true;
    for (int64_t i = 0; i < 9 * 32; ++i) {
      if (i / 32 == 3) {
        poisoned = poisoned && !std::isfinite(out[i]);
      } else {
        others_equal = others_equal && out[i] == clean[i];
      }
    }
    CHECK(others_equal);
    CHECK(poisoned);
  }
}

TEST_CASE("strided input and output leave the gaps alone", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const RandomWeights weights(DType::kQ8_0, 20, 64, 4);
  const auto packed = Pack(backend.get(), {weights.source});
  std::vector<float> wide = Gaussian(9 * 100, 2), out(9 * 50, 7);
  backend->MatMul(View(wide, 9, 100).Cols(3, 64), *packed, Tensor(), Tensor(),
                  View(out, 9, 50).Cols(10, 20));
  std::vector<float> x, got;
  bool gaps_untouched = true;
  for (int64_t r = 0; r < 9; ++r) {
    x.insert(x.end(), wide.begin() + r * 100 + 3, wide.begin() + r * 100 + 67);
    got.insert(got.end(), out.begin() + r * 50 + 10, out.begin() + r * 50 + 30);
    for (int64_t i = 0; i < 50; ++i)
      gaps_untouched = gaps_untouched && ((i >= 10 && i < 30) || out[r * 50 + i] == 7);
  }
  const std::vector<double> expected =
      ReferenceMatMul(AsServed(x, 64, options, DType::kQ8_0), 9, weights.source);
  CHECK(RelativeError(got, expected) < Tolerance(options, DType::kQ8_0));
  CHECK(gaps_untouched);
}

TEST_CASE("a weight type without kernel is refused by name", "[kernels]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  const std::vector<int32_t> values(64);
  const MatrixSource source = {values.data(), DType::kI32, 2, 32, {}};
  const auto packed = backend->PackMatrix({&source, 1});
  REQUIRE(packed.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(packed.status().message()).find("I32") != std::string::npos);
}

}  // namespace
}  // namespace fastgen::testing
