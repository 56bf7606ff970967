// Bf16 products through tiles, over a class of tiles (amx_tiles.h).
//
// 32 k of a panel are a tile, 32 k of a block of 16 rows another, and the sums of all k stay in
// tiles. Up to 2 row blocks x 2 panels share their operands; each product adds its k in the order
// of one alone, so a row's bits do not depend on what is beside it.
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
struct AmxBf16 {
  static constexpr int kTileBytes = 1024;
  static constexpr int kStep = 32;  // k values of one tile
  static constexpr TileConfig kConfig = TileUse<Tiles>::Config(2 * kStep, kStep / 2);

  // 32 k of a row, zeros beyond its end.
  static void Prepare(const float* x, int64_t stride, int rows, int64_t cols, void* block) {
    uint8_t* tile = static_cast<uint8_t*>(block);
    for (int64_t k = 0; k < cols; k += kStep, tile += kTileBytes) {
      const int64_t left = cols - k;
      const uint32_t mask = left >= kStep ? ~uint32_t{0} : (uint32_t{1} << left) - 1;
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
  static void StepOf(const uint8_t* const (&w)[2], const uint8_t* const (&x)[2]) {
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
  static void Product(const uint8_t* panels, int64_t panel_bytes, const uint8_t* blocks,
                      int64_t block_bytes, int64_t cols, float* sums, int64_t panel_sums) {
    const uint8_t* w[2] = {panels, panels + (kPanels - 1) * panel_bytes};
    const uint8_t* x[2] = {blocks, blocks + (kBlocks - 1) * block_bytes};
    Tiles::template Zero<0>();
    if constexpr (kPanels == 2) Tiles::template Zero<1>();
    if constexpr (kBlocks == 2) Tiles::template Zero<2>();
    if constexpr (kBlocks == 2 && kPanels == 2) Tiles::template Zero<3>();
    int64_t left = cols;
    for (; left >= kStep; left -= kStep) {
      for (int p = 0; p < kPanels; ++p) PrefetchTile(w[p] + 2 * kTileBytes);
      StepOf<kBlocks, kPanels>(w, x);
      for (int p = 0; p < 2; ++p) w[p] += kTileBytes;
      for (int b = 0; b < 2; ++b) x[b] += kTileBytes;
    }
    if (left > 0) {
      // The panel ends before its last tile does.
      alignas(64) uint8_t rest[2][kTileBytes] = {};
      for (int p = 0; p < kPanels; ++p) __builtin_memcpy(rest[p], w[p], (left + 1) / 2 * 64);
      StepOf<kBlocks, kPanels>({rest[0], rest[1]}, x);
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
  static void Panels(const uint8_t* panels, int64_t panel_bytes, const uint8_t* x, int num_blocks,
                     int64_t cols, float* sums) {
    constexpr int kBlockSums = kBlockRows * kPanelOutputs;
    const int64_t block_bytes = kBlockRows * ActivationRowBytes(ActivationKind::kBf16Blocks, cols);
    const int64_t panel_sums = int64_t{num_blocks} * kBlockSums;
    int block = 0;
    for (; block + 2 <= num_blocks; block += 2) {
      Product<2, kPanels>(panels, panel_bytes, x + block * block_bytes, block_bytes, cols,
                          sums + block * kBlockSums, panel_sums);
    }
    if (block < num_blocks) {
      Product<1, kPanels>(panels, panel_bytes, x + block * block_bytes, block_bytes, cols,
                          sums + block * kBlockSums, panel_sums);
    }
  }

  static void Blocks(const uint8_t* panels, int64_t panel_bytes, int num_panels, const void* x,
                     int num_blocks, int64_t cols, float* sums) {
    TileUse<Tiles>::Configure(kConfig);
    const uint8_t* blocks = static_cast<const uint8_t*>(x);
    // One row block gains nothing from a second stream of weights.
    const int step = num_blocks > 1 ? 2 : 1;
    for (int panel = 0; panel < num_panels; panel += step) {
      if (step == 2 && panel + 2 <= num_panels) {
        Panels<2>(panels, panel_bytes, blocks, num_blocks, cols, sums);
      } else {
        Panels<1>(panels, panel_bytes, blocks, num_blocks, cols, sums);
      }
      panels += step * panel_bytes;
      sums += int64_t{step} * num_blocks * kBlockRows * kPanelOutputs;
    }
  }
};

}  // namespace fastgen::cpu
