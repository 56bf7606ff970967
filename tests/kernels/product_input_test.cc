// What ops make of a product's rows on the way in: the bits of the product of rows that were made
// before, for every kind of weights, every number of rows and threads.
#include <string>

#include "tests/kernels/products_under_test.h"

namespace fastgen::testing {
namespace {

TEST_CASE("a product of normed or gated rows is that of rows that were normed or gated before",
          "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends(1)), from_range(Backends(3)));
  const auto backend = Open(options);
  // With few rows and several threads the widest are cut up by columns.
  const int64_t cols = GENERATE(96, 1056, 2048), outputs = 19;
  const InputReader reader(backend.get(), cols);
  std::vector<std::unique_ptr<PackedMatrix>> matrices;
  for (const WeightKind& kind : WeightKinds()) {
    matrices.push_back(cols % kind.unit() != 0 ? nullptr
                                               : PackKind(backend.get(), kind, outputs, cols, 31));
  }
  for (int64_t rows : {1, 3, 8, 17, 34}) {
    std::vector<float> x = Gaussian(rows * 2 * cols, 32, 3), weight = Gaussian(cols, 33);
    const Tensor wide = View(x, rows, 2 * cols);
    const MatMulInput inputs[] = {
        MatMulInput::RmsNorm(wide.Cols(0, cols), View(weight, 1, cols), 1e-5f),
        MatMulInput::SiluMul(wide)};
    for (const MatMulInput& input : inputs) {
      const std::vector<float> made = reader.Read(input);
      for (size_t i = 0; i < matrices.size(); ++i) {
        if (matrices[i] == nullptr) continue;
        std::vector<float> out(rows * outputs, -1);
        backend->MatMul(input, *matrices[i], Tensor(), Tensor(), View(out, rows, outputs));
        REQUIRE(backend->Synchronize().ok());
        INFO(backend->Describe() << " " << WeightKinds()[i].name() << " " << rows << " x " << cols
                                 << " op " << static_cast<int>(input.op));
        CHECK(SameBits(out, Product(backend.get(), made, rows, *matrices[i])));
      }
    }
  }
}

}  // namespace
}  // namespace fastgen::testing
