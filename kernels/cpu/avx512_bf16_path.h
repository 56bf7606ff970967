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

  // pairs[i][half] = x[i], i < count; the other halves are not touched.
  static void StoreHalves(const uint16_t (&x)[kLanes], int64_t count, int half, uint16_t* pairs) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    const __mmask32 low = static_cast<__mmask32>(0x55555555u & ((uint64_t{1} << 2 * count) - 1));
    if (half == 0) {
      _mm512_mask_storeu_epi16(pairs, low, wide);
    } else {
      _mm512_mask_storeu_epi16(pairs, low << 1, _mm512_slli_epi32(wide, 16));
    }
  }

  // Rounds to nearest even in one instruction; a NaN stays one.
  static void StoreBf16(uint16_t* p, F v) {
    const __m256bh half = _mm512_cvtneps_pbh((__m512)v);
    __builtin_memcpy(p, &half, sizeof(half));
  }
};

}  // namespace fastgen::cpu
