// Avx512Path: sixteen lanes. For files compiled with the AVX-512 flags only.
// Thread rule: pure functions.
// Tested by tests/kernels/*_test.cc with cpu_isa "avx512".
#pragma once

#include <immintrin.h>

#include "kernels/cpu/simd.h"

namespace fastgen::cpu {

struct Avx512Path : Simd<16> {
  static constexpr int kFloatRows = 8;
  static constexpr int kScoreRows = 4;
  static constexpr int kScoreVectors = 4;

  static F LoadF16(const uint8_t* p) {
    return (F)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

}  // namespace fastgen::cpu
