// Int8 products on eight lanes, as a template over the instruction that multiplies bytes
// (gemm_avx2.cc, gemm_avx2_vnni.cc).
//
// A panel's 16 outputs are two vectors of 8, worked one after the other so that 4 rows' sums stay
// in 16 registers. A Dot says whether weights of 8 bits are worked signed (kSignedBytes), and adds
// the products of some steps of 4 k to the integer sums of B rows. Arithmetic and its order are
// those of matmul_kernels.h. Thread rule: pure functions. Tested by tests/kernels/matmul_test.cc
// with cpu_isa "avx2" and "avx2-vnni".
#pragma once

#include <immintrin.h>

#include <utility>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/panel.h"

namespace fastgen::cpu {

template <typename Dot>
struct Avx2Int8 {
  // Rows whose integer and float sums fit the register file together.
  static constexpr int kMaxRows = 4;

  static __m256i Broadcast(const void* p) {
    int32_t value;
    __builtin_memcpy(&value, p, sizeof(value));
    return _mm256_set1_epi32(value);
  }

  static __m256i LoadVector(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }

  static __m256 LoadHalf8(const uint8_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  // Formats whose integers are worked signed: of 8 bits, stored or out of the table.
  static constexpr bool IsSigned(PanelFormat format) {
    return Dot::kSignedBytes && (TraitsOf(format).bits == 8 || TraitsOf(format).is_table);
  }

  // Moves bits up (down where negative), within 16-bit lanes: what crosses a byte is masked off.
  template <int kShift>
  static __m256i Shift(__m256i v, int mask) {
    const __m256i moved =
        kShift >= 0 ? _mm256_slli_epi16(v, kShift) : _mm256_srli_epi16(v, -kShift);
    return _mm256_and_si256(moved, _mm256_set1_epi8(static_cast<char>(mask)));
  }

  // Weights of one vector of 8 outputs for 4 k: unsigned, or signed where IsSigned.
  template <PanelFormat kFormat, int kStep>
  static __m256i WeightStep(const uint8_t* group) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    constexpr int kJ = kStep % 4;
    constexpr int kHalf = kStep / 4;
    const __m256i top_bits = _mm256_set1_epi8(static_cast<char>(0x80));
    if constexpr (kTraits.bits == 8) {
      const __m256i bytes = LoadVector(group + 64 * kStep);
      return IsSigned(kFormat) ? _mm256_xor_si256(bytes, top_bits) : bytes;
    }
    __m256i w = _mm256_setzero_si256();
    if constexpr (kTraits.has_nibbles()) w = Shift<-4 * kHalf>(LoadVector(group + 64 * kJ), 15);
    if constexpr (kTraits.is_table) {
      const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook));
      w = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), w);
      if (!IsSigned(kFormat)) w = _mm256_xor_si256(w, top_bits);
    }
    if constexpr (kTraits.has_pairs()) {
      constexpr int kTo = kTraits.pairs_shift();
      const __m256i pairs = LoadVector(group + kTraits.pairs_offset() + 64 * kHalf);
      w = _mm256_or_si256(w, Shift<kTo - 2 * kJ>(pairs, 3 << kTo));
    }
    if constexpr (kTraits.has_bits()) {
      constexpr int kTo = kTraits.bits_shift();
      w = _mm256_or_si256(w,
                          Shift<kTo - kStep>(LoadVector(group + kTraits.bits_offset()), 1 << kTo));
    }
    return w;
  }

  template <PanelFormat kFormat, int R, int B>
  static void StartDots(const Int8Group<R>& x, int first, int half, __m256i (&dot)[B]) {
    constexpr int kOffset = IsSigned(kFormat)            ? 0
                            : TraitsOf(kFormat).is_table ? 128
                                                         : TraitsOf(kFormat).zero_point;
    for (int r = 0; r < B; ++r) {
      if constexpr (kOffset == 0) {
        dot[r] = _mm256_setzero_si256();
      } else if constexpr (kOffset == 8) {
        dot[r] = Broadcast(&x.minus_8_sum[first + r]);
      } else if constexpr (kOffset == 16) {
        dot[r] = _mm256_slli_epi32(Broadcast(&x.minus_8_sum[first + r]), 1);
      } else if constexpr (kOffset == 128) {
        dot[r] = Broadcast(&x.minus_128_sum[first + r]);
      } else if constexpr (kOffset == 32) {
        dot[r] = Broadcast(&x.minus_32_sum[half][first + r]);
      } else {
        static_assert(kOffset == 4 && TraitsOf(kFormat).halves == 2);
        dot[r] = _mm256_srai_epi32(Broadcast(&x.minus_32_sum[half][first + r]), 3);
      }
    }
  }

  // Adds the products of steps [kFirst, kFirst + kCount) of rows [first, first + B).
  template <PanelFormat kFormat, int R, int B, int kFirst, int kCount>
  static void Dots(const uint8_t* group, const Int8Group<R>& x, int first, __m256i (&dot)[B]) {
    constexpr int kRun = kCount < Dot::MaxRun(kFormat) ? kCount : Dot::MaxRun(kFormat);
    DotRun<kFormat, R, B, kFirst>(std::make_integer_sequence<int, kRun>(), group, x, first, dot);
    if constexpr (kRun < kCount) {
      Dots<kFormat, R, B, kFirst + kRun, kCount - kRun>(group, x, first, dot);
    }
  }
  template <PanelFormat kFormat, int R, int B, int kFirst, int... kSteps>
  static void DotRun(std::integer_sequence<int, kSteps...>, const uint8_t* group,
                     const Int8Group<R>& x, int first, __m256i (&dot)[B]) {
    typename Dot::template Run<B, IsSigned(kFormat)> run;
    (run.template Add<kSteps == 0>(WeightStep<kFormat, kFirst + kSteps>(group),
                                   &x.q[kFirst + kSteps][first], dot),
     ...);
    run.Finish(dot);
  }

  template <int R, int B>
  static void AddScaled(const Int8Group<R>& x, int first, const __m256i (&dot)[B], __m256 d,
                        __m256 (&acc)[B]) {
    for (int r = 0; r < B; ++r) {
      const __m256 scaled =
          _mm256_mul_ps(_mm256_cvtepi32_ps(dot[r]), _mm256_set1_ps(x.scale[first + r]));
      acc[r] = _mm256_fmadd_ps(scaled, d, acc[r]);
    }
  }

  // What a block's groups share, of 8 outputs.
  struct Header {
    __m256 d;
    __m256 m;
  };

  template <PanelFormat kFormat>
  static __m256 Scale(const Header& header, const uint8_t* group, int index, int half) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    if constexpr (kTraits.halves == 0) return header.d;
    const __m128i scales = _mm_loadl_epi64(
        reinterpret_cast<const __m128i*>(group + kTraits.scales_offset() + 16 * half + index));
    return _mm256_mul_ps(header.d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales)));
  }

  template <PanelFormat kFormat>
  static __m256 Minimum(const Header& header, const uint8_t* group, int index, int half) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    if constexpr (kTraits.halves == 0) return header.m;
    const __m128i minimums = _mm_loadl_epi64(
        reinterpret_cast<const __m128i*>(group + kTraits.minimums_offset() + 16 * half + index));
    const __m256i minus = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_cvtepu8_epi32(minimums));
    return _mm256_mul_ps(header.m, _mm256_cvtepi32_ps(minus));
  }

  // Half `half` of a group with two scales, for B rows from `first` and 8 outputs from `index`.
  template <PanelFormat kFormat, int R, int B, int kHalf>
  static void AddHalf(const Header& header, const uint8_t* group, int index, const Int8Group<R>& x,
                      int first, __m256 (&acc)[B]) {
    __m256i dot[B];
    StartDots<kFormat, R, B>(x, first, kHalf, dot);
    Dots<kFormat, R, B, 4 * kHalf, 4>(group + 4 * index, x, first, dot);
    AddScaled<R, B>(x, first, dot, Scale<kFormat>(header, group, index, kHalf), acc);
    if constexpr (TraitsOf(kFormat).has_minimum) {
      const __m256 m = Minimum<kFormat>(header, group, index, kHalf);
      for (int r = 0; r < B; ++r) {
        const float sum =
            x.scale[first + r] * (static_cast<float>(x.minus_32_sum[kHalf][first + r]) * -0.03125f);
        acc[r] = _mm256_fmadd_ps(m, _mm256_set1_ps(sum), acc[r]);
      }
    }
  }

  // One group for B rows from `first` and 8 outputs from `index`, 0 or 8.
  template <PanelFormat kFormat, int R, int B>
  static void AddGroup(const Header& header, const uint8_t* group, int index, const Int8Group<R>& x,
                       int first, __m256 (&acc)[B]) {
    if constexpr (TraitsOf(kFormat).halves == 2) {
      AddHalf<kFormat, R, B, 0>(header, group, index, x, first, acc);
      AddHalf<kFormat, R, B, 1>(header, group, index, x, first, acc);
      return;
    }
    __m256i dot[B];
    StartDots<kFormat, R, B>(x, first, 0, dot);
    Dots<kFormat, R, B, 0, 8>(group + 4 * index, x, first, dot);
    AddScaled<R, B>(x, first, dot, Scale<kFormat>(header, group, index, 0), acc);
    if constexpr (TraitsOf(kFormat).has_minimum) {
      const __m256 m = Minimum<kFormat>(header, group, index, 0);
      for (int r = 0; r < B; ++r)
        acc[r] = _mm256_fmadd_ps(m, _mm256_set1_ps(x.scaled_sum[first + r]), acc[r]);
    }
  }

  template <PanelFormat kFormat, int R, int B>
  static void Int8Rows(const uint8_t* panel, int64_t ahead, const Int8Group<R>* groups,
                       int64_t num_groups, int first, float* y) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    for (int index = 0; index < kPanelOutputs; index += 8, ahead = 0) {
      __m256 acc[B];
      for (int r = 0; r < B; ++r) acc[r] = _mm256_setzero_ps();
      const uint8_t* at = panel;
      for (int64_t g = 0; g < num_groups;) {
        PrefetchAhead<kTraits.block_bytes()>(at, ahead);
        Header header = {LoadHalf8(at + 2 * index), _mm256_setzero_ps()};
        if constexpr (kTraits.has_minimum) {
          header.m = LoadHalf8(at + kMinimumOffset + 2 * index);
        }
        at += kTraits.header_bytes();
        for (int i = 0; i < kTraits.groups_per_block && g < num_groups; ++i, ++g) {
          AddGroup<kFormat, R, B>(header, at, index, groups[g], first, acc);
          at += kTraits.group_bytes();
        }
      }
      for (int r = 0; r < B; ++r) _mm256_store_ps(y + (first + r) * kPanelOutputs + index, acc[r]);
    }
  }

  template <PanelFormat kFormat, int R>
  static void Int8Tile(const uint8_t* panel, int64_t ahead, const void* x, int64_t cols, float* y) {
    constexpr int kRows = R < kMaxRows ? R : kMaxRows;
    constexpr int kRest = R % kRows;
    const Int8Group<R>* groups = static_cast<const Int8Group<R>*>(x);
    for (int r = 0; r + kRows <= R; r += kRows, ahead = 0) {
      Int8Rows<kFormat, R, kRows>(panel, ahead, groups, cols / kGroup, r, y);
    }
    if constexpr (kRest > 0)
      Int8Rows<kFormat, R, kRest>(panel, 0, groups, cols / kGroup, R - kRest, y);
  }

  template <PanelFormat kFormat, int... kRows>
  static void FillInt8(MatMulKernels* kernels, std::integer_sequence<int, kRows...>) {
    ((kernels->int8_tile[static_cast<int>(kFormat)][kRows] = Int8Tile<kFormat, kRows + 1>), ...);
  }

  template <int... kFormats>
  static void FillInt8Formats(MatMulKernels* kernels, std::integer_sequence<int, kFormats...>) {
    (FillInt8<static_cast<PanelFormat>(kFirstIntegerFormat + kFormats)>(
         kernels, std::make_integer_sequence<int, kTileRows>()),
     ...);
  }

  static void Fill(MatMulKernels* kernels) {
    FillInt8Formats(kernels, std::make_integer_sequence<int, kNumIntegerFormats>());
  }
};

}  // namespace fastgen::cpu
