// Avx512Bf16Path: sixteen lanes and products of bf16 pairs. For files compiled with the flags of
// AVX-512 and BF16 only.
// Thread rule: pure functions.
// Tested by tests/kernels/*_test.cc with cpu_isa "avx512-bf16".
#pragma once

#include "kernels/cpu/avx512_path.h"

namespace fastgen::cpu {

struct Avx512Bf16Path : Avx512Lanes<Avx512Bf16Path> {
  static constexpr bool kHasDotBf16 = true;

  // c + a . b over pairs of bf16.
  static F DotBf16(F a, F b, F c) {
    return (F)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
  }

  // Lane i holds the pair (a[i], b[i]) of bf16.
  static F PairBf16(const uint16_t* a, const uint16_t* b) {
    static constexpr uint16_t kOrder[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                            37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                            11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i low =
        _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
    const __m512i high =
        _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
    return (F)_mm512_permutex2var_epi16(low, _mm512_loadu_si512(kOrder), high);
  }
  // Rounds to nearest even in one instruction; a NaN stays one.
  static void StoreBf16(uint16_t* p, F v) {
    const __m256bh half = _mm512_cvtneps_pbh((__m512)v);
    __builtin_memcpy(p, &half, sizeof(half));
  }
};

}  // namespace fastgen::cpu
