// The two products of attention through tiles, over a class of tiles (amx_tiles.h).
//
// A page's keys lie [head_dim / 2][block_size][2] and its values [block_size / 2][head_dim][2]
// (attention_kernel.h): both are B operands as they lie, 16 keys or 16 elements of a head wide.
// Queries and weights are rows of bf16, A operands 16 (row, head) pairs high. Up to 2 blocks of
// pairs x 2 vectors share their operands; a pair's sums are added in the order of one alone, 32 at
// a time from the first key of the tile of keys on. So a row's bits depend on nothing beside it.
// Pairs are filled up to 16 with whatever their memory holds: no row of a product sees another.
// Thread rule: configures the calling thread's tiles where its last kernel left others.
// Tested by tests/kernels/amx_attention_test.cc over emulated tiles, and by attention_test.cc and
// attention_shapes_test.cc over the CPU's where it has them.
#pragma once

#include <cstdint>

#include "kernels/cpu/avx512_bf16_path.h"
#include "kernels/cpu/gemm_amx_bf16.h"
#include "kernels/cpu/kernel_table.h"

namespace fastgen::cpu {

template <typename Tiles>
struct AmxAttention {
  static constexpr int kTilePairs = 16;  // (row, head) pairs of a tile
  static constexpr int kStep = 32;       // elements of a head, or keys, of a tile
  static constexpr int64_t kScoreBytes = kMaxTileKeys * 4;  // from pair to pair

  // Whether a head fills its tiles: beyond its end lies another's memory.
  static bool Takes(int64_t head_dim) { return head_dim % kStep == 0; }

  static void Configure() { TileUse<Tiles>::Configure(AmxBf16<Tiles>::kConfig); }

  // Rows of kBlocks blocks of pairs x kVectors vectors; tile 2 b + v = block b x vector v.
  template <int kBlocks, int kVectors>
  static void Step(const uint8_t* rows, int64_t row_bytes, const uint8_t* const (&vectors)[2],
                   int64_t vector_bytes) {
    Tiles::template Load<6>(vectors[0], vector_bytes);
    if constexpr (kVectors == 2) Tiles::template Load<7>(vectors[1], vector_bytes);
    Tiles::template Load<4>(rows, row_bytes);
    Tiles::template DotBf16<0, 4, 6>();
    if constexpr (kVectors == 2) Tiles::template DotBf16<1, 4, 7>();
    if constexpr (kBlocks == 2) {
      Tiles::template Load<5>(rows + kTilePairs * row_bytes, row_bytes);
      if constexpr (kVectors == 2) Tiles::template DotBf16<3, 5, 7>();
      Tiles::template DotBf16<2, 5, 6>();
    }
  }

  template <int kBlocks, int kVectors>
  static void StoreTiles(uint8_t* out, int64_t row_bytes) {
    Tiles::template Store<0>(out, row_bytes);
    if constexpr (kVectors == 2) Tiles::template Store<1>(out + 64, row_bytes);
    if constexpr (kBlocks == 2) Tiles::template Store<2>(out + kTilePairs * row_bytes, row_bytes);
    if constexpr (kBlocks == 2 && kVectors == 2) {
      Tiles::template Store<3>(out + kTilePairs * row_bytes + 64, row_bytes);
    }
  }

  // ---- scores ----

  template <int kBlocks, int kVectors>
  static void ScoreTiles(const AttentionTile& tile, const uint8_t* queries, const uint8_t* keys,
                         uint8_t* scores) {
    const int64_t key_bytes = tile.block_size * 4;
    Tiles::template Zero<0>();
    if constexpr (kVectors == 2) Tiles::template Zero<1>();
    if constexpr (kBlocks == 2) Tiles::template Zero<2>();
    if constexpr (kBlocks == 2 && kVectors == 2) Tiles::template Zero<3>();
    for (int64_t d = 0; d < tile.head_dim; d += kStep) {
      Step<kBlocks, kVectors>(queries + 2 * d, tile.padded_dim * 4, {keys, keys + 64}, key_bytes);
      keys += kStep / 2 * key_bytes;
    }
    StoreTiles<kBlocks, kVectors>(scores, kScoreBytes);
  }

  template <int kBlocks>
  static void ScoreBlocks(const AttentionTile& tile, const uint8_t* queries, const uint8_t* keys,
                          int num_vectors, uint8_t* scores) {
    int v = 0;
    for (; v + 2 <= num_vectors; v += 2) {
      ScoreTiles<kBlocks, 2>(tile, queries, keys + 64 * v, scores + 64 * v);
    }
    if (v < num_vectors) {
      ScoreTiles<kBlocks, 1>(tile, queries, keys + 64 * v, scores + 64 * v);
    }
  }

  // scores[p, k] = queries[p] . keys[k] for `num_vectors` vectors of 16 keys. Queries are bf16,
  // each in the front half of padded_dim floats.
  static void Score(const AttentionTile& tile, const float* queries, const uint16_t* keys,
                    int num_vectors, float* scores) {
    Configure();
    const auto* from = reinterpret_cast<const uint8_t*>(queries);
    const auto* page = reinterpret_cast<const uint8_t*>(keys);
    auto* to = reinterpret_cast<uint8_t*>(scores);
    if (tile.num_rows * tile.num_heads > kTilePairs) {
      ScoreBlocks<2>(tile, from, page, num_vectors, to);
    } else {
      ScoreBlocks<1>(tile, from, page, num_vectors, to);
    }
  }

  // ---- values ----

  // The last keys of a context as a tile: what lies beyond them was never written.
  static void CopyRest(const uint8_t* values, int64_t row_bytes, int64_t num_keys, uint8_t* out) {
    const __m512i zero = _mm512_setzero_si512();
    for (int64_t pair = 0; pair < kStep / 2; ++pair, values += row_bytes, out += 64) {
      __m512i row = zero;
      if (2 * pair < num_keys) row = _mm512_loadu_si512(values);
      if (2 * pair + 1 >= num_keys) row = _mm512_and_si512(row, _mm512_set1_epi32(0xffff));
      _mm512_store_si512(out, row);
    }
  }

  template <int kBlocks, int kVectors>
  static void ValueTiles(const AttentionTile& tile, const uint8_t* weights, const uint8_t* values,
                         int64_t num_keys, uint8_t* out) {
    const int64_t out_bytes = tile.padded_dim * 4, value_bytes = tile.head_dim * 4;
    Tiles::template Load<0>(out, out_bytes);
    if constexpr (kVectors == 2) Tiles::template Load<1>(out + 64, out_bytes);
    if constexpr (kBlocks == 2) Tiles::template Load<2>(out + kTilePairs * out_bytes, out_bytes);
    if constexpr (kBlocks == 2 && kVectors == 2) {
      Tiles::template Load<3>(out + kTilePairs * out_bytes + 64, out_bytes);
    }
    int64_t k = 0;
    for (; k + kStep <= num_keys; k += kStep, values += kStep / 2 * value_bytes) {
      Step<kBlocks, kVectors>(weights + 2 * k, kScoreBytes, {values, values + 64}, value_bytes);
    }
    if (k < num_keys) {
      alignas(64) uint8_t rest[2][1024];
      for (int v = 0; v < kVectors; ++v) {
        CopyRest(values + 64 * v, value_bytes, num_keys - k, rest[v]);
      }
      Step<kBlocks, kVectors>(weights + 2 * k, kScoreBytes, {rest[0], rest[1]}, 64);
    }
    StoreTiles<kBlocks, kVectors>(out, out_bytes);
  }

  template <int kBlocks>
  static void ValueBlocks(const AttentionTile& tile, const uint8_t* weights, const uint8_t* values,
                          int64_t num_keys, uint8_t* out) {
    for (int64_t d = 0; d < tile.head_dim; d += kStep) {
      ValueTiles<kBlocks, 2>(tile, weights, values + 4 * d, num_keys, out + 4 * d);
    }
  }

  // out[p] += weights[p] V. Weights are bf16 in the front half of each row of scores, `num_vectors`
  // vectors of 16 of them.
  static void AddValues(const AttentionTile& tile, float* scores, int num_vectors,
                        const uint16_t* values, int64_t num_keys, float* out) {
    Configure();
    const int64_t pairs = tile.num_rows * tile.num_heads;
    auto* weights = reinterpret_cast<uint8_t*>(scores);
    if (num_vectors % 2 != 0) {
      // What is left of the last step: scores once, and any bits may be a NaN.
      for (int64_t p = 0; p < pairs; ++p) {
        _mm256_storeu_si256(
            reinterpret_cast<__m256i*>(weights + p * kScoreBytes + 32 * num_vectors),
            _mm256_setzero_si256());
      }
    }
    const auto* page = reinterpret_cast<const uint8_t*>(values);
    auto* to = reinterpret_cast<uint8_t*>(out);
    if (pairs > kTilePairs) {
      ValueBlocks<2>(tile, weights, page, num_keys, to);
    } else {
      ValueBlocks<1>(tile, weights, page, num_keys, to);
    }
  }
};

// Sixteen lanes with bf16 pairs, and tiles for the products of attention.
template <typename Tiles>
struct AmxPath : Avx512Bf16Path {
  using TileProducts = AmxAttention<Tiles>;
};

}  // namespace fastgen::cpu
