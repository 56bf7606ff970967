// Conversions between float and its smaller forms, for code outside the hot loops: exact towards
// float, to the nearest (ties to even) from it.
// Thread rule: pure functions.
// Tested by tests/kernels/matmul_test.cc (weights of each dtype), attention_test.cc and
// convert_test.cc.
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

// A NaN stays one, what is too large becomes infinity.
inline uint16_t FloatToBf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Likewise.
inline uint16_t FloatToF16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (x != x) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude < 0x38800000) {
    // A multiple of 2^-24: adding 0.5 leaves the nearest one in the fraction's low bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000;
  return static_cast<uint16_t>(sign | rounded >> 13);
}

// The nearest value that FP8 E4M3 (finite variant: no infinity, largest 448, smallest 2^-9) has; a
// larger one saturates. A NaN stays one.
inline float RoundToE4m3(float x) {
  if (x != x) return x;
  const float magnitude = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffff);
  float rounded = 448;
  if (magnitude < 0x1p-6f) {
    // Below the normal range a multiple of 2^-9: 2^14 has no finer bits.
    rounded = (magnitude + 0x1p14f) - 0x1p14f;
  } else if (magnitude < 448) {
    const uint32_t bits = std::bit_cast<uint32_t>(magnitude);
    rounded = std::bit_cast<float>((bits + 0x7ffff + (bits >> 20 & 1)) & 0xfff00000);
  }
  return x < 0 ? -rounded : rounded;
}

}  // namespace fastgen::cpu
