// Real blocks of every quantised type (tests/testdata/gguf_blocks): the oracle, the packed rows and
// the products agree with what another program says that they mean.
#include <cstring>
#include <fstream>
#include <iterator>

#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/random_weights.h"
#include "tests/testing/reference_blocks.h"
#include "tests/testing/reference_ops.h"
#include "tests/testing/testdata.h"

namespace fastgen::testing {
namespace {

// One row of real weights.
struct RealRow {
  explicit RealRow(DType dtype) {
    const std::string name(Info(dtype).name);
    bytes = Read(name + ".blocks");
    const std::string floats = Read(name + ".f32");
    expected.resize(floats.size() / sizeof(float));
    std::memcpy(expected.data(), floats.data(), floats.size());
    source = {bytes.data(), dtype, 1, static_cast<int64_t>(expected.size()), {}};
  }
  static std::string Read(const std::string& name) {
    const auto path = SourceTestdata() / "gguf_blocks" / name;
    std::ifstream file(path, std::ios::binary);
    INFO(path.string());
    REQUIRE(file.good());
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::string bytes;
  std::vector<float> expected;
  MatrixSource source;
};

std::unique_ptr<PackedMatrix> Pack(Backend* backend, const MatrixSource& source) {
  auto packed = backend->PackMatrix({&source, 1});
  REQUIRE(packed.ok());
  return *std::move(packed);
}

// One rounding in the other program's float, one in ours.
bool IsClose(double value, double expected, double largest) {
  return std::abs(value - expected) <= 0x1p-22 * largest;
}

TEST_CASE("elements of real blocks are what another program says", "[kernels][dequantize]") {
  for (DType dtype : BlockDTypes()) {
    const RealRow row(dtype);
    REQUIRE(row.bytes.size() == static_cast<size_t>(BytesOf(dtype, row.source.cols)));
    float largest = 0;
    for (float value : row.expected) largest = std::max(largest, std::abs(value));
    REQUIRE(largest > 0.01f);
    const int block_elements = Info(dtype).block_elements;
    for (size_t k = 0; k < row.expected.size(); ++k) {
      const uint8_t* block = reinterpret_cast<const uint8_t*>(row.bytes.data()) +
                             static_cast<int64_t>(k) / block_elements * Info(dtype).block_bytes;
      INFO(Info(dtype).name << " element " << k);
      REQUIRE(IsClose(BlockElement(dtype, block, static_cast<int>(k) % block_elements),
                      row.expected[k], largest));
    }
  }
}

TEST_CASE("packed rows of real blocks are what another program says", "[kernels][dequantize]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  for (DType dtype : BlockDTypes()) {
    const RealRow row(dtype);
    const auto packed = Pack(backend.get(), row.source);
    std::vector<float> out(row.expected.size());
    const std::vector<int32_t> ids = {0};
    backend->EmbedRows(*packed, ids, View(out, 1, row.source.cols));
    for (size_t k = 0; k < out.size(); ++k) {
      INFO(Info(dtype).name << " element " << k);
      REQUIRE(IsClose(out[k], row.expected[k], std::abs(row.expected[k]) + 0.01));
    }
  }
}

TEST_CASE("products with real blocks agree with double precision", "[kernels][dequantize]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (DType dtype : BlockDTypes()) {
    const RealRow row(dtype);
    const auto packed = Pack(backend.get(), row.source);
    for (int64_t rows : {1, 3, 8}) {
      // Activations that int8 holds exactly: the largest of each group is 127 / 64.
      std::vector<float> x(rows * row.source.cols);
      std::mt19937 random(4);
      for (size_t i = 0; i < x.size(); ++i) {
        const int q = i % 32 == 0 ? 127 : static_cast<int>(random() % 255) - 127;
        x[i] = static_cast<float>(q) / 64;
      }
      std::vector<double> expected(rows);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t k = 0; k < row.source.cols; ++k) {
          expected[r] += double{x[r * row.source.cols + k]} * row.expected[k];
        }
      }
      std::vector<float> out(rows);
      backend->MatMul(View(x, rows, row.source.cols), *packed, Tensor(), Tensor(),
                      View(out, rows, 1));
      INFO(backend->Describe() << " " << Info(dtype).name << " rows " << rows);
      CHECK(RelativeError(out, expected) < 1e-5);
    }
  }
}

TEST_CASE("a quantised type keeps its own number of bits", "[kernels][dequantize]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  for (DType dtype : BlockDTypes()) {
    const RandomWeights weights(dtype, 64, 1024, 3);
    const double file_bytes = static_cast<double>(weights.bytes.size());
    const double packed_bytes = static_cast<double>(Pack(backend.get(), weights.source)->bytes());
    INFO(Info(dtype).name << " " << packed_bytes / file_bytes);
    CHECK(packed_bytes >= file_bytes);
    // Scales of K types become whole bytes: 3.125 bits instead of 2.625 for Q2_K, at most an eighth
    // of a bit for the others.
    CHECK((packed_bytes - file_bytes) * 8 <= 64 * 1024 * (dtype == DType::kQ2_K ? 0.5 : 0.125));
  }
}

}  // namespace
}  // namespace fastgen::testing
