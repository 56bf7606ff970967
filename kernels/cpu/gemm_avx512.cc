// Matrix kernels for AVX-512 with VNNI.
//
// Int8: `vpdpbusd` adds four u8 x s8 products to each of 16 outputs. A panel's nibbles become bytes
// in registers (and, shift) and meet up to 8 rows before the next vector is read: 8 integer sums, 8
// float sums, and no buffer. At 8 rows a group of 32 k is 64 vpdpbusd against 12 unpacking
// instructions, 8 conversions and 16-24 float ones, so the unpacking is never worth doing apart.
// Offsets enter as the integer sums' starting value; see Int8Group. Arithmetic and its order are
// those of matmul_kernels.h.
#include <immintrin.h>

#include <cstddef>
#include <utility>

#include "kernels/cpu/avx512_path.h"
#include "kernels/cpu/matmul_kernels.h"

namespace fastgen::cpu {
namespace {

// Rows of at most this many get two integer sums each, because 8 dependent vpdpbusd (4 cycles each)
// would set the pace.
constexpr int kMaxSplitRows = 3;

inline __m512i Broadcast(const void* p) {
  int32_t value;
  __builtin_memcpy(&value, p, sizeof(value));
  return _mm512_set1_epi32(value);
}

inline __m512 LoadHalf16(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// ---- int8 ----

// The weights of k = 4 j .. 4 j + 3 (low) and k = 16 + 4 j .. (high) of 16 outputs.
struct UnpackedPair {
  __m512i low;
  __m512i high;
};

// Moves bits up (down where negative), within 16-bit lanes: what crosses a byte is masked off.
template <int kShift>
inline __m512i Shift(__m512i v) {
  if constexpr (kShift >= 0) return _mm512_slli_epi16(v, kShift);
  return _mm512_srli_epi16(v, -kShift);
}

// v | (bits of `plane` moved by kShift and masked)
template <int kShift>
inline __m512i AddBits(__m512i v, __m512i plane, int mask) {
  return _mm512_ternarylogic_epi32(v, Shift<kShift>(plane),
                                   _mm512_set1_epi8(static_cast<char>(mask)), 0xf8);
}

// The codebook as unsigned bytes, 128 too large.
inline __m512i UnsignedTable() {
  const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook));
  return _mm512_broadcast_i32x4(_mm_xor_si128(table, _mm_set1_epi8(static_cast<char>(0x80))));
}

template <PanelFormat kFormat, int kJ>
inline UnpackedPair Unpack(const uint8_t* group) {
  constexpr PanelTraits kTraits = TraitsOf(kFormat);
  if constexpr (kTraits.bits == 8) {
    return {_mm512_loadu_si512(group + 64 * kJ), _mm512_loadu_si512(group + 64 * (kJ + 4))};
  }
  UnpackedPair pair = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  if constexpr (kTraits.has_nibbles()) {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i v = _mm512_loadu_si512(group + 64 * kJ);
    pair = {_mm512_and_si512(v, mask), _mm512_and_si512(_mm512_srli_epi16(v, 4), mask)};
  }
  if constexpr (kTraits.is_table) {
    const __m512i table = UnsignedTable();
    pair = {_mm512_shuffle_epi8(table, pair.low), _mm512_shuffle_epi8(table, pair.high)};
  }
  if constexpr (kTraits.has_pairs()) {
    constexpr int kTo = kTraits.pairs_shift();
    const uint8_t* pairs = group + kTraits.pairs_offset();
    pair.low = AddBits<kTo - 2 * kJ>(pair.low, _mm512_loadu_si512(pairs), 3 << kTo);
    pair.high = AddBits<kTo - 2 * kJ>(pair.high, _mm512_loadu_si512(pairs + 64), 3 << kTo);
  }
  if constexpr (kTraits.has_bits()) {
    constexpr int kTo = kTraits.bits_shift();
    const __m512i bits = _mm512_loadu_si512(group + kTraits.bits_offset());
    pair.low = AddBits<kTo - kJ>(pair.low, bits, 1 << kTo);
    pair.high = AddBits<kTo - kJ - 4>(pair.high, bits, 1 << kTo);
  }
  return pair;
}

// What the integers of a format are stored above their values, in registers.
constexpr int OffsetOf(PanelFormat format) {
  return TraitsOf(format).is_table ? 128 : TraitsOf(format).zero_point;
}

template <PanelFormat kFormat, int R>
inline void StartDots(const Int8Group<R>& x, __m512i (&low)[R], __m512i (&high)[R]) {
  constexpr int kOffset = OffsetOf(kFormat);
  for (int r = 0; r < R; ++r) {
    low[r] = high[r] = _mm512_setzero_si512();
    if constexpr (TraitsOf(kFormat).halves == 2 && kOffset > 0) {
      low[r] = Broadcast(&x.minus_32_sum[0][r]);
      high[r] = Broadcast(&x.minus_32_sum[1][r]);
      if constexpr (kOffset == 4) {
        low[r] = _mm512_srai_epi32(low[r], 3);
        high[r] = _mm512_srai_epi32(high[r], 3);
      }
    } else if constexpr (kOffset == 8) {
      low[r] = Broadcast(&x.minus_8_sum[r]);
    } else if constexpr (kOffset == 16) {
      low[r] = _mm512_slli_epi32(Broadcast(&x.minus_8_sum[r]), 1);
    } else if constexpr (kOffset == 128) {
      low[r] = Broadcast(&x.minus_128_sum[r]);
    }
  }
}

// One vector of low and of high weights against all rows. kTwoSums keeps the halves of the group
// apart.
template <PanelFormat kFormat, int R, int kJ, bool kTwoSums>
inline void DotStep(const uint8_t* group, const Int8Group<R>& x, __m512i (&low)[R],
                    __m512i (&high)[R]) {
  const UnpackedPair w = Unpack<kFormat, kJ>(group);
  for (int r = 0; r < R; ++r) low[r] = _mm512_dpbusd_epi32(low[r], w.low, Broadcast(x.q[kJ][r]));
  for (int r = 0; r < R; ++r) {
    __m512i& sum = kTwoSums ? high[r] : low[r];
    sum = _mm512_dpbusd_epi32(sum, w.high, Broadcast(x.q[kJ + 4][r]));
  }
}

// What a block's groups share.
struct Header {
  __m512 d;
  __m512 m;
};

template <PanelFormat kFormat>
inline Header LoadHeader(const uint8_t* block) {
  Header header = {LoadHalf16(block), _mm512_setzero_ps()};
  if constexpr (TraitsOf(kFormat).has_minimum) header.m = LoadHalf16(block + kMinimumOffset);
  return header;
}

template <PanelFormat kFormat>
inline __m512 Scale(const Header& header, const uint8_t* group, int half) {
  constexpr PanelTraits kTraits = TraitsOf(kFormat);
  if constexpr (kTraits.halves == 0) return header.d;
  const __m128i scales = _mm_loadu_si128(
      reinterpret_cast<const __m128i*>(group + kTraits.scales_offset() + 16 * half));
  return _mm512_mul_ps(header.d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)));
}

template <PanelFormat kFormat>
inline __m512 Minimum(const Header& header, const uint8_t* group, int half) {
  constexpr PanelTraits kTraits = TraitsOf(kFormat);
  if constexpr (kTraits.halves == 0) return header.m;
  const __m128i minimums = _mm_loadu_si128(
      reinterpret_cast<const __m128i*>(group + kTraits.minimums_offset() + 16 * half));
  const __m512i minus = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_cvtepu8_epi32(minimums));
  return _mm512_mul_ps(header.m, _mm512_cvtepi32_ps(minus));
}

// One half of a group that has two scales.
template <PanelFormat kFormat, int R>
inline void AddHalf(const Header& header, const uint8_t* group, const Int8Group<R>& x, int half,
                    const __m512i (&dot)[R], __m512 (&acc)[R]) {
  const __m512 d = Scale<kFormat>(header, group, half);
  for (int r = 0; r < R; ++r) {
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[r]), _mm512_set1_ps(x.scale[r]));
    acc[r] = _mm512_fmadd_ps(scaled, d, acc[r]);
  }
  if constexpr (TraitsOf(kFormat).has_minimum) {
    const __m512 m = Minimum<kFormat>(header, group, half);
    for (int r = 0; r < R; ++r) {
      const float sum = x.scale[r] * (static_cast<float>(x.minus_32_sum[half][r]) * -0.03125f);
      acc[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(sum), acc[r]);
    }
  }
}

template <PanelFormat kFormat, int R>
inline void AddGroup(const Header& header, const uint8_t* group, const Int8Group<R>& x,
                     __m512 (&acc)[R]) {
  constexpr PanelTraits kTraits = TraitsOf(kFormat);
  constexpr bool kTwoSums = kTraits.halves == 2 || R <= kMaxSplitRows;
  __m512i low[R], high[R];
  StartDots<kFormat, R>(x, low, high);
  DotStep<kFormat, R, 0, kTwoSums>(group, x, low, high);
  DotStep<kFormat, R, 1, kTwoSums>(group, x, low, high);
  DotStep<kFormat, R, 2, kTwoSums>(group, x, low, high);
  DotStep<kFormat, R, 3, kTwoSums>(group, x, low, high);
  if constexpr (kTraits.halves == 2) {
    AddHalf<kFormat, R>(header, group, x, 0, low, acc);
    AddHalf<kFormat, R>(header, group, x, 1, high, acc);
    return;
  }
  const __m512 d = Scale<kFormat>(header, group, 0);
  for (int r = 0; r < R; ++r) {
    const __m512i dot = kTwoSums ? _mm512_add_epi32(low[r], high[r]) : low[r];
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(x.scale[r]));
    acc[r] = _mm512_fmadd_ps(scaled, d, acc[r]);
  }
  if constexpr (kTraits.has_minimum) {
    const __m512 m = Minimum<kFormat>(header, group, 0);
    for (int r = 0; r < R; ++r)
      acc[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(x.scaled_sum[r]), acc[r]);
  }
}

template <PanelFormat kFormat, int R>
void Int8Tile(const uint8_t* panel, int64_t ahead, const void* x, int64_t cols, float* y) {
  constexpr PanelTraits kTraits = TraitsOf(kFormat);
  const Int8Group<R>* group = static_cast<const Int8Group<R>*>(x);
  __m512 acc[R];
  for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
  for (int64_t left = cols / kGroup; left > 0; left -= kTraits.groups_per_block) {
    PrefetchAhead<kTraits.block_bytes()>(panel, ahead);
    const Header header = LoadHeader<kFormat>(panel);
    panel += kTraits.header_bytes();
    const int64_t groups = kTraits.groups_per_block == 1     ? 1
                           : left < kTraits.groups_per_block ? left
                                                             : kTraits.groups_per_block;
    for (int64_t g = 0; g < groups; ++g, ++group, panel += kTraits.group_bytes()) {
      AddGroup<kFormat, R>(header, panel, *group, acc);
    }
  }
  for (int r = 0; r < R; ++r) _mm512_store_ps(y + r * kPanelOutputs, acc[r]);
}

// ---- int8 quantisation ----

// Lane r = the largest of row r's 16 lanes, as bit patterns of non-negative floats: those order
// like integers, and infinities and NaN come out on top, so a poisoned row stays visible in its
// scale.
inline __m256i ReduceRows(const __m512i (&rows)[8]) {
  __m256i v[8];
  for (int r = 0; r < 8; ++r) {
    v[r] = _mm256_max_epi32(_mm512_castsi512_si256(rows[r]), _mm512_extracti64x4_epi64(rows[r], 1));
  }
  for (int r = 0; r < 4; ++r) {
    v[r] = _mm256_max_epi32(_mm256_unpacklo_epi32(v[2 * r], v[2 * r + 1]),
                            _mm256_unpackhi_epi32(v[2 * r], v[2 * r + 1]));
  }
  // v[r] holds rows 2 r and 2 r + 1 alternating.
  for (int r = 0; r < 2; ++r) {
    v[r] = _mm256_max_epi32(_mm256_unpacklo_epi64(v[2 * r], v[2 * r + 1]),
                            _mm256_unpackhi_epi64(v[2 * r], v[2 * r + 1]));
  }
  return _mm256_max_epi32(_mm256_permute2x128_si256(v[0], v[1], 0x20),
                          _mm256_permute2x128_si256(v[0], v[1], 0x31));
}

// 8 rows of 8 units of 4 bytes to 8 units of 8 rows.
inline void TransposeUnits(__m256i (&v)[8]) {
  __m256i a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
    v[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
  }
}

inline void StoreRows(void* to, __mmask8 mask, __m256i v) { _mm256_mask_storeu_epi32(to, mask, v); }

// Eight groups of 32 values as integers, one a lane.
struct Quantized {
  __m256i units[8];  // [g]: the 32 bytes of group g
  __m256 scale;
  __m256i sums[2];  // of the first and the second 16 of each
};

// Quantises groups x + g * stride, g < R; the rest are zeros. All lanes of a vector are groups
// wherever one alone would use a scalar.
template <int R>
inline Quantized Quantize(const float* x, int64_t stride) {
  Quantized result;
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i largest[8];
  for (int r = 0; r < 8; ++r) largest[r] = _mm512_setzero_si512();
  for (int r = 0; r < R; ++r) {
    const __m512i a = _mm512_loadu_si512(x + r * stride),
                  b = _mm512_loadu_si512(x + r * stride + 16);
    largest[r] = _mm512_max_epi32(_mm512_and_si512(a, magnitude), _mm512_and_si512(b, magnitude));
  }
  const __m256 max = _mm256_castsi256_ps(ReduceRows(largest));
  // Not less-or-equal rather than greater: true for NaN.
  const __mmask8 live = _mm256_cmp_ps_mask(max, _mm256_set1_ps(1e-30f), _CMP_NLE_UQ);
  const __m256 inverse = _mm256_maskz_div_ps(live, _mm256_set1_ps(127.0f), max);
  result.scale = _mm256_maskz_div_ps(live, max, _mm256_set1_ps(127.0f));
  alignas(32) float inverses[8];
  _mm256_store_ps(inverses, inverse);
  for (int r = 0; r < 8; ++r) result.units[r] = _mm256_setzero_si256();
  for (int r = 0; r < R; ++r) {
    const __m512 factor = _mm512_set1_ps(inverses[r]);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + r * stride), factor));
    const __m512i b =
        _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + r * stride + 16), factor));
    result.units[r] = _mm256_set_m128i(_mm512_cvtsepi32_epi8(b), _mm512_cvtsepi32_epi8(a));
  }
  return result;
}

// Sums of the two halves of each group, from units that TransposeUnits has turned.
inline void SumUnits(const __m256i (&turned)[8], __m256i (&sums)[2]) {
  const __m256i ones = _mm256_set1_epi8(1);
  sums[0] = sums[1] = _mm256_setzero_si256();
  for (int j = 0; j < 8; ++j) sums[j / 4] = _mm256_dpbusd_epi32(sums[j / 4], ones, turned[j]);
}

// What a group's record holds behind its integers, a lane a group.
struct Corrections {
  explicit Corrections(const Quantized& q) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i sum = _mm256_add_epi32(q.sums[0], q.sums[1]);
    words[0] = _mm256_castps_si256(q.scale);
    words[1] = _mm256_castps_si256(_mm256_mul_ps(q.scale, _mm256_cvtepi32_ps(sum)));
    words[2] = _mm256_sub_epi32(zero, _mm256_slli_epi32(sum, 3));
    words[3] = _mm256_sub_epi32(zero, _mm256_slli_epi32(sum, 7));
    words[4] = _mm256_sub_epi32(zero, _mm256_slli_epi32(q.sums[0], 5));
    words[5] = _mm256_sub_epi32(zero, _mm256_slli_epi32(q.sums[1], 5));
  }
  __m256i words[6];  // in the order of Int8Group's members
};

// One group of R rows.
template <int R>
inline void QuantizeGroups(const float* x, int64_t stride, Int8Group<R>* group) {
  static_assert(offsetof(Int8Group<R>, minus_32_sum) == (kGroup + 4 * 4) * R);
  constexpr __mmask8 kRows = static_cast<__mmask8>((1 << R) - 1);
  Quantized q = Quantize<R>(x, stride);
  TransposeUnits(q.units);
  SumUnits(q.units, q.sums);
  for (int j = 0; j < 8; ++j) StoreRows(group->q[j], kRows, q.units[j]);
  const Corrections corrections(q);
  uint8_t* const members = reinterpret_cast<uint8_t*>(group) + kGroup * R;
  for (int i = 0; i < 6; ++i) StoreRows(members + 4 * R * i, kRows, corrections.words[i]);
}

// Eight groups of one row: a decode step of one sequence.
inline void QuantizeRun(const float* x, Int8Group<1>* groups) {
  Quantized q = Quantize<8>(x, kGroup);
  for (int g = 0; g < 8; ++g) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(groups[g].q), q.units[g]);
  }
  TransposeUnits(q.units);
  SumUnits(q.units, q.sums);
  const Corrections corrections(q);
  alignas(32) int32_t words[6][8];
  for (int i = 0; i < 6; ++i) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(words[i]), corrections.words[i]);
  }
  for (int g = 0; g < 8; ++g) {
    int32_t record[6];
    for (int i = 0; i < 6; ++i) record[i] = words[i][g];
    __builtin_memcpy(reinterpret_cast<uint8_t*>(groups + g) + kGroup, record, sizeof(record));
  }
}

template <int R>
void QuantizeRows(const float* x, int64_t stride, int64_t cols, void* tile) {
  Int8Group<R>* group = static_cast<Int8Group<R>*>(tile);
  int64_t k = 0;
  if constexpr (R == 1) {
    for (; k + 8 * kGroup <= cols; k += 8 * kGroup, group += 8) QuantizeRun(x + k, group);
  }
  for (; k < cols; k += kGroup, ++group) QuantizeGroups<R>(x + k, stride, group);
}

template <int... kRows>
void PrepareInt8For(std::integer_sequence<int, kRows...>, const float* x, int64_t stride, int rows,
                    int64_t cols, void* tile) {
  using Rows = void (*)(const float*, int64_t, int64_t, void*);
  static constexpr Rows kByRows[] = {QuantizeRows<kRows + 1>...};
  kByRows[rows - 1](x, stride, cols, tile);
}

void PrepareInt8(const float* x, int64_t stride, int rows, int64_t cols, void* tile) {
  PrepareInt8For(std::make_integer_sequence<int, kTileRows>(), x, stride, rows, cols, tile);
}

template <PanelFormat kFormat, int... kRows>
void FillInt8(MatMulKernels* kernels, std::integer_sequence<int, kRows...>) {
  ((kernels->int8_tile[static_cast<int>(kFormat)][kRows] = Int8Tile<kFormat, kRows + 1>), ...);
}

template <int... kFormats>
void FillInt8Formats(MatMulKernels* kernels, std::integer_sequence<int, kFormats...>) {
  (FillInt8<static_cast<PanelFormat>(kFirstIntegerFormat + kFormats)>(
       kernels, std::make_integer_sequence<int, kTileRows>()),
   ...);
}

}  // namespace

void FillMatMulAvx512(MatMulKernels* kernels) {
  MatMulTemplates<Avx512Path>::FillFloat(kernels);
  FillInt8Formats(kernels, std::make_integer_sequence<int, kNumIntegerFormats>());
  kernels->prepare_int8 = PrepareInt8;
}

}  // namespace fastgen::cpu
