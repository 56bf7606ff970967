// GenericPath: four lanes and no instruction beyond the x86-64 baseline.
// Thread rule: pure functions.
// Tested by tests/kernels/*_test.cc with cpu_isa "generic".
#pragma once

#include "kernels/cpu/float_bits.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/simd.h"

namespace fastgen::cpu {

struct GenericPath : Simd<4, GenericPath> {
  static constexpr int kFloatRows = 2;  // rows whose 4 sum vectors stay in 16 registers
  static constexpr int kScoreRows = 2;  // likewise in attention, x kScoreVectors
  static constexpr int kScoreVectors = 4;
  static constexpr bool kHasDotBf16 = false;

  typedef double D __attribute__((vector_size(32)));
  typedef int64_t L __attribute__((vector_size(32)));

  static F MulAdd(F a, F b, F c) { return a * b + c; }

  // a * b + c rounded once, as the instruction of the other paths does. In double the product is
  // exact; the sum is rounded to odd (where it is not exact its last bit is set), so that rounding
  // it again to float cannot go wrong.
  static F FusedMulAdd(F a, F b, F c) {
    const D product = __builtin_convertvector(a, D) * __builtin_convertvector(b, D);
    const D addend = __builtin_convertvector(c, D);
    const D sum = product + addend;
    const D part = sum - product;
    const D error = (product - (sum - part)) + (addend - part);
    // All false for what is not finite.
    const L inexact = (error > 0) | (error < 0);
    const L inwards = (error > 0) ^ (sum > 0);
    const L even = ((L)sum & 1) - 1;
    return __builtin_convertvector((D)((L)sum + ((inwards | 1) & inexact & even)), F);
  }

  // The codebook's value for each lane's index.
  static F LookUp(I index) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = kCodebook[index[i]];
    return Load(lanes);
  }

  static F LoadF16(const uint8_t* p) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      uint16_t half;
      __builtin_memcpy(&half, p + 2 * i, sizeof(half));
      lanes[i] = F16ToFloat(half);
    }
    return Load(lanes);
  }
};

}  // namespace fastgen::cpu
