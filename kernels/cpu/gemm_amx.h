// Matrix kernels for tile instructions, as templates over a class of tiles (amx_tiles.h).
//
// Int8: a group of 32 k of a panel is a tile of 8 rows x 64 bytes, a block of 16 rows of
// activations one of 16 x 32; their product is the group's 256 integer dots. Tiles hold one group
// at a time: its dots are stored to one of two slots while the previous group's are scaled into 16
// vectors of fp32 sums, with the operations of gemm_avx512.cc in their order, so a row has the same
// bits here as there. Weights are unpacked, signed (no correction for an offset is left), once for
// all row blocks of a call, kChunkGroups groups at a time; sums rest in `sums` between chunks.
// Formats with two scales a group have no kernel here: a group would be two half-empty tiles.
// Bf16: 32 k of a panel are a tile, 32 k of a row block another, and the sums of all k stay in
// tiles. Up to 2 x 2 products share their operands; each adds its k in the same order as one alone.
// Thread rule: kernels configure the calling thread's tiles where its last kernel left others.
// Tested by tests/kernels/amx_test.cc over emulated tiles, and over the CPU's where it has them.
#pragma once

#include <immintrin.h>

#include <utility>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/panel.h"

namespace fastgen::cpu {

// Everything is a template member for the reason that simd.h gives.
template <typename Tiles>
struct AmxKernels {
  static constexpr int kTileBytes = 1024;
  static constexpr int kBf16Step = 32;  // k values of one bf16 tile

  // ---- configurations ----

  // Tiles 0-3 are sums, 4 and 5 activations, 6 and 7 weights.
  static constexpr TileConfig Config(int activation_bytes, int weight_rows) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) {
      config.rows[tile] = static_cast<uint8_t>(tile < 6 ? kBlockRows : weight_rows);
      config.row_bytes[tile] =
          static_cast<uint16_t>(tile == 4 || tile == 5 ? activation_bytes : 64);
    }
    return config;
  }
  static constexpr TileConfig kInt8Config = Config(kGroup, kGroup / 4);
  static constexpr TileConfig kBf16Config = Config(2 * kBf16Step, kBf16Step / 2);

  // The configuration that this thread's tiles have.
  static const TileConfig*& Configured() {
    static thread_local const TileConfig* configured = nullptr;
    return configured;
  }
  static void Configure(const TileConfig& config) {
    const TileConfig*& configured = Configured();
    if (configured == &config) return;
    Tiles::Configure(config);
    configured = &config;
  }
  static void Release() {
    if (Configured() == nullptr) return;
    Tiles::Release();
    Configured() = nullptr;
  }

  // ---- int8: weights ----

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

  // ---- int8: product ----

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
  static void Int8Panel(const uint8_t* panel, const Int8Block* x, int num_blocks, int64_t cols,
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
  static void Int8Blocks(const uint8_t* panels, int64_t panel_bytes, int num_panels, const void* x,
                         int num_blocks, int64_t cols, float* sums) {
    Configure(kInt8Config);
    for (int panel = 0; panel < num_panels; ++panel) {
      Int8Panel<kFormat>(panels + panel * panel_bytes, static_cast<const Int8Block*>(x), num_blocks,
                         cols, sums);
      sums += num_blocks * kBlockRows * kPanelOutputs;
    }
  }

  // ---- int8: quantisation, with the operations of gemm_avx512.cc ----

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

  static void PrepareInt8(const float* x, int64_t stride, int rows, int64_t cols, void* block) {
    Int8Block* groups = static_cast<Int8Block*>(block);
    for (int64_t k = 0; k < cols; k += kGroup) QuantizeGroup(x + k, stride, rows, groups++);
  }

  // ---- bf16 ----

  // 32 k of a row, zeros beyond its end.
  static void PrepareBf16(const float* x, int64_t stride, int rows, int64_t cols, void* block) {
    uint8_t* tile = static_cast<uint8_t*>(block);
    for (int64_t k = 0; k < cols; k += kBf16Step, tile += kTileBytes) {
      const int64_t left = cols - k;
      const uint32_t mask = left >= kBf16Step ? ~uint32_t{0} : (uint32_t{1} << left) - 1;
      for (int r = 0; r < rows; ++r) {
        const float* row = x + r * stride + k;
        const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), row);
        const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), row + 16);
        _mm512_store_si512(tile + 64 * r, (__m512i)_mm512_cvtne2ps_pbh(high, low));
      }
      for (int r = rows; r < kBlockRows; ++r) {
        _mm512_store_si512(tile + 64 * r, _mm512_setzero_si512());
      }
    }
  }

  // Asks for the 16 lines of a tile.
  static void PrefetchTile(const uint8_t* tile) {
    for (int line = 0; line < 16; ++line) {
      _mm_prefetch(reinterpret_cast<const char*>(tile + 64 * line), _MM_HINT_T0);
    }
  }

  // One step of kBlocks row blocks x kPanels panels. The order of loads and products keeps two
  // products in flight while the third operand arrives: 20-25 % over the obvious one.
  template <int kBlocks, int kPanels>
  static void Bf16StepOf(const uint8_t* const (&w)[2], const uint8_t* const (&x)[2]) {
    Tiles::template Load<6>(w[0], 64);
    if constexpr (kPanels == 2) Tiles::template Load<7>(w[1], 64);
    Tiles::template Load<4>(x[0], 64);
    Tiles::template DotBf16<0, 4, 6>();
    if constexpr (kPanels == 2) Tiles::template DotBf16<1, 4, 7>();
    if constexpr (kBlocks == 2) {
      Tiles::template Load<5>(x[1], 64);
      if constexpr (kPanels == 2) Tiles::template DotBf16<3, 5, 7>();
      Tiles::template DotBf16<2, 5, 6>();
    }
  }

  // Tile 2 b + p = row block b x panel p.
  template <int kBlocks, int kPanels>
  static void Bf16Product(const uint8_t* panels, int64_t panel_bytes, const uint8_t* blocks,
                          int64_t block_bytes, int64_t cols, float* sums, int64_t panel_sums) {
    const uint8_t* w[2] = {panels, panels + (kPanels - 1) * panel_bytes};
    const uint8_t* x[2] = {blocks, blocks + (kBlocks - 1) * block_bytes};
    Tiles::template Zero<0>();
    if constexpr (kPanels == 2) Tiles::template Zero<1>();
    if constexpr (kBlocks == 2) Tiles::template Zero<2>();
    if constexpr (kBlocks == 2 && kPanels == 2) Tiles::template Zero<3>();
    int64_t left = cols;
    for (; left >= kBf16Step; left -= kBf16Step) {
      for (int p = 0; p < kPanels; ++p) PrefetchTile(w[p] + 2 * kTileBytes);
      Bf16StepOf<kBlocks, kPanels>(w, x);
      for (int p = 0; p < 2; ++p) w[p] += kTileBytes;
      for (int b = 0; b < 2; ++b) x[b] += kTileBytes;
    }
    if (left > 0) {
      // The panel ends before its last tile does.
      alignas(64) uint8_t rest[2][kTileBytes] = {};
      for (int p = 0; p < kPanels; ++p) __builtin_memcpy(rest[p], w[p], (left + 1) / 2 * 64);
      Bf16StepOf<kBlocks, kPanels>({rest[0], rest[1]}, x);
    }
    constexpr int kBlockSums = kBlockRows * kPanelOutputs;
    Tiles::template Store<0>(sums, 64);
    if constexpr (kPanels == 2) Tiles::template Store<1>(sums + panel_sums, 64);
    if constexpr (kBlocks == 2) Tiles::template Store<2>(sums + kBlockSums, 64);
    if constexpr (kBlocks == 2 && kPanels == 2) {
      Tiles::template Store<3>(sums + panel_sums + kBlockSums, 64);
    }
  }

  template <int kPanels>
  static void Bf16Panels(const uint8_t* panels, int64_t panel_bytes, const uint8_t* x,
                         int num_blocks, int64_t cols, float* sums) {
    constexpr int kBlockSums = kBlockRows * kPanelOutputs;
    const int64_t block_bytes = kBlockRows * ActivationRowBytes(ActivationKind::kBf16Blocks, cols);
    const int64_t panel_sums = int64_t{num_blocks} * kBlockSums;
    int block = 0;
    for (; block + 2 <= num_blocks; block += 2) {
      Bf16Product<2, kPanels>(panels, panel_bytes, x + block * block_bytes, block_bytes, cols,
                              sums + block * kBlockSums, panel_sums);
    }
    if (block < num_blocks) {
      Bf16Product<1, kPanels>(panels, panel_bytes, x + block * block_bytes, block_bytes, cols,
                              sums + block * kBlockSums, panel_sums);
    }
  }

  static void Bf16Blocks(const uint8_t* panels, int64_t panel_bytes, int num_panels, const void* x,
                         int num_blocks, int64_t cols, float* sums) {
    Configure(kBf16Config);
    const uint8_t* blocks = static_cast<const uint8_t*>(x);
    // One row block gains nothing from a second stream of weights.
    const int step = num_blocks > 1 ? 2 : 1;
    for (int panel = 0; panel < num_panels; panel += step) {
      if (step == 2 && panel + 2 <= num_panels) {
        Bf16Panels<2>(panels, panel_bytes, blocks, num_blocks, cols, sums);
      } else {
        Bf16Panels<1>(panels, panel_bytes, blocks, num_blocks, cols, sums);
      }
      panels += step * panel_bytes;
      sums += int64_t{step} * num_blocks * kBlockRows * kPanelOutputs;
    }
  }

  // ---- table ----

  template <int kFormat>
  static void FillInt8(BlockKernels* kernels) {
    if constexpr (HasInt8Blocks(static_cast<PanelFormat>(kFormat))) {
      kernels->int8[kFormat] = Int8Blocks<static_cast<PanelFormat>(kFormat)>;
    }
  }
  template <int... kFormats>
  static void FillInt8(BlockKernels* kernels, std::integer_sequence<int, kFormats...>) {
    (FillInt8<kFormats>(kernels), ...);
  }

  static void Fill(BlockKernels* kernels) {
    FillInt8(kernels, std::make_integer_sequence<int, kNumPanelFormats>());
    kernels->bf16 = Bf16Blocks;
    kernels->prepare_int8 = PrepareInt8;
    kernels->prepare_bf16 = PrepareBf16;
    kernels->release = Release;
  }
};

}  // namespace fastgen::cpu
