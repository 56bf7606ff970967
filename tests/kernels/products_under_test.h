// Products of every kind of weights on any backend, as tests drive them, and what a serving backend
// makes of activations before it multiplies.
//
// A kind of weights is a type in a file, or a form that float weights are rounded to while they are
// packed. Held() reads a matrix back through EmbedRows, which has tests of its own, so that oracles
// multiply what the backend multiplies.
// Thread rule: the test's main thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/random_weights.h"

namespace fastgen::testing {

struct WeightKind {
  DType dtype = DType::kF32;
  WeightForm form = WeightForm::kAsStored;

  std::string name() const {
    return std::string(Info(dtype).name) + " as " + std::string(FormName(form));
  }
  // Whether a serving backend multiplies it with int8 activations.
  bool is_integer() const {
    return form == WeightForm::kAsStored
               ? IsBlockType(dtype)
               : form != WeightForm::kBf16 && form != WeightForm::kFp8Rows;
  }
  bool is_bf16() const {
    return form == WeightForm::kBf16 || (form == WeightForm::kAsStored && dtype == DType::kBF16);
  }
  // Rows are multiples of this many elements.
  int64_t unit() const {
    return form == WeightForm::kAsStored ? Info(dtype).block_elements : is_integer() ? 32 : 1;
  }
};

inline const std::vector<WeightKind>& WeightKinds() {
  static const std::vector<WeightKind> kinds = [] {
    std::vector<WeightKind> all;
    for (DType dtype : WeightDTypes()) all.push_back({dtype, WeightForm::kAsStored});
    for (WeightForm form :
         {WeightForm::kInt8Group32, WeightForm::kInt8Group128, WeightForm::kInt4Group32,
          WeightForm::kInt4Group128, WeightForm::kFp8Rows}) {
      all.push_back({DType::kF32, form});
    }
    return all;
  }();
  return kinds;
}

inline std::unique_ptr<PackedMatrix> PackKind(Backend* backend, WeightKind kind, int64_t outputs,
                                              int64_t cols, uint32_t seed) {
  const RandomWeights weights(kind.dtype, outputs, cols, seed);
  MatrixSource source = weights.source;
  source.form = kind.form;
  auto packed = backend->PackMatrix({&source, 1});
  REQUIRE(packed.ok());
  return *std::move(packed);
}

inline std::vector<float> Product(Backend* backend, std::vector<float> x, int64_t rows,
                                  const PackedMatrix& w) {
  std::vector<float> out(rows * w.rows(), -1);
  backend->MatMul(View(x, rows, w.cols()), w, Tensor(), Tensor(), View(out, rows, w.rows()));
  REQUIRE(backend->Synchronize().ok());
  return out;
}

// Reads back what ops make of rows on their way into a product, which nothing stores: multiplied by
// the identity in float, where a finite value keeps its bits (but -0 becomes 0). A NaN or infinity
// spreads over its row.
class InputReader {
 public:
  InputReader(Backend* backend, int64_t cols) : backend_(backend), cols_(cols) {
    std::vector<float> values(cols * cols);
    for (int64_t i = 0; i < cols; ++i) values[i * cols + i] = 1;
    const MatrixSource source = {values.data(), DType::kF32, cols, cols, {}};
    auto packed = backend->PackMatrix({&source, 1});
    REQUIRE(packed.ok());
    identity_ = *std::move(packed);
  }

  std::vector<float> Read(const MatMulInput& input) const {  // returns [rows, cols]
    std::vector<float> out(input.rows() * cols_, -1);
    backend_->MatMul(input, *identity_, Tensor(), Tensor(), View(out, input.rows(), cols_));
    REQUIRE(backend_->Synchronize().ok());
    return out;
  }
  // x [rows, cols], weight [cols]
  std::vector<float> RmsNorm(std::vector<float> x, std::vector<float> weight, float eps) const {
    const int64_t rows = static_cast<int64_t>(x.size()) / cols_;
    return Read(MatMulInput::RmsNorm(View(x, rows, cols_), View(weight, 1, cols_), eps));
  }
  // gate_up [rows, 2 * cols]
  std::vector<float> SiluMul(std::vector<float> gate_up) const {
    const int64_t rows = static_cast<int64_t>(gate_up.size()) / (2 * cols_);
    return Read(MatMulInput::SiluMul(View(gate_up, rows, 2 * cols_)));
  }

 private:
  Backend* backend_;
  int64_t cols_;
  std::unique_ptr<PackedMatrix> identity_;
};

// The whole matrix as the backend holds it.
inline std::vector<float> Held(Backend* backend, const PackedMatrix& matrix) {
  std::vector<int32_t> ids(matrix.rows());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  std::vector<float> out(matrix.rows() * matrix.cols());
  backend->EmbedRows(matrix, ids, View(out, matrix.rows(), matrix.cols()));
  return out;
}

// Rows [begin, end) of a row-major matrix.
inline std::vector<float> RowsOf(const std::vector<float>& x, int64_t cols, int64_t begin,
                                 int64_t end) {
  return {x.begin() + begin * cols, x.begin() + end * cols};
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline float RoundedToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Whether this backend rounds the activations of bf16 weights to bf16: asked of the backend itself,
// with a weight of 1 and an activation that bf16 does not hold.
inline bool RoundsActivationsToBf16(Backend* backend) {
  const std::vector<uint16_t> one = {0x3f80};
  const MatrixSource source = {one.data(), DType::kBF16, 1, 1, {}};
  const auto packed = backend->PackMatrix({&source, 1});
  REQUIRE(packed.ok());
  return Product(backend, {1 + 0x1p-10f}, 1, **packed)[0] == 1;
}

// One group of 32 activations as int8 times a scale, in place. Groups of next to nothing are 0.
inline void QuantizeGroupInt8(float* group) {
  float max = 0;
  for (int i = 0; i < 32; ++i) max = std::max(max, std::abs(group[i]));
  const float inverse = max > 1e-30f ? 127 / max : 0;
  const float scale = max > 1e-30f ? max / 127 : 0;
  for (int i = 0; i < 32; ++i) group[i] = std::nearbyint(group[i] * inverse) * scale;
}

// The activations that a backend multiplies with weights of `kind`; fp8 has tests of its own.
inline std::vector<float> Served(Backend* backend, const BackendOptions& options, WeightKind kind,
                                 std::vector<float> x) {
  if (options.compute_dtype == ComputeDType::kF32) return x;
  if (kind.is_integer()) {
    for (size_t i = 0; i < x.size(); i += 32) QuantizeGroupInt8(&x[i]);
  } else if (kind.is_bf16() && RoundsActivationsToBf16(backend)) {
    for (float& value : x) value = RoundedToBf16(value);
  }
  return x;
}

}  // namespace fastgen::testing
