// Every op on inputs that make arithmetic hard, at sizes around every tile: zeros, denormals, huge
// values, one-hot rows, sums that cancel.
//
// Bounds are for each element, against the sum of magnitudes that went into it: a sum that cancels
// to nothing is held to its terms, and a small result beside a large one to its own size.
#include <cstring>
#include <functional>
#include <limits>

#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/products_under_test.h"
#include "tests/testing/reference_ops.h"

namespace fastgen::testing {
namespace {

using Fill = std::function<std::vector<float>(int64_t rows, int64_t cols)>;

struct Input {
  const char* name;
  Fill fill;
};

std::vector<float> Times(std::vector<float> x, float factor) {
  for (float& value : x) value *= factor;
  return x;
}

std::vector<float> OneHotGroups(int64_t rows, int64_t cols) {
  std::vector<float> x(rows * cols);
  std::mt19937 random(3);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t k = 0; k < cols; k += 32) {
      const int64_t at = row * cols + k + static_cast<int64_t>(random() % 32);
      if (at < static_cast<int64_t>(x.size())) x[at] = random() % 2 == 0 ? 3.7f : -0.01f;
    }
  }
  return x;
}

// Neighbours that cancel, and halves of a row that do.
std::vector<float> Alternating(int64_t rows, int64_t cols) {
  std::vector<float> x(rows * cols);
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float magnitude = i % cols < cols / 2 ? 1.0f : 1000.0f;
    x[i] = (i % 2 == 0 ? magnitude : -magnitude) * (i / cols % 2 == 0 ? 1.0f : -0.125f);
  }
  return x;
}

// Groups of 32 whose magnitudes lie 2^80 apart.
std::vector<float> FarApart(int64_t rows, int64_t cols) {
  std::vector<float> x = Gaussian(rows * cols, 4);
  for (int64_t i = 0; i < rows * cols; ++i) x[i] *= i % cols / 32 % 2 == 0 ? 0x1p40f : 0x1p-40f;
  return x;
}

const std::vector<Input>& Inputs() {
  static const std::vector<Input> inputs = {
      {"zeros", [](int64_t rows, int64_t cols) { return std::vector<float>(rows * cols); }},
      {"random", [](int64_t rows, int64_t cols) { return Gaussian(rows * cols, 5); }},
      {"huge", [](int64_t rows, int64_t cols) { return Times(Gaussian(rows * cols, 6), 1e32f); }},
      {"tiny", [](int64_t rows, int64_t cols) { return Times(Gaussian(rows * cols, 7), 1e-28f); }},
      {"denormal",
       [](int64_t rows, int64_t cols) { return Times(Gaussian(rows * cols, 8), 1e-40f); }},
      {"one-hot", OneHotGroups},
      {"alternating", Alternating},
      {"far apart", FarApart}};
  return inputs;
}

// The largest difference, in units of what went into each element.
double WorstProduct(const std::vector<float>& got, const std::vector<float>& x, int64_t rows,
                    const std::vector<float>& w, int64_t outputs, double lost) {
  const int64_t cols = static_cast<int64_t>(w.size()) / outputs;
  double worst = 0;
  for (int64_t n = 0; n < outputs; ++n) {
    // A format with minimums subtracts terms as large as the largest weight.
    double largest = 0;
    for (int64_t k = 0; k < cols; ++k) {
      largest = std::max(largest, std::abs(double{w[n * cols + k]}));
    }
    for (int64_t row = 0; row < rows; ++row) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < cols; ++k) {
        sum += double{x[row * cols + k]} * double{w[n * cols + k]};
        magnitude += std::abs(double{x[row * cols + k]}) * largest;
      }
      const double difference = std::abs(got[row * outputs + n] - sum);
      const double allowed = magnitude + lost * static_cast<double>(cols);
      // Written so that a NaN is not small.
      if (!(difference <= 0)) worst = std::max(worst, difference / allowed);
      if (std::isnan(difference)) worst = std::numeric_limits<double>::infinity();
    }
  }
  return worst;
}

// fp32 sums of up to 512 terms; what is next to nothing may be lost: fp32 rounds to 2^-149, bf16
// instructions take denormals as 0.
constexpr double kProductTolerance = 1e-6;

void CheckProducts(Backend* backend, const BackendOptions& options, WeightKind kind,
                   int64_t outputs, int64_t cols, const std::vector<int64_t>& all_rows) {
  const auto packed = PackKind(backend, kind, outputs, cols, 21);
  const std::vector<float> held = Held(backend, *packed);
  for (const Input& input : Inputs()) {
    for (int64_t rows : all_rows) {
      const std::vector<float> x = input.fill(rows, cols);
      const std::vector<float> got = Product(backend, x, rows, *packed);
      const double lost =
          kind.is_bf16() ? 0x1p-126 / kProductTolerance : 0x1p-149 / kProductTolerance;
      INFO(backend->Describe() << " " << kind.name() << " " << input.name << " " << rows << " x "
                               << cols << " x " << outputs);
      CHECK(WorstProduct(got, Served(backend, options, kind, x), rows, held, outputs, lost) <
            kProductTolerance);
    }
  }
}

TEST_CASE("products of hard inputs agree with double precision, element by element",
          "[kernels][adversarial]") {
  const BackendOptions options = GENERATE(from_range(Backends(1)));
  const auto backend = Open(options);
  for (const WeightKind& kind : WeightKinds()) {
    if (kind.form == WeightForm::kFp8Rows) continue;  // convert_test.cc
    CheckProducts(backend.get(), options, kind, 17, kind.unit() == 256 ? 512 : 160, {1, 3, 8, 17});
  }
}

TEST_CASE("products of every number of rows and outputs around a tile agree with double precision",
          "[kernels][adversarial]") {
  const BackendOptions options = GENERATE(from_range(Backends(1)));
  const auto backend = Open(options);
  for (const WeightKind& kind : WeightKinds()) {
    if (kind.form == WeightForm::kFp8Rows) continue;
    for (int64_t outputs : {1, 2, 3, 5, 7, 8, 9, 11, 13, 15, 16, 17, 31, 32, 33}) {
      const int64_t cols = std::max<int64_t>(kind.unit(), outputs % 2 == 0 ? 32 : 1);
      const auto packed = PackKind(backend.get(), kind, outputs, cols, 22);
      const std::vector<float> held = Held(backend.get(), *packed);
      for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 31, 32, 33}) {
        const std::vector<float> x = Gaussian(rows * cols, 23);
        INFO(backend->Describe() << " " << kind.name() << " " << rows << " x " << cols << " x "
                                 << outputs);
        CHECK(WorstProduct(Product(backend.get(), x, rows, *packed),
                           Served(backend.get(), options, kind, x), rows, held, outputs,
                           0) < kProductTolerance);
      }
    }
  }
}

TEST_CASE("a zero row's product is zero, bias and residual alone remain",
          "[kernels][adversarial]") {
  const BackendOptions options = GENERATE(from_range(Backends(1)));
  const auto backend = Open(options);
  for (const WeightKind& kind : WeightKinds()) {
    const int64_t cols = 256, outputs = 35, rows = 11;
    const auto packed = PackKind(backend.get(), kind, outputs, cols, 24);
    std::vector<float> x(rows * cols), bias = Gaussian(outputs, 25), out(rows * outputs);
    std::vector<float> residual = Gaussian(rows * outputs, 26), expected(rows * outputs);
    backend->MatMul(View(x, rows, cols), *packed, Tensor(bias.data(), DType::kF32, {outputs}),
                    View(residual, rows, outputs), View(out, rows, outputs));
    REQUIRE(backend->Synchronize().ok());
    for (int64_t i = 0; i < rows * outputs; ++i) expected[i] = bias[i % outputs] + residual[i];
    INFO(backend->Describe() << " " << kind.name());
    CHECK(out == expected);
  }
}

// ---- norms, SiLU ----

// The largest difference between elements, relative to the expected one plus `lost`.
double Worst(const std::vector<float>& got, const std::vector<double>& expected, double lost) {
  CHECK(got.size() == expected.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(double{got[i]} - expected[i]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, difference / (std::abs(expected[i]) + lost));
  }
  return worst;
}

TEST_CASE("RMSNorm of hard rows of any width agrees with double precision, element by element",
          "[kernels][adversarial]") {
  const BackendOptions options = GENERATE(from_range(Backends(1)));
  const auto backend = Open(options);
  std::vector<int64_t> widths = {31, 32, 33, 63, 65, 577, 2047};
  for (int64_t width = 1; width <= 17; ++width) widths.push_back(width);
  for (int64_t width : widths) {
    const InputReader reader(backend.get(), width);
    for (const Input& input : Inputs()) {
      const int64_t rows = 3;
      std::vector<float> x = input.fill(rows, width), weight = Gaussian(width, 31);
      // Squares must not overflow.
      if (std::string(input.name) == "huge") x = Times(x, 1e-16f);
      INFO(backend->Describe() << " " << input.name << " width " << width);
      CHECK(Worst(reader.RmsNorm(x, weight, 1e-6f), ReferenceRmsNorm(x, weight, double{1e-6f}),
                  1e-36) < 1e-6);
    }
  }
}

TEST_CASE("a row that is not finite leaves its neighbours' norm and SiLU alone",
          "[kernels][adversarial]") {
  const BackendOptions options = GENERATE(from_range(Backends(2)));
  const float poison =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  const auto backend = Open(options);
  const int64_t rows = 9, width = 66;
  std::vector<float> x = Gaussian(rows * width, 32), weight = Gaussian(width, 33);
  const InputReader norm_reader(backend.get(), width), silu_reader(backend.get(), width / 2);
  std::vector<float> norms[2], silus[2];
  for (int i = 0; i < 2; ++i) {
    if (i == 1) x[4 * width + 20] = poison;
    norms[i] = norm_reader.RmsNorm(x, weight, 1e-6f);
    silus[i] = silu_reader.SiluMul(x);
  }
  for (int64_t row = 0; row < rows; ++row) {
    if (row == 4) continue;
    CHECK(SameBits(RowsOf(norms[0], width, row, row + 1), RowsOf(norms[1], width, row, row + 1)));
    CHECK(SameBits(RowsOf(silus[0], width / 2, row, row + 1),
                   RowsOf(silus[1], width / 2, row, row + 1)));
  }
  CHECK_FALSE(std::isfinite(norms[1][4 * width + 20]));
}

TEST_CASE("SiLU of every magnitude and width agrees with double precision, element by element",
          "[kernels][adversarial]") {
  const BackendOptions options = GENERATE(from_range(Backends(1)));
  const auto backend = Open(options);
  std::vector<int64_t> widths = {31, 32, 33, 257};
  for (int64_t width = 1; width <= 17; ++width) widths.push_back(width);
  for (int64_t width : widths) {
    const int64_t rows = 5;
    std::vector<float> gate_up = Gaussian(rows * 2 * width, 41);
    std::mt19937 random(42);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        // Gates from denormals to 1e30, of both signs, and around the edges of exp.
        const float edges[] = {0.0f, -0.0f, 86.9f, 87.1f, 88.5f, -86.9f, -87.1f, -88.5f, 1e-40f};
        float& gate = gate_up[row * 2 * width + i];
        gate = random() % 3 == 0 ? edges[random() % 9]
                                 : std::ldexp(gate, static_cast<int>(random() % 200) - 100);
      }
    }
    const std::vector<float> out = InputReader(backend.get(), width).SiluMul(gate_up);
    INFO(backend->Describe() << " width " << width);
    // exp stops at -87: results of far negative gates are lost below e^-87 of the gate.
    const std::vector<double> expected = ReferenceSiluMul(gate_up, width);
    double worst = 0;
    for (int64_t i = 0; i < rows * width; ++i) {
      const double gate = gate_up[i / width * 2 * width + i % width];
      const double up = gate_up[i / width * 2 * width + width + i % width];
      const double allowed = 4e-7 * std::abs(expected[i]) + std::abs(gate * up) * 2e-38 + 1e-44;
      const double difference = std::abs(out[i] - expected[i]);
      worst = std::isnan(difference) ? 1e30 : std::max(worst, difference / allowed);
    }
    CHECK(worst < 1);
  }
}

}  // namespace
}  // namespace fastgen::testing
