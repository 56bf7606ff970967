#include "tests/testing/reference_blocks.h"

#include <cmath>

#include "base/check.h"

namespace fastgen::testing {
namespace {

double Half(const uint8_t* at) {
  const int bits = at[0] | at[1] << 8;
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                           : exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
                                            : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

// Bits [first, first + count) of a byte.
int Field(uint8_t byte, int first, int count) { return byte >> first & ((1 << count) - 1); }

int TableValue(int index) {
  constexpr int kValues[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                             1,    13,   25,  38,  53,  69,  89,  113};
  return kValues[index];
}

// The nibble of element i of 32 that lie in 16 bytes.
int Nibble(const uint8_t* bytes, int i) { return Field(bytes[i % 16], i / 16 * 4, 4); }

// The bit of element i of 32 that lie in 4 bytes.
int Bit(const uint8_t* bytes, int i) { return Field(bytes[i / 8], i % 8, 1); }

// The nibble of element i of 256 that lie in 128 bytes, 64 elements to 32 bytes.
int LongNibble(const uint8_t* bytes, int i) {
  return Field(bytes[i / 64 * 32 + i % 32], i % 64 / 32 * 4, 4);
}

// The two bits of element i of 256 that lie in 64 bytes, 128 elements to 32 bytes.
int Pair(const uint8_t* bytes, int i) {
  return Field(bytes[i / 128 * 32 + i % 32], i % 128 / 32 * 2, 2);
}

// The bit of element i of 256 that lie in 32 bytes: bit g of byte l is element 32 g + l.
int LongBit(const uint8_t* bytes, int i) { return Field(bytes[i % 32], i / 32, 1); }

struct ScaleAndMinimum {
  int scale;
  int minimum;
};
// Of group g < 8 in the 12 bytes of Q4_K and Q5_K.
ScaleAndMinimum SixBits(const uint8_t* s, int g) {
  if (g < 4) return {s[g] & 63, s[g + 4] & 63};
  return {Field(s[g + 4], 0, 4) + 16 * Field(s[g - 4], 6, 2),
          Field(s[g + 4], 4, 4) + 16 * Field(s[g], 6, 2)};
}

double Q3Scale(const uint8_t* s, int i) {
  const int low = i < 8 ? Field(s[i], 0, 4) : Field(s[i - 8], 4, 4);
  return low + 16 * Field(s[8 + i % 4], i / 4 * 2, 2) - 32;
}

double Q6Element(const uint8_t* block, int i) {
  const int part = i % 128 / 32;
  const int low = Field(block[i / 128 * 64 + i % 64], part / 2 * 4, 4);
  const int high = Pair(block + 128, i);
  return Half(block + 208) * static_cast<int8_t>(block[192 + i / 16]) * (low + 16 * high - 32);
}

double Iq4XsElement(const uint8_t* block, int i) {
  const int g = i / 32;
  const int low = Field(block[4 + g / 2], g % 2 * 4, 4);
  const int high = (block[2] | block[3] << 8) >> (2 * g) & 3;
  return Half(block) * (low + 16 * high - 32) * TableValue(Nibble(block + 8 + 16 * g, i % 32));
}

}  // namespace

double BlockElement(DType dtype, const uint8_t* block, int i) {
  switch (dtype) {
    case DType::kQ4_0: return Half(block) * (Nibble(block + 2, i) - 8);
    case DType::kQ4_1: return Half(block) * Nibble(block + 4, i) + Half(block + 2);
    case DType::kQ5_0:
      return Half(block) * (Nibble(block + 6, i) + 16 * Bit(block + 2, i) - 16);
    case DType::kQ5_1:
      return Half(block) * (Nibble(block + 8, i) + 16 * Bit(block + 4, i)) + Half(block + 2);
    case DType::kQ8_0: return Half(block) * static_cast<int8_t>(block[2 + i]);
    case DType::kIQ4_NL: return Half(block) * TableValue(Nibble(block + 2, i));
    case DType::kQ2_K:
      return Half(block + 80) * Field(block[i / 16], 0, 4) * Pair(block + 16, i) -
             Half(block + 82) * Field(block[i / 16], 4, 4);
    case DType::kQ3_K:
      return Half(block + 108) * Q3Scale(block + 96, i / 16) *
             (Pair(block + 32, i) + 4 * LongBit(block, i) - 4);
    case DType::kQ4_K: {
      const ScaleAndMinimum s = SixBits(block + 4, i / 32);
      return Half(block) * s.scale * LongNibble(block + 16, i) - Half(block + 2) * s.minimum;
    }
    case DType::kQ5_K: {
      const ScaleAndMinimum s = SixBits(block + 4, i / 32);
      return Half(block) * s.scale * (LongNibble(block + 48, i) + 16 * LongBit(block + 16, i)) -
             Half(block + 2) * s.minimum;
    }
    case DType::kQ6_K: return Q6Element(block, i);
    case DType::kIQ4_XS: return Iq4XsElement(block, i);
    default: CHECK(false) << "no block type: " << Info(dtype).name;
  }
}

}  // namespace fastgen::testing
