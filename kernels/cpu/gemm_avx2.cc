// Matrix kernels for AVX2, FMA and F16C.
//
// Int8: `vpmaddubsw` multiplies u8 by s8 and adds neighbours in 16 bits, `vpmaddwd` by ones adds
// those in 32. Nibbles and 6-bit weights cannot saturate 16 bits (63 * 127 * 2 < 2^15); 8-bit
// weights could, so for them the weight's sign moves to the activation: |w| * (x with w's sign), at
// most 128 * 127 * 2 < 2^15, and no correction is due. A panel's 16 outputs are two vectors of 8,
// worked one after the other so that 4 rows' sums stay in 16 registers. Arithmetic and its order
// are those of matmul_kernels.h.
#include <immintrin.h>

#include <utility>

#include "kernels/cpu/avx2_path.h"
#include "kernels/cpu/matmul_kernels.h"

namespace fastgen::cpu {
namespace {

// Rows whose integer and float sums fit the register file together.
constexpr int kMaxRows = 4;

inline __m256i Broadcast(const void* p) {
  int32_t value;
  __builtin_memcpy(&value, p, sizeof(value));
  return _mm256_set1_epi32(value);
}

inline __m256i LoadVector(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

inline __m256 LoadHalf8(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Weights of one vector of 8 outputs for 4 k: unsigned, or for kQ8_0 signed.
template <PanelFormat kFormat, int kStep>
inline __m256i WeightStep(const uint8_t* block) {
  if constexpr (kFormat == PanelFormat::kQ8_0) {
    return _mm256_xor_si256(LoadVector(block + 64 * kStep),
                            _mm256_set1_epi8(static_cast<char>(0x80)));
  } else {
    constexpr int kJ = kStep % 4;
    constexpr int kHalf = kStep / 4;
    __m256i w = LoadVector(block + 64 * kJ);
    if constexpr (kHalf == 1) w = _mm256_srli_epi16(w, 4);
    w = _mm256_and_si256(w, _mm256_set1_epi8(15));
    if constexpr (kFormat == PanelFormat::kQ6_K) {
      __m256i high = LoadVector(block + kQ6HighOffset + 64 * kHalf);
      constexpr int kShift = 4 - 2 * kJ;
      high = kShift >= 0 ? _mm256_slli_epi16(high, kShift) : _mm256_srli_epi16(high, -kShift);
      w = _mm256_or_si256(w, _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
    }
    return w;
  }
}

template <PanelFormat kFormat, int R, int B, int kStep>
inline void DotStep(const uint8_t* block, const Int8Group<R>& x, int first, __m256i (&dot)[B]) {
  const __m256i w = WeightStep<kFormat, kStep>(block);
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i magnitude = kFormat == PanelFormat::kQ8_0 ? _mm256_abs_epi8(w) : w;
  for (int r = 0; r < B; ++r) {
    __m256i activation = Broadcast(x.q[kStep][first + r]);
    if constexpr (kFormat == PanelFormat::kQ8_0) activation = _mm256_sign_epi8(activation, w);
    dot[r] = _mm256_add_epi32(dot[r],
                              _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, activation), ones));
  }
}

template <PanelFormat kFormat, int R, int B>
inline void StartDots(const Int8Group<R>& x, int first, int half, __m256i (&dot)[B]) {
  for (int r = 0; r < B; ++r) {
    if constexpr (kFormat == PanelFormat::kQ4_0) {
      dot[r] = Broadcast(&x.minus_8_sum[first + r]);
    } else if constexpr (kFormat == PanelFormat::kQ6_K) {
      dot[r] = Broadcast(&x.minus_32_sum[half][first + r]);
    } else {
      dot[r] = _mm256_setzero_si256();
    }
  }
}

template <PanelFormat kFormat, int R, int B, int... kSteps>
inline void Dots(std::integer_sequence<int, kSteps...>, const uint8_t* block, const Int8Group<R>& x,
                 int first, __m256i (&dot)[B]) {
  (DotStep<kFormat, R, B, kSteps>(block, x, first, dot), ...);
}

template <int R, int B>
inline void AddScaled(const Int8Group<R>& x, int first, const __m256i (&dot)[B], __m256 d,
                      __m256 (&acc)[B]) {
  for (int r = 0; r < B; ++r) {
    const __m256 scaled =
        _mm256_mul_ps(_mm256_cvtepi32_ps(dot[r]), _mm256_set1_ps(x.scale[first + r]));
    acc[r] = _mm256_fmadd_ps(scaled, d, acc[r]);
  }
}

// One group for B rows from `first` and 8 outputs; `block` is moved to their bytes, `index` is 0
// or 8.
template <PanelFormat kFormat, int R, int B>
inline void AddGroup(const uint8_t* block, int index, const Int8Group<R>& x, int first,
                     __m256 (&acc)[B]) {
  const uint8_t* bytes = block + 4 * index;
  __m256i dot[B];
  if constexpr (kFormat == PanelFormat::kQ6_K) {
    const __m256 d = LoadHalf8(block + kQ6DeltaOffset + 2 * index);
    for (int half = 0; half < 2; ++half) {
      StartDots<kFormat, R, B>(x, first, half, dot);
      if (half == 0) {
        Dots<kFormat, R, B>(std::integer_sequence<int, 0, 1, 2, 3>(), bytes, x, first, dot);
      } else {
        Dots<kFormat, R, B>(std::integer_sequence<int, 4, 5, 6, 7>(), bytes, x, first, dot);
      }
      const __m128i scales = _mm_loadl_epi64(
          reinterpret_cast<const __m128i*>(block + kQ6ScaleOffset + 16 * half + index));
      AddScaled<R, B>(x, first, dot,
                      _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales))), acc);
    }
    return;
  }
  StartDots<kFormat, R, B>(x, first, 0, dot);
  Dots<kFormat, R, B>(std::make_integer_sequence<int, 8>(), bytes, x, first, dot);
  constexpr int kDelta = kFormat == PanelFormat::kQ8_0 ? kQ8Bytes : kNibbleBytes;
  AddScaled<R, B>(x, first, dot, LoadHalf8(block + kDelta + 2 * index), acc);
  if constexpr (kFormat == PanelFormat::kQ4_1) {
    const __m256 m = LoadHalf8(block + kNibbleBytes + 32 + 2 * index);
    for (int r = 0; r < B; ++r)
      acc[r] = _mm256_fmadd_ps(m, _mm256_set1_ps(x.scaled_sum[first + r]), acc[r]);
  }
}

template <PanelFormat kFormat, int R, int B>
void Int8Rows(const uint8_t* panel, const Int8Group<R>* groups, int64_t num_groups, int first,
              float* y) {
  constexpr int64_t kBlockBytes = GroupBytes(kFormat);
  for (int index = 0; index < kPanelOutputs; index += 8) {
    __m256 acc[B];
    for (int r = 0; r < B; ++r) acc[r] = _mm256_setzero_ps();
    const uint8_t* block = panel;
    for (int64_t g = 0; g < num_groups; ++g, block += kBlockBytes) {
      AddGroup<kFormat, R, B>(block, index, groups[g], first, acc);
    }
    for (int r = 0; r < B; ++r) _mm256_store_ps(y + (first + r) * kPanelOutputs + index, acc[r]);
  }
}

template <PanelFormat kFormat, int R>
void Int8Tile(const uint8_t* panel, const void* x, int64_t cols, float* y) {
  constexpr int kRows = R < kMaxRows ? R : kMaxRows;
  constexpr int kRest = R % kRows;
  const Int8Group<R>* groups = static_cast<const Int8Group<R>*>(x);
  for (int r = 0; r + kRows <= R; r += kRows) {
    Int8Rows<kFormat, R, kRows>(panel, groups, cols / kGroup, r, y);
  }
  if constexpr (kRest > 0) Int8Rows<kFormat, R, kRest>(panel, groups, cols / kGroup, R - kRest, y);
}

template <PanelFormat kFormat, int... kRows>
void FillInt8(MatMulKernels* kernels, std::integer_sequence<int, kRows...>) {
  ((kernels->int8_tile[static_cast<int>(kFormat)][kRows] = Int8Tile<kFormat, kRows + 1>), ...);
}

}  // namespace

void FillMatMulAvx2(MatMulKernels* kernels) {
  using Rows = std::make_integer_sequence<int, kTileRows>;
  MatMulTemplates<Avx2Path>::FillFloat(kernels);
  FillInt8<PanelFormat::kQ4_0>(kernels, Rows());
  FillInt8<PanelFormat::kQ4_1>(kernels, Rows());
  FillInt8<PanelFormat::kQ8_0>(kernels, Rows());
  FillInt8<PanelFormat::kQ6_K>(kernels, Rows());
}

}  // namespace fastgen::cpu
