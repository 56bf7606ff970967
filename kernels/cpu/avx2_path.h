// Avx2Path: eight lanes with AVX2, FMA and F16C. For files compiled with those flags only.
// Thread rule: pure functions.
// Tested by tests/kernels/*_test.cc with cpu_isa "avx2".
#pragma once

#include <immintrin.h>

#include "kernels/cpu/simd.h"

namespace fastgen::cpu {

struct Avx2Path : Simd<8> {
  static constexpr int kFloatRows = 4;
  static constexpr int kScoreRows = 4;
  static constexpr int kScoreVectors = 2;

  static F LoadF16(const uint8_t* p) {
    return (F)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
};

}  // namespace fastgen::cpu
