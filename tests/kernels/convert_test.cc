// Weights rounded to another form while they are packed, and the fp8 product.
#include <cstring>
#include <limits>

#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/random_weights.h"
#include "tests/testing/reference_ops.h"

namespace fastgen::testing {
namespace {

const std::vector<WeightForm>& Forms() {
  static const std::vector<WeightForm> forms = {
      WeightForm::kBf16,        WeightForm::kInt8Group32,  WeightForm::kInt8Group128,
      WeightForm::kInt4Group32, WeightForm::kInt4Group128, WeightForm::kFp8Rows};
  return forms;
}

std::unique_ptr<PackedMatrix> PackAs(Backend* backend, MatrixSource source, WeightForm form) {
  source.form = form;
  auto packed = backend->PackMatrix({&source, 1});
  REQUIRE(packed.ok());
  return *std::move(packed);
}

// The whole matrix as the backend holds it.
std::vector<float> Held(Backend* backend, const PackedMatrix& matrix) {
  std::vector<int32_t> ids(matrix.rows());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  std::vector<float> out(matrix.rows() * matrix.cols());
  backend->EmbedRows(matrix, ids, View(out, matrix.rows(), matrix.cols()));
  return out;
}

// Every finite value of e4m3: 4 bits of exponent with bias 7, 3 of fraction; 0x7f is NaN.
const std::vector<double>& E4m3Values() {
  static const std::vector<double> values = [] {
    std::vector<double> all;
    for (int code = 0; code < 0x7f; ++code) {
      const int exponent = code >> 3, fraction = code & 7;
      all.push_back(exponent == 0 ? std::ldexp(fraction, -9)
                                  : std::ldexp(8 + fraction, exponent - 10));
    }
    return all;
  }();
  return values;
}

// The nearest of them by search; of two as near the one with the even code.
double NearestE4m3(double x) {
  const std::vector<double>& values = E4m3Values();
  size_t best = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    const double a = std::abs(std::abs(x) - values[i]);
    const double b = std::abs(std::abs(x) - values[best]);
    if (a < b || (a == b && i % 2 == 0)) best = i;
  }
  return std::copysign(values[best], x);
}

double LargestOf(const double* values, int64_t count) {
  double largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i]));
  return largest;
}

// How far a value may lie from the original: half a step of the form, and the rounding of its scale
// to f16 (2^-11 of what it multiplies).
double ErrorBound(WeightForm form, const std::vector<double>& row, int64_t k) {
  const auto group_of = [&](int64_t size) {
    const int64_t first = k / size * size;
    return std::make_pair(row.begin() + first,
                          row.begin() + std::min<int64_t>(first + size, row.size()));
  };
  const auto integers = [&](int64_t size, int bits) {
    const auto [begin, end] = group_of(size);
    const auto [low, high] = std::minmax_element(begin, end);
    const double largest = std::max(std::abs(*low), std::abs(*high));
    const double step = bits == 8 ? largest / 127 : (*high - *low) / 15;
    return step * 0.5 + largest * 0x1p-10;
  };
  switch (form) {
    case WeightForm::kBf16: return std::abs(row[k]) * 0x1p-8;
    case WeightForm::kInt8Group32: return integers(32, 8);
    case WeightForm::kInt8Group128: return integers(128, 8);
    case WeightForm::kInt4Group32: return integers(32, 4);
    case WeightForm::kInt4Group128: return integers(128, 4);
    case WeightForm::kFp8Rows:
      return std::max(std::abs(row[k]) * 0x1p-4 * 1.0001,
                      LargestOf(row.data(), static_cast<int64_t>(row.size())) / 448 * 0x1p-10);
    case WeightForm::kAsStored: return 0;
  }
  return 0;
}

TEST_CASE("converted weights are the nearest of their form, from every stored type",
          "[kernels][convert]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 2));
  const WeightForm form = GENERATE(from_range(Forms()));
  for (DType dtype : WeightDTypes()) {
    // 768 is six groups of 128; 544 (for float and short blocks) ends in a group of 32.
    for (int64_t cols : {768, 544}) {
      if (cols % Info(dtype).block_elements != 0) continue;
      const RandomWeights weights(dtype, 37, cols, 5);
      const std::vector<float> held =
          Held(backend.get(), *PackAs(backend.get(), weights.source, form));
      INFO(FormName(form) << " from " << Info(dtype).name << " cols " << cols);
      int64_t num_far = 0;
      for (int64_t n = 0; n < 37; ++n) {
        const std::vector<double> row = DequantizedRow(weights.source, n);
        for (int64_t k = 0; k < cols; ++k) {
          const double error = std::abs(held[n * cols + k] - row[k]);
          num_far += error <= ErrorBound(form, row, k) + 1e-9 ? 0 : 1;
        }
      }
      CHECK(num_far == 0);
    }
  }
}

TEST_CASE("a group of 128 has one scale, the last of a row may be shorter", "[kernels][convert]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kF32, 1));
  const RandomWeights weights(DType::kF32, 32, 128 * 5 + 32, 6);
  const auto size = [&](WeightForm form) {
    return PackAs(backend.get(), weights.source, form)->bytes();
  };
  CHECK(size(WeightForm::kInt8Group32) == 32 * 21 * 34);
  CHECK(size(WeightForm::kInt8Group128) == 32 * (21 * 32 + 6 * 2));
  CHECK(size(WeightForm::kInt4Group32) == 32 * 21 * 20);
  CHECK(size(WeightForm::kInt4Group128) == 32 * (21 * 16 + 6 * 4));
}

TEST_CASE("products with converted weights agree with double precision", "[kernels][convert]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (WeightForm form : Forms()) {
    if (form == WeightForm::kFp8Rows) continue;  // its activations are rounded too: below
    const int64_t cols = 544, outputs = 35;
    const RandomWeights weights(DType::kBF16, outputs, cols, 8);
    const auto packed = PackAs(backend.get(), weights.source, form);
    const std::vector<float> held = Held(backend.get(), *packed);
    const MatrixSource as_held = {held.data(), DType::kF32, outputs, cols, {}};
    for (int64_t rows : {1, 8, 19}) {
      std::vector<float> x = Gaussian(rows * cols, 3), out(rows * outputs);
      backend->MatMul(View(x, rows, cols), *packed, Tensor(), Tensor(), View(out, rows, outputs));
      INFO(backend->Describe() << " " << FormName(form) << " rows " << rows);
      // Serving rounds activations to 8 bits: about 2^-8 of a deviation over a sum of them.
      const double bound = options.compute_dtype == ComputeDType::kF32 ? 2e-6 : 1e-2;
      CHECK(RelativeError(out, ReferenceMatMul(x, rows, as_held)) < bound);
    }
  }
}

TEST_CASE("fp8 weights are e4m3 times the row's largest / 448", "[kernels][convert]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  const RandomWeights weights(DType::kF32, 21, 330, 9);
  const std::vector<float> held =
      Held(backend.get(), *PackAs(backend.get(), weights.source, WeightForm::kFp8Rows));
  for (int64_t n = 0; n < 21; ++n) {
    const std::vector<double> row = DequantizedRow(weights.source, n);
    const float scale = static_cast<float>(LargestOf(row.data(), 330)) / 448;
    for (int64_t k = 0; k < 330; ++k) {
      // The quotient is rounded to float first, as the format's users do.
      const double expected =
          scale * NearestE4m3(static_cast<double>(static_cast<float>(row[k]) / scale));
      REQUIRE(held[n * 330 + k] == Approx(expected).epsilon(1e-6));
    }
  }
}

// A row of activations as fp8 serving has it: e4m3 values and their scale.
std::vector<double> AsFp8(const float* x, int64_t cols) {
  float largest = 0;
  for (int64_t k = 0; k < cols; ++k) largest = std::max(largest, std::abs(x[k]));
  largest = std::min(std::max(largest, 1e-12f), 1200.0f);
  const double scale = static_cast<double>(largest / 448);
  std::vector<double> row(cols);
  for (int64_t k = 0; k < cols; ++k) {
    row[k] = scale * NearestE4m3(static_cast<double>(x[k] * (448 / largest)));
  }
  return row;
}

std::vector<double> ReferenceFp8MatMul(const std::vector<float>& x, int64_t rows,
                                       const std::vector<float>& held, int64_t outputs) {
  const int64_t cols = static_cast<int64_t>(x.size()) / rows;
  std::vector<double> out(rows * outputs);
  for (int64_t r = 0; r < rows; ++r) {
    const std::vector<double> row = AsFp8(&x[r * cols], cols);
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < cols; ++k) out[r * outputs + n] += row[k] * held[n * cols + k];
    }
  }
  return out;
}

TEST_CASE("fp8 product is that of e4m3 activations and weights, times both scales",
          "[kernels][convert]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 2));
  for (int64_t cols : {64, 333}) {
    const int64_t outputs = 35;
    const RandomWeights weights(DType::kF32, outputs, cols, 8);
    const auto packed = PackAs(backend.get(), weights.source, WeightForm::kFp8Rows);
    const std::vector<float> held = Held(backend.get(), *packed);
    for (int64_t rows : {1, 7, 20}) {
      std::vector<float> x = Gaussian(rows * cols, 3), out(rows * outputs);
      // Beyond 1200 a value saturates; one far below the row's largest is subnormal or zero.
      x[0] = 5000;
      x[2] = -1300;
      for (int64_t k = 0; k < cols; k += 5) x[(rows - 1) * cols + k] *= 1e-4f;
      backend->MatMul(View(x, rows, cols), *packed, Tensor(), Tensor(), View(out, rows, outputs));
      INFO(path << " " << rows << " x " << cols);
      CHECK(RelativeError(out, ReferenceFp8MatMul(x, rows, held, outputs)) < 2e-6);
    }
  }
}

TEST_CASE("every e4m3 value and every middle between two survives the product",
          "[kernels][convert]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kAuto, 1));
  // Each value has a row of its own beside one column whose weight is 0; 448 sets the scale to 1.
  const float weights[2] = {1, 0};
  const auto pair =
      PackAs(backend.get(), {weights, DType::kF32, 1, 2, {}}, WeightForm::kFp8Rows);
  const std::vector<double>& values = E4m3Values();
  for (size_t i = 0; i + 1 < values.size(); ++i) {
    for (double value : {values[i], (values[i] + values[i + 1]) / 2, -values[i]}) {
      std::vector<float> x = {static_cast<float>(value), 448}, out(1);
      backend->MatMul(View(x, 1, 2), *pair, Tensor(), Tensor(), View(out, 1, 1));
      INFO(path << " " << value);
      REQUIRE(out[0] == Approx(NearestE4m3(value)).epsilon(1e-6).margin(1e-12));
    }
  }
}

TEST_CASE("fp32 mode multiplies fp8 weights by unrounded activations", "[kernels][convert]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto backend = Open(OptionsFor(path, ComputeDType::kF32, 1));
  const RandomWeights weights(DType::kF32, 35, 200, 8);
  const auto packed = PackAs(backend.get(), weights.source, WeightForm::kFp8Rows);
  const std::vector<float> held = Held(backend.get(), *packed);
  std::vector<float> x = Gaussian(9 * 200, 3), out(9 * 35);
  backend->MatMul(View(x, 9, 200), *packed, Tensor(), Tensor(), View(out, 9, 35));
  const MatrixSource as_held = {held.data(), DType::kF32, 35, 200, {}};
  CHECK(RelativeError(out, ReferenceMatMul(x, 9, as_held)) < 2e-6);
}

TEST_CASE("a converted row's product has the same bits alone and in a batch",
          "[kernels][convert]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const int64_t rows = 21, cols = 288, outputs = 50;
  for (WeightForm form : Forms()) {
    const RandomWeights weights(DType::kF16, outputs, cols, 8);
    const auto packed = PackAs(backend.get(), weights.source, form);
    std::vector<float> x = Gaussian(rows * cols, 3), whole(rows * outputs), joined;
    backend->MatMul(View(x, rows, cols), *packed, Tensor(), Tensor(), View(whole, rows, outputs));
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<float> one(x.begin() + row * cols, x.begin() + (row + 1) * cols), out(outputs);
      backend->MatMul(View(one, 1, cols), *packed, Tensor(), Tensor(), View(out, 1, outputs));
      joined.insert(joined.end(), out.begin(), out.end());
    }
    INFO(backend->Describe() << " " << FormName(form));
    CHECK(std::memcmp(whole.data(), joined.data(), whole.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("NaN and infinity in a weight poison only its own outputs, in an activation its own row",
          "[kernels][convert]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const float poison =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  const auto backend = Open(options);
  const int64_t cols = 256;
  for (WeightForm form : Forms()) {
    std::vector<float> weights = Gaussian(20 * cols, 1), x = Gaussian(3 * cols, 2), out(3 * 20);
    weights[7 * cols + 130] = poison;
    x[1 * cols + 40] = poison;
    const auto packed =
        PackAs(backend.get(), {weights.data(), DType::kF32, 20, cols, {}}, form);
    backend->MatMul(View(x, 3, cols), *packed, Tensor(), Tensor(), View(out, 3, 20));
    INFO(backend->Describe() << " " << FormName(form));
    int num_wrong = 0;
    for (int i = 0; i < 3 * 20; ++i) {
      num_wrong += std::isfinite(out[i]) == (i / 20 != 1 && i % 20 != 7) ? 0 : 1;
    }
    CHECK(num_wrong == 0);
  }
}

TEST_CASE("rows of a large matrix are told in runs, each announced while another is read",
          "[kernels][convert]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 2));
  const int64_t rows = 20'000, cols = 2048;  // 78 MiB of bf16
  const std::vector<uint16_t> weights(rows * cols, 0x3f80);
  MatrixSource source = {weights.data(), DType::kBF16, rows, cols, {}};
  std::vector<std::pair<int64_t, int64_t>> announced, told;
  source.will_read = [&](int64_t begin, int64_t end) { announced.emplace_back(begin, end); };
  source.rows_read = [&](int64_t begin, int64_t end) {
    told.emplace_back(begin, end);
    CHECK(announced.size() > told.size() - (end == rows ? 1 : 0));
  };
  REQUIRE(backend->PackMatrix({&source, 1}).ok());
  CHECK(told == announced);
  REQUIRE(told.size() == 2);
  CHECK(told[0] == std::make_pair(int64_t{0}, int64_t{64 << 20} / (cols * 2)));
  CHECK(told[1] == std::make_pair(told[0].second, rows));
}

TEST_CASE("rows that a form cannot hold are refused with both figures", "[kernels][convert]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  const RandomWeights weights(DType::kF32, 4, 100, 8);
  MatrixSource source = weights.source;
  source.form = WeightForm::kInt4Group128;
  const absl::Status status = backend->PackMatrix({&source, 1}).status();
  REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(status.message()) ==
        "rows of 100 weights cannot become int4-g128, which takes a multiple of 32");
}

}  // namespace
}  // namespace fastgen::testing
