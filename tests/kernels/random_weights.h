// Weight matrices with random bits in every field that may hold any, and scales of sane size.
// Thread rule: the test's main thread.
#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "kernels/backend.h"
#include "tests/testing/block_scales.h"

namespace fastgen::testing {

struct RandomWeights {
  RandomWeights(DType dtype, int64_t rows, int64_t cols, uint32_t seed)
      : bytes(BytesOf(dtype, rows * cols)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 0.05f);
    const auto put_half = [&](size_t at) {
      // Sign and fraction random, magnitude 2^-9 .. 2^-5.
      const uint16_t bits = static_cast<uint16_t>((random() & 0x83ff) | (6 + random() % 4) << 10);
      std::memcpy(&bytes[at], &bits, 2);
    };
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    const size_t stride = Info(dtype).block_bytes;
    for (size_t i = 0; i < bytes.size(); i += stride) {
      const float value = normal(random);
      switch (dtype) {
        case DType::kF32:
          std::memcpy(&bytes[i], &value, 4);
          break;
        case DType::kBF16:
          std::memcpy(&bytes[i], reinterpret_cast<const char*>(&value) + 2, 2);
          break;
        case DType::kF16:
          put_half(i);
          break;
        default:
          for (int at : BlockScaleOffsets(dtype)) put_half(i + at);
          break;
      }
    }
    source = {bytes.data(), dtype, rows, cols, {}};
  }
  RandomWeights(const RandomWeights&) = delete;
  RandomWeights& operator=(const RandomWeights&) = delete;

  std::vector<uint8_t> bytes;
  MatrixSource source;
};

inline const std::vector<DType>& BlockDTypes() {
  static const std::vector<DType> dtypes = {
      DType::kQ4_0,   DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kIQ4_NL,
      DType::kQ2_K,   DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_XS};
  return dtypes;
}

inline const std::vector<DType>& WeightDTypes() {
  static const std::vector<DType> dtypes = [] {
    std::vector<DType> all = {DType::kF32, DType::kF16, DType::kBF16};
    all.insert(all.end(), BlockDTypes().begin(), BlockDTypes().end());
    return all;
  }();
  return dtypes;
}

}  // namespace fastgen::testing
