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
  using typename Base::F;
  using typename Base::I;
  using Base::kLanes;
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

  // Rows interleave floats, then doubles, then quarters twice: four rounds of 16.
  static void Transpose(F (&rows)[kLanes]) {
    __m512 a[16], b[16];
    for (int i = 0; i < 8; ++i) {
      a[2 * i] = _mm512_unpacklo_ps((__m512)rows[2 * i], (__m512)rows[2 * i + 1]);
      a[2 * i + 1] = _mm512_unpackhi_ps((__m512)rows[2 * i], (__m512)rows[2 * i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
      b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
      b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
      b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    // b[4 g + i]: quarter q holds element 4 q + i of rows 4 g .. 4 g + 3.
    for (int i = 0; i < 4; ++i) {
      const __m512 even01 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
      const __m512 odd01 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
      const __m512 even23 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
      const __m512 odd23 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
      rows[i] = (F)_mm512_shuffle_f32x4(even01, even23, 0x88);
      rows[i + 4] = (F)_mm512_shuffle_f32x4(odd01, odd23, 0x88);
      rows[i + 8] = (F)_mm512_shuffle_f32x4(even01, even23, 0xdd);
      rows[i + 12] = (F)_mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
  }

  // The codebook's value for each lane's index.
  static F LookUp(I index) {
    const __m512i table = _mm512_cvtepi8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook)));
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
