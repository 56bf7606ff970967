// Exact conversions to float from its 16-bit forms, for code outside the hot loops. Thread rule:
// pure functions. Tested by tests/kernels/matmul_test.cc (weights of each dtype) and
// attention_test.cc.
#pragma once

#include <bit>
#include <cstdint>

namespace fastgen::cpu {

inline float Bf16ToFloat(uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); }

inline float F16ToFloat(uint16_t x) {
  // Shifted so that the exponent field lies where float's does, 2^112 too small; the product also
  // makes subnormals normal. Infinity and NaN need the exponent set by hand.
  const uint32_t sign = uint32_t{x & 0x8000u} << 16;
  const uint32_t magnitude = uint32_t{x & 0x7fffu} << 13;
  if (magnitude >= 0x0f800000) return std::bit_cast<float>(sign | 0x70000000 | magnitude);
  const float value = std::bit_cast<float>(magnitude) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

}  // namespace fastgen::cpu
