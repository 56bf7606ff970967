// Avx512Lanes: what the two AVX-512 paths share, sixteen lanes. Avx512Path: the one without BF16
// instructions. For files compiled with the AVX-512 flags only.
// Thread rule: pure functions.
// Tested by tests/kernels/*_test.cc with cpu_isa "avx512" and "avx512-bf16".
#pragma once

#include <immintrin.h>

#include "kernels/cpu/panel.h"
#include "kernels/cpu/simd.h"

namespace fastgen::cpu {

template <typename Path>
struct Avx512Lanes : Simd<16, Path> {
  using Base = Simd<16, Path>;
  using Base::kLanes;
  using typename Base::F;
  using typename Base::I;
  static constexpr int kFloatRows = 8;
  static constexpr int kScoreRows = 4;
  static constexpr int kScoreVectors = 4;

  static F Set1(float x) { return (F)_mm512_set1_ps(x); }
  static F MulAdd(F a, F b, F c) { return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
  static F LoadBf16(const uint16_t* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return (F)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
  }

  // The trees of Simd's, in registers.
  static float ReduceAdd(F v) {
    const __m512 a = (__m512)v;
    const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
  }
  static float ReduceMax(F v) {
    const __m512 a = (__m512)v;
    const __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
  }

  // The codebook's value for each lane's index.
  static F LookUp(I index) {
    const __m512i table =
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook)));
    return (F)_mm512_cvtepi32_ps(_mm512_permutexvar_epi32((__m512i)index, table));
  }

  static F LoadF16(const uint8_t* p) {
    return (F)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

struct Avx512Path : Avx512Lanes<Avx512Path> {
  static constexpr bool kHasDotBf16 = false;
};

}  // namespace fastgen::cpu
