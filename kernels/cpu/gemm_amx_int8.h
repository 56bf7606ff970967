// Int8 products through tiles, over a class of tiles (amx_tiles.h).
//
// A group of 32 k of a panel is a tile of 8 rows x 64 bytes, a block of 16 rows of activations one
// of 16 x 32; their product is the group's 256 integer dots. Tiles hold one group at a time: its
// dots are stored to one of two slots while the previous group's are scaled into 16 vectors of fp32
// sums, with the operations of gemm_avx512.cc in their order, so a row has the same bits here as
// there. Weights are unpacked, signed (no correction for an offset is left), once for all row
// blocks of a call, kChunkGroups groups at a time; sums rest in `sums` between chunks.
// Formats with two scales a group have no kernel here: a group would be two half-empty tiles.
// Thread rule: kernels configure the calling thread's tiles where its last kernel left others.
// Tested by tests/kernels/amx_test.cc over emulated tiles, and over the CPU's where it has them.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/panel.h"

namespace fastgen::cpu {

// Everything is a template member for the reason that simd.h gives.
template <typename Tiles>
struct AmxInt8 {
  static constexpr TileConfig kConfig = TileUse<Tiles>::Config(kGroup, kGroup / 4);

  // ---- weights ----

  // 16 KB of weights and 4 KB of scales stay in L1 while row blocks pass.
  static constexpr int kChunkGroups = 32;

  struct alignas(64) Chunk {
    int8_t q[kChunkGroups][kGroup * kPanelOutputs];
    float scale[kChunkGroups][kPanelOutputs];
    float minimum[kChunkGroups][kPanelOutputs];
  };

  static __m512i Load(const void* p) { return _mm512_loadu_si512(p); }
  static __m512 LoadHalf(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  // Adds bit `step` of each byte of `bits` as bit 4.
  template <int kStep>
  static __m512i AddBit(__m512i v, __m512i bits) {
    __m512i moved = bits;
    if constexpr (kStep < 4) moved = _mm512_slli_epi16(bits, 4 - kStep);
    if constexpr (kStep > 4) moved = _mm512_srli_epi16(bits, kStep - 4);
    return _mm512_ternarylogic_epi32(v, moved, _mm512_set1_epi8(16), 0xf8);  // v | (moved & 16)
  }

  // Vectors kJ and kJ + 4 of a group (panel.h) as signed values.
  template <PanelFormat kFormat, int kJ>
  static void UnpackPair(const uint8_t* group, int8_t* out) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    static_assert(kTraits.bits == 4 || kTraits.bits == 5 || kTraits.bits == 8);
    __m512i low, high;
    if constexpr (kTraits.bits == 8) {
      low = Load(group + 64 * kJ);
      high = Load(group + 64 * (kJ + 4));
    } else {
      const __m512i mask = _mm512_set1_epi8(15);
      const __m512i v = Load(group + 64 * kJ);
      low = _mm512_and_si512(v, mask);
      high = _mm512_and_si512(_mm512_srli_epi16(v, 4), mask);
    }
    if constexpr (kTraits.is_table) {
      const __m512i table =
          _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook)));
      low = _mm512_shuffle_epi8(table, low);
      high = _mm512_shuffle_epi8(table, high);
    }
    if constexpr (kTraits.has_bits()) {
      const __m512i bits = Load(group + kTraits.bits_offset());
      low = AddBit<kJ>(low, bits);
      high = AddBit<kJ + 4>(high, bits);
    }
    if constexpr (kTraits.zero_point != 0) {
      const __m512i offset = _mm512_set1_epi8(static_cast<char>(kTraits.zero_point));
      low = _mm512_sub_epi8(low, offset);
      high = _mm512_sub_epi8(high, offset);
    }
    _mm512_store_si512(out + 64 * kJ, low);
    _mm512_store_si512(out + 64 * (kJ + 4), high);
  }

  // Groups [0, num_groups) of the blocks at `panel`; returns where the next block begins, if
  // num_groups is a multiple of groups_per_block.
  template <PanelFormat kFormat>
  static const uint8_t* UnpackChunk(const uint8_t* panel, int num_groups, Chunk* chunk) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    static_assert(kChunkGroups % kTraits.groups_per_block == 0);
    __m512 d = _mm512_setzero_ps(), m = _mm512_setzero_ps();
    for (int g = 0; g < num_groups; ++g, panel += kTraits.group_bytes()) {
      if (g % kTraits.groups_per_block == 0) {
        d = LoadHalf(panel);
        if constexpr (kTraits.has_minimum) m = LoadHalf(panel + kMinimumOffset);
        panel += kTraits.header_bytes();
      }
      UnpackPair<kFormat, 0>(panel, chunk->q[g]);
      UnpackPair<kFormat, 1>(panel, chunk->q[g]);
      UnpackPair<kFormat, 2>(panel, chunk->q[g]);
      UnpackPair<kFormat, 3>(panel, chunk->q[g]);
      StoreScales<kFormat>(panel, d, m, chunk->scale[g], chunk->minimum[g]);
    }
    return panel;
  }

  template <PanelFormat kFormat>
  static void StoreScales(const uint8_t* group, __m512 d, __m512 m, float* scale, float* minimum) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    if constexpr (kTraits.halves == 1) {
      const auto* scales = reinterpret_cast<const __m128i*>(group + kTraits.scales_offset());
      d = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(scales))));
      if constexpr (kTraits.has_minimum) {
        const auto* minimums = reinterpret_cast<const __m128i*>(group + kTraits.minimums_offset());
        const __m512i minus = _mm512_sub_epi32(_mm512_setzero_si512(),
                                               _mm512_cvtepu8_epi32(_mm_loadu_si128(minimums)));
        m = _mm512_mul_ps(m, _mm512_cvtepi32_ps(minus));
      }
    }
    _mm512_store_ps(scale, d);
    if constexpr (kTraits.has_minimum) _mm512_store_ps(minimum, m);
  }

  // ---- product ----

  using Dots = int32_t[kBlockRows][kPanelOutputs];

  static void StartGroup(const Int8Block& x, const int8_t* w, Dots* dots) {
    Tiles::template Zero<0>();
    Tiles::template Load<4>(x.q, kGroup);
    Tiles::template Load<6>(w, 64);
    Tiles::template DotInt8<0, 4, 6>();
    Tiles::template Store<0>(*dots, 64);
  }

  template <bool kHasMinimum>
  static void AddGroup(const Int8Block& x, const Dots& dots, const float* scale,
                       const float* minimum, __m512 (&acc)[kBlockRows]) {
    const __m512 d = _mm512_load_ps(scale);
    for (int r = 0; r < kBlockRows; ++r) {
      const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots[r]));
      acc[r] = _mm512_fmadd_ps(_mm512_mul_ps(dot, _mm512_set1_ps(x.scale[r])), d, acc[r]);
    }
    if constexpr (kHasMinimum) {
      const __m512 m = _mm512_load_ps(minimum);
      for (int r = 0; r < kBlockRows; ++r) {
        acc[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(x.scaled_sum[r]), acc[r]);
      }
    }
  }

  // Adds a chunk's groups to the sums of one row block.
  template <bool kHasMinimum>
  static void AddChunk(const Chunk& chunk, const Int8Block* x, int num_groups, float* sums) {
    alignas(64) Dots dots[2];
    __m512 acc[kBlockRows];
    for (int r = 0; r < kBlockRows; ++r) acc[r] = _mm512_load_ps(sums + r * kPanelOutputs);
    StartGroup(x[0], chunk.q[0], &dots[0]);
    for (int g = 1; g < num_groups; ++g) {
      StartGroup(x[g], chunk.q[g], &dots[g % 2]);
      AddGroup<kHasMinimum>(x[g - 1], dots[(g - 1) % 2], chunk.scale[g - 1], chunk.minimum[g - 1],
                            acc);
    }
    const int last = num_groups - 1;
    AddGroup<kHasMinimum>(x[last], dots[last % 2], chunk.scale[last], chunk.minimum[last], acc);
    for (int r = 0; r < kBlockRows; ++r) _mm512_store_ps(sums + r * kPanelOutputs, acc[r]);
  }

  template <PanelFormat kFormat>
  static void Panel(const uint8_t* panel, const Int8Block* x, int num_blocks, int64_t cols,
                    float* sums) {
    constexpr int kBlockSums = kBlockRows * kPanelOutputs;
    const int64_t num_groups = cols / kGroup;
    Chunk chunk;
    for (int i = 0; i < num_blocks * kBlockSums; ++i) sums[i] = 0;
    for (int64_t first = 0; first < num_groups; first += kChunkGroups) {
      const int count =
          static_cast<int>(num_groups - first < kChunkGroups ? num_groups - first : kChunkGroups);
      panel = UnpackChunk<kFormat>(panel, count, &chunk);
      for (int block = 0; block < num_blocks; ++block) {
        AddChunk<TraitsOf(kFormat).has_minimum>(chunk, x + block * num_groups + first, count,
                                                sums + block * kBlockSums);
      }
    }
  }

  template <PanelFormat kFormat>
  static void Blocks(const uint8_t* panels, int64_t panel_bytes, int num_panels, const void* x,
                     int num_blocks, int64_t cols, float* sums) {
    TileUse<Tiles>::Configure(kConfig);
    for (int panel = 0; panel < num_panels; ++panel) {
      Panel<kFormat>(panels + panel * panel_bytes, static_cast<const Int8Block*>(x), num_blocks,
                     cols, sums);
      sums += num_blocks * kBlockRows * kPanelOutputs;
    }
  }

  // ---- quantisation, with the operations of gemm_avx512.cc ----

  // Lane r = the largest of row r's 16 lanes, of bit patterns of non-negative floats: those order
  // like integers, NaN and infinity on top.
  static __m512 ReduceRows(__m512i (&v)[kBlockRows]) {
    for (int i = 0; i < 8; ++i) {
      v[i] = _mm512_max_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                              _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    }
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm512_max_epi32(_mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]),
                              _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1]));
    }
    // Every quarter of v[i] holds rows 4 i .. 4 i + 3.
    for (int i = 0; i < 2; ++i) v[i] = MaxOfQuarters(v[2 * i], v[2 * i + 1]);
    return _mm512_castsi512_ps(MaxOfQuarters(v[0], v[1]));
  }
  static __m512i MaxOfQuarters(__m512i a, __m512i b) {
    return _mm512_max_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
  }

  // 16 values of a row at `x`, zeros if the row is beyond the last: the same instructions for every
  // number of rows, so that nothing leaves the registers.
  static __m512 LoadRow(const float* x, int64_t stride, int row, int rows) {
    return row < rows ? _mm512_loadu_ps(x + row * stride) : _mm512_setzero_ps();
  }

  // One group of the first `rows` rows; the others become zeros.
  static void QuantizeGroup(const float* x, int64_t stride, int rows, Int8Block* block) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i largest[kBlockRows];
    for (int r = 0; r < kBlockRows; ++r) {
      const __m512i a = _mm512_castps_si512(LoadRow(x, stride, r, rows));
      const __m512i b = _mm512_castps_si512(LoadRow(x + 16, stride, r, rows));
      largest[r] = _mm512_max_epi32(_mm512_and_si512(a, magnitude), _mm512_and_si512(b, magnitude));
    }
    const __m512 max = ReduceRows(largest);
    // Not less-or-equal rather than greater: true for NaN.
    const __mmask16 live = _mm512_cmp_ps_mask(max, _mm512_set1_ps(1e-30f), _CMP_NLE_UQ);
    const __m512 scale = _mm512_maskz_div_ps(live, max, _mm512_set1_ps(127.0f));
    alignas(64) float inverse[kBlockRows];
    alignas(64) int32_t sums[kBlockRows];
    _mm512_store_ps(inverse, _mm512_maskz_div_ps(live, _mm512_set1_ps(127.0f), max));
    _mm512_store_ps(block->scale, scale);
    for (int r = 0; r < kBlockRows; ++r) {
      const __m512 factor = _mm512_set1_ps(inverse[r]);
      const __m128i a = Quantize(LoadRow(x, stride, r, rows), factor);
      const __m128i b = Quantize(LoadRow(x + 16, stride, r, rows), factor);
      _mm_store_si128(reinterpret_cast<__m128i*>(block->q[r]), a);
      _mm_store_si128(reinterpret_cast<__m128i*>(block->q[r] + 16), b);
      sums[r] = Sum(a, b);
    }
    _mm512_store_ps(block->scaled_sum,
                    _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_load_si512(sums))));
  }
  static __m128i Quantize(__m512 x, __m512 factor) {
    return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, factor)));
  }

  static int32_t Sum(__m128i a, __m128i b) {
    const __m128i ones = _mm_set1_epi8(1);
    __m128i sum = _mm_dpbusd_epi32(_mm_dpbusd_epi32(_mm_setzero_si128(), ones, a), ones, b);
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
  }

  static void Prepare(const float* x, int64_t stride, int rows, int64_t cols, void* block) {
    Int8Block* groups = static_cast<Int8Block*>(block);
    for (int64_t k = 0; k < cols; k += kGroup) QuantizeGroup(x + k, stride, rows, groups++);
  }
};

}  // namespace fastgen::cpu
