// Attention over one tile of queries, as a template over a path (simd.h) and the type of the KV
// pages; and how keys and values lie in a page.
//
// A page is one kv head's part of a block. Keys lie across it, so that a vector holds the same
// depth of neighbouring keys and no step has to transpose them:
//   keys   [head_dim][block_size], or [head_dim / 2][block_size][2] where kPairs
//   values [block_size][head_dim], or [block_size / 2][head_dim][2] where kPairs
// kPairs: the path multiplies pairs of bf16 (and AMX tiles, whose B operand has this very form).
// For each tile of up to 64 keys (tiles start at block borders):
//   s = scale * q K^T, masked to -infinity outside each row's causal range and window
//   m' = max(m, max s); p = exp(s - m'); sum = sum * exp(m - m') + sum p; out = out * exp(m - m') +
//   p V
// A pair's numbers do not depend on its neighbours in the tile, nor on keys that it does not see:
// their p is exactly 0 and adding 0 changes nothing. So a row's result is the same however its
// sequence was cut into chunks. Sums are fp32. q and p are rounded to bf16 for the two products
// where kPairs says so, else they stay fp32. Slots that were never written may hold anything: their
// scores are masked, and no value of theirs is read. Thread rule: pure functions over the tile's
// own scratch. Tested by tests/kernels/attention_test.cc.
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"

namespace fastgen::cpu {

template <typename V, typename Kv>
struct AttentionTemplates {
  using F = typename V::F;
  static constexpr int kLanes = V::kLanes;
  // Queries and keys multiply as pairs of bf16 where the path has the instruction and the pages
  // hold bf16.
  static constexpr bool kPairs = V::kHasDotBf16 && sizeof(Kv) == 2;

  // Both products go through tiles where the path has them and a head fills them (attention_amx.h).
  static constexpr bool kTiles = kPairs && requires { typename V::TileProducts; };

  static F LoadKv(const float* p) { return V::Load(p); }
  static F LoadKv(const uint16_t* p) { return V::LoadBf16(p); }

  static float ScalarExp(float x) { return V::Exp(V::Set1(x))[0]; }

  struct Scratch {
    float* queries;  // [pairs, padded_dim]
    float* scores;   // [pairs, kMaxTileKeys]; once softened, the weights: floats, or bf16 in the
                     // front half
  };

  // Queries times scale, as the products want them: floats, or pairs of bf16.
  static void GatherQueries(const AttentionTile& tile, float* queries) {
    for (int64_t row = 0; row < tile.num_rows; ++row) {
      for (int64_t head = 0; head < tile.num_heads; ++head) {
        const float* from = tile.q + row * tile.q_stride + head * tile.head_dim;
        float* to = queries + (row * tile.num_heads + head) * tile.padded_dim;
        for (int64_t d = 0; d < tile.head_dim; ++d) to[d] = from[d] * tile.scale;
        for (int64_t d = tile.head_dim; d < tile.padded_dim; ++d) to[d] = 0;
        if constexpr (kPairs) {
          for (int64_t d = 0; d < tile.padded_dim; d += kLanes) {
            V::StoreBf16(reinterpret_cast<uint16_t*>(to) + d, V::Load(to + d));
          }
        }
      }
    }
  }

  // ---- pages ----

  // Calls body(first, count) for the vectors of [0, head_dim); the last may be shorter.
  template <typename Body>
  static void ForVectors(int64_t head_dim, const Body& body) {
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      body(d, head_dim - d < kLanes ? head_dim - d : static_cast<int64_t>(kLanes));
    }
  }

  // x[0, count) as the pages hold it.
  static void Round(const float* x, int64_t count, Kv (&out)[kLanes]) {
    float lanes[kLanes] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i] = x[i];
    if constexpr (sizeof(Kv) == 4) {
      __builtin_memcpy(out, lanes, sizeof(lanes));
    } else {
      V::StoreBf16(out, V::Load(lanes));
    }
  }

  static void StoreKey(const float* key, int64_t head_dim, int64_t block_size, int64_t slot,
                       void* page) {
    constexpr int kUnit = kPairs ? 2 : 1;  // elements that stay neighbours
    Kv* const to = static_cast<Kv*>(page) + slot * kUnit;
    ForVectors(head_dim, [&](int64_t first, int64_t count) {
      Kv rounded[kLanes];
      Round(key + first, count, rounded);
      for (int64_t i = 0; i < count; i += kUnit) {
        __builtin_memcpy(to + (first + i) * block_size, rounded + i, kUnit * sizeof(Kv));
      }
    });
  }

  // Other threads may write the neighbour of a pair meanwhile.
  static void StoreValue(const float* value, int64_t head_dim, int64_t slot, void* page) {
    Kv* const to = static_cast<Kv*>(page) + (kPairs ? slot / 2 * 2 : slot) * head_dim;
    ForVectors(head_dim, [&](int64_t first, int64_t count) {
      Kv rounded[kLanes];
      Round(value + first, count, rounded);
      if constexpr (kPairs) {
        V::StoreHalves(rounded, count, static_cast<int>(slot % 2), to + 2 * first);
      } else {
        __builtin_memcpy(to + first, rounded, static_cast<size_t>(count) * sizeof(Kv));
      }
    });
  }

  // ---- products ----

  // A vector of keys at some depth: floats, or pairs of bf16.
  static F LoadKeys(const Kv* keys) {
    if constexpr (kPairs) return (F)V::LoadInt(keys);
    return LoadKv(keys);
  }

  // Scores of B pairs against C vectors of keys. `row` is the elements from one depth to the next.
  template <int B, int C>
  static void ScoreBlock(const float* queries, int64_t query_stride, const Kv* keys, int64_t row,
                         int64_t head_dim, float* scores) {
    constexpr int kUnit = kPairs ? 2 : 1;
    F acc[B][C] = {};
    for (int64_t d = 0; d < head_dim / kUnit; ++d, keys += row) {
      for (int c = 0; c < C; ++c) {
        const F key = LoadKeys(keys + c * kLanes * kUnit);
        for (int b = 0; b < B; ++b) {
          const F query = V::Set1(queries[b * query_stride + d]);
          if constexpr (kPairs) {
            acc[b][c] = V::DotBf16(key, query, acc[b][c]);
          } else {
            acc[b][c] = V::MulAdd(key, query, acc[b][c]);
          }
        }
      }
    }
    for (int b = 0; b < B; ++b) {
      for (int c = 0; c < C; ++c) V::Store(scores + b * kMaxTileKeys + c * kLanes, acc[b][c]);
    }
  }

  template <int B>
  static void ScorePairs(const float* queries, int64_t query_stride, const Kv* keys, int64_t row,
                         int num_vectors, int64_t head_dim, float* scores) {
    constexpr int kWide = V::kScoreVectors;
    constexpr int kVector = kLanes * (kPairs ? 2 : 1);
    int c = 0;
    for (; c + kWide <= num_vectors; c += kWide) {
      ScoreBlock<B, kWide>(queries, query_stride, keys + c * kVector, row, head_dim,
                           scores + c * kLanes);
    }
    for (; c < num_vectors; ++c) {
      ScoreBlock<B, 1>(queries, query_stride, keys + c * kVector, row, head_dim,
                       scores + c * kLanes);
    }
  }

  // Calls body.template operator()<B>(first) for blocks of pairs that cover [0, pairs): kScoreRows
  // at a time, the rest in one block, so that a tile of few pairs still reads its keys and values
  // once.
  template <int B, typename Body>
  static void ForRest(int64_t first, int64_t rest, const Body& body) {
    if (rest == B) {
      body.template operator()<B>(first);
    } else if constexpr (B > 1) {
      ForRest<B - 1>(first, rest, body);
    }
  }
  template <typename Body>
  static void ForPairs(int64_t pairs, const Body& body) {
    constexpr int kRows = V::kScoreRows;
    int64_t p = 0;
    for (; p + kRows <= pairs; p += kRows) body.template operator()<kRows>(p);
    if constexpr (kRows > 1) ForRest<kRows - 1>(p, pairs - p, body);
  }

  static void Score(const AttentionTile& tile, const Kv* keys, int num_vectors,
                    const Scratch& scratch) {
    if constexpr (kTiles) {
      if (V::TileProducts::Takes(tile.head_dim)) {
        V::TileProducts::Score(tile, scratch.queries, keys, num_vectors, scratch.scores);
        return;
      }
    }
    const int64_t row = tile.block_size * (kPairs ? 2 : 1);
    ForPairs(tile.num_rows * tile.num_heads, [&]<int B>(int64_t p) {
      ScorePairs<B>(scratch.queries + p * tile.padded_dim, tile.padded_dim, keys, row, num_vectors,
                    tile.head_dim, scratch.scores + p * kMaxTileKeys);
    });
  }

  // Masks a pair's scores to keys [low, high) of the tile, turns them into weights and updates its
  // running softmax.
  static void Soften(float* scores, int num_vectors, int64_t low, int64_t high, int64_t padded_dim,
                     int64_t pair, const SoftmaxState& state) {
    const float lowest = -__builtin_inff();
    for (int64_t k = 0; k < low; ++k) scores[k] = lowest;
    for (int64_t k = high; k < num_vectors * kLanes; ++k) scores[k] = lowest;
    F best = V::Load(scores);
    for (int c = 1; c < num_vectors; ++c) best = V::Max(best, V::Load(scores + c * kLanes));
    const float tile_max = V::ReduceMax(best);
    const float old_max = state.max[pair];
    const float max = tile_max > old_max ? tile_max : old_max;
    F sum = V::Zero();
    for (int c = 0; c < num_vectors; ++c) {
      const F weight = V::Exp(V::Load(scores + c * kLanes) - max);
      if constexpr (kPairs) {
        // Half as wide, so what is overwritten has been read.
        V::StoreBf16(reinterpret_cast<uint16_t*>(scores) + c * kLanes, weight);
      } else {
        V::Store(scores + c * kLanes, weight);
      }
      sum += weight;
    }
    float kept = 1;
    if (max != old_max) {
      kept = ScalarExp(old_max - max);
      float* out = state.out + pair * padded_dim;
      for (int64_t d = 0; d < padded_dim; d += kLanes) V::Store(out + d, V::Load(out + d) * kept);
    }
    state.max[pair] = max;
    state.sum[pair] = state.sum[pair] * kept + V::ReduceAdd(sum);
  }

  // acc[b] += w[b * kMaxTileKeys] value for B pairs and one vector of head_dim.
  template <int B, int C>
  static void AddValue(F value, int c, const float* weights, F (&acc)[B][C]) {
    // Else GCC may keep the sums on the stack.
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
      const F weight = V::Set1(weights[b * kMaxTileKeys]);
      if constexpr (kPairs) {
        acc[b][c] = V::DotBf16(value, weight, acc[b][c]);
      } else {
        acc[b][c] = V::MulAdd(value, weight, acc[b][c]);
      }
    }
  }

  // out[b] += weights[b] V for B pairs and C vectors of head_dim.
  template <int B, int C>
  static void ValueBlock(const float* weights, const Kv* values, int64_t num_keys, int64_t head_dim,
                         int64_t padded_dim, float* out) {
    F acc[B][C];
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[b][c] = V::Load(out + b * padded_dim + c * kLanes);
    }
    if constexpr (kPairs) {
      int64_t k = 0;
      for (; k + 2 <= num_keys; k += 2, values += 2 * head_dim) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          AddValue<B, C>((F)V::LoadInt(values + 2 * c * kLanes), c, weights + k / 2, acc);
        }
      }
      if (k < num_keys) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          // The neighbour was never written.
          const F value = (F)(V::LoadInt(values + 2 * c * kLanes) & 0xffff);
          AddValue<B, C>(value, c, weights + k / 2, acc);
        }
      }
    } else {
      for (int64_t k = 0; k < num_keys; ++k, values += head_dim) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          AddValue<B, C>(LoadKv(values + c * kLanes), c, weights + k, acc);
        }
      }
    }
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) V::Store(out + b * padded_dim + c * kLanes, acc[b][c]);
    }
  }

  // The last vector of a row may reach past head_dim: into the next key or the allocation's slack.
  // Those lanes are padding of `out` and are never read.
  template <int B>
  static void ValuePairs(const float* weights, const Kv* values, int64_t num_keys, int64_t head_dim,
                         int64_t padded_dim, float* out) {
    constexpr int kWide = V::kScoreVectors;
    constexpr int kUnit = kPairs ? 2 : 1;
    int64_t d = 0;
    for (; d + kWide * kLanes <= padded_dim; d += kWide * kLanes) {
      ValueBlock<B, kWide>(weights, values + d * kUnit, num_keys, head_dim, padded_dim, out + d);
    }
    for (; d < head_dim; d += kLanes) {
      ValueBlock<B, 1>(weights, values + d * kUnit, num_keys, head_dim, padded_dim, out + d);
    }
  }

  static void AddValues(const AttentionTile& tile, float* scores, int num_vectors, const Kv* values,
                        int64_t num_keys, float* out) {
    if constexpr (kTiles) {
      if (V::TileProducts::Takes(tile.head_dim)) {
        V::TileProducts::AddValues(tile, scores, num_vectors, values, num_keys, out);
        return;
      }
    }
    ForPairs(tile.num_rows * tile.num_heads, [&]<int B>(int64_t p) {
      ValuePairs<B>(scores + p * kMaxTileKeys, values, num_keys, tile.head_dim, tile.padded_dim,
                    out + p * tile.padded_dim);
    });
  }

  static int64_t Clamp(int64_t x, int64_t low, int64_t high) {
    return x < low ? low : x > high ? high : x;
  }

  static void AttendTile(const AttentionTile& tile, int64_t position, int64_t num_keys,
                         const Kv* keys, const Kv* values, const Scratch& scratch,
                         const SoftmaxState& state) {
    const int64_t pairs = tile.num_rows * tile.num_heads;
    const int num_vectors = static_cast<int>((num_keys + kLanes - 1) / kLanes);
    Score(tile, keys, num_vectors, scratch);
    for (int64_t p = 0; p < pairs; ++p) {
      const int64_t row_position = tile.first_position + p / tile.num_heads;
      const int64_t first_seen = tile.window > 0 ? row_position - tile.window + 1 : 0;
      Soften(scratch.scores + p * kMaxTileKeys, num_vectors,
             Clamp(first_seen - position, 0, num_keys),
             Clamp(row_position + 1 - position, 0, num_keys), tile.padded_dim, p, state);
    }
    AddValues(tile, scratch.scores, num_vectors, values, num_keys, state.out);
  }

  static void Start(const AttentionTile& tile, const SoftmaxState& state) {
    const int64_t pairs = tile.num_rows * tile.num_heads;
    GatherQueries(tile, tile.queries);
    for (int64_t p = 0; p < pairs; ++p) {
      state.max[p] = kNoScore;
      state.sum[p] = 0;
    }
    for (int64_t i = 0; i < pairs * tile.padded_dim; ++i) state.out[i] = 0;
  }

  static void Attend(const AttentionTile* tiles, const SoftmaxState* states, int num_tiles,
                     int64_t begin, int64_t end) {
    for (int i = 0; i < num_tiles; ++i) Start(tiles[i], states[i]);
    const AttentionTile& shared = tiles[0];
    Scratch scratch;
    scratch.scores = shared.scratch;
    const int64_t first_seen = shared.window > 0 ? shared.first_position - shared.window + 1 : 0;
    for (int64_t position = begin; position < end;) {
      const int64_t offset = position % shared.block_size;
      int64_t num_keys =
          shared.block_size - offset < kMaxTileKeys ? shared.block_size - offset : kMaxTileKeys;
      if (num_keys > end - position) num_keys = end - position;
      if (position + num_keys > first_seen) {
        const int64_t block =
            shared.block_table[position / shared.block_size] * shared.block_stride;
        const int64_t keys = block + offset * (kPairs ? 2 : 1);
        const int64_t values = block + offset * shared.head_dim;
        for (int i = 0; i < num_tiles; ++i) {
          scratch.queries = tiles[i].queries;
          AttendTile(tiles[i], position, num_keys, static_cast<const Kv*>(tiles[i].k_cache) + keys,
                     static_cast<const Kv*>(tiles[i].v_cache) + values, scratch, states[i]);
        }
      }
      position += num_keys;
    }
  }

  static void Merge(int64_t pairs, int64_t padded_dim, const SoftmaxState& part,
                    const SoftmaxState& total) {
    for (int64_t p = 0; p < pairs; ++p) {
      const float max = total.max[p] > part.max[p] ? total.max[p] : part.max[p];
      const float keep = ScalarExp(total.max[p] - max);
      const float add = ScalarExp(part.max[p] - max);
      total.max[p] = max;
      total.sum[p] = total.sum[p] * keep + part.sum[p] * add;
      float* to = total.out + p * padded_dim;
      const float* from = part.out + p * padded_dim;
      for (int64_t d = 0; d < padded_dim; d += kLanes) {
        V::Store(to + d, V::MulAdd(V::Load(from + d), V::Set1(add), V::Load(to + d) * keep));
      }
    }
  }

  // Divides by the sum and writes the tile's rows.
  static void Finish(const AttentionTile& tile, const SoftmaxState& state) {
    for (int64_t p = 0; p < tile.num_rows * tile.num_heads; ++p) {
      const float inverse = 1.0f / state.sum[p];
      const float* from = state.out + p * tile.padded_dim;
      float* to =
          tile.out + p / tile.num_heads * tile.out_stride + p % tile.num_heads * tile.head_dim;
      for (int64_t d = 0; d < tile.head_dim; ++d) to[d] = from[d] * inverse;
    }
  }

  static void Fill(AttentionKernels* kernels) {
    kernels->store_key = StoreKey;
    kernels->store_value = StoreValue;
    kernels->attend = Attend;
    kernels->merge = Merge;
    kernels->finish = Finish;
  }
};

}  // namespace fastgen::cpu
