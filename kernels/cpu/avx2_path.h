// Avx2Path: eight lanes with AVX2, FMA and F16C. For files compiled with those flags only.
// Thread rule: pure functions.
// Tested by tests/kernels/*_test.cc with cpu_isa "avx2".
#pragma once

#include <immintrin.h>

#include "kernels/cpu/panel.h"
#include "kernels/cpu/simd.h"

namespace fastgen::cpu {

struct Avx2Path : Simd<8, Avx2Path> {
  static constexpr int kFloatRows = 4;
  static constexpr int kScoreRows = 4;
  static constexpr int kScoreVectors = 2;
  static constexpr bool kHasDotBf16 = false;

  static F Set1(float x) { return (F)_mm256_set1_ps(x); }
  static F MulAdd(F a, F b, F c) { return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }

  static F LoadBf16(const uint16_t* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return (F)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
  }

  // The trees of Simd's, in registers.
  static float ReduceAdd(F v) {
    const __m128 a =
        _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
  }
  static float ReduceMax(F v) {
    const __m128 a =
        _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
  }

  // The codebook's value for each lane's index.
  static F LookUp(I index) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook));
    // A shuffle of bytes; those above an index's own are 0 and fetch entry 0, which is shifted out.
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), (__m256i)index);
    return (F)_mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(bytes, 24), 24));
  }

  static F LoadF16(const uint8_t* p) {
    return (F)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
};

}  // namespace fastgen::cpu
