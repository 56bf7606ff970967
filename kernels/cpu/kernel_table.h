// The tables through which the backend calls one path's kernels (cpu_features.h).
//
// A kernel here handles one piece that fits one thread: a panel of 16 outputs x a tile of rows, one
// row, one tile of queries. Shapes were checked and work was cut up by the callers (matmul.cc,
// attention.cc, cpu_backend.cc, sampling.cc). Layouts of panels and activation tiles: panel.h.
// Thread rule: constants; kernels touch only what they are handed.
// Tested by tests/kernels/*_test.cc.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/panel.h"

namespace fastgen::cpu {

// y[r * 16 + n] = sum over k of w[n, k] * x[r, k]. The order of the sum over k is the same for
// every R.
using TileKernel = void (*)(const uint8_t* panel,  // one panel
                            int64_t ahead,         // of its reads to prefetch, in bytes; 0: not
                            const void* x,         // one activation tile of R rows
                            int64_t cols,
                            float* y);  // [R][16], aligned to 64

// Converts rows [R, cols] f32, `stride` elements apart, to an activation tile.
using PrepareKernel = void (*)(const float* x, int64_t stride, int rows, int64_t cols, void* tile);

// out[r, n] = sums[r * 16 + n] (+ bias[n]) (+ residual[r, n]) for n < num_outputs.
using StoreKernel = void (*)(const float* sums, int rows, int num_outputs, const float* bias,
                             const float* residual, int64_t residual_stride, float* out,
                             int64_t out_stride);

// sums[p][r * 16 + n] = sum over k of w[p][n, k] * x[r, k] for panels p and blocks of 16 rows r.
// The bits of a sum depend neither on the number of panels nor on that of blocks.
using BlockKernel = void (*)(const uint8_t* panels,  // of panel_bytes each
                             int64_t panel_bytes, int num_panels,
                             const void* x,  // activation blocks, one behind another
                             int num_blocks, int64_t cols,
                             float* sums);  // [num_panels][num_blocks * 16][16], aligned to 64

// Of a path that has tile instructions; else all null.
struct BlockKernels {
  // Int8 kernels give the bits of the path's int8_tile. Null for formats with two scales a group.
  BlockKernel int8[kNumPanelFormats] = {};
  BlockKernel bf16 = nullptr;
  // Rows beyond `rows` <= 16 become zeros.
  PrepareKernel prepare_int8 = nullptr;
  PrepareKernel prepare_bf16 = nullptr;
  // Gives up the calling thread's tile registers until its next kernel.
  void (*release)() = nullptr;
};

struct MatMulKernels {
  // Null where the path has no such combination: int8 for float weights, bf16 where there is no
  // instruction for it.
  TileKernel float_tile[kNumPanelFormats][kTileRows] = {};
  TileKernel int8_tile[kNumPanelFormats][kTileRows] = {};
  TileKernel bf16_tile[kTileRows] = {};
  PrepareKernel prepare_float = nullptr;
  PrepareKernel prepare_int8 = nullptr;
  PrepareKernel prepare_bf16 = nullptr;
  // out[0, cols) = x rounded to e4m3 values; returns the scale that multiplies them.
  float (*quantize_fp8)(const float* x, int64_t cols, float* out) = nullptr;
  StoreKernel store = nullptr;
  BlockKernels blocks;
};

// Running softmax of a tile's (row, head) pairs over the keys seen so far.
struct SoftmaxState {
  float* max;  // [pairs]
  float* sum;  // [pairs]
  float* out;  // [pairs, padded_dim] not yet divided by sum
};

// A tile of queries that share a sequence and a kv head. Pair p is row p / num_heads, head p %
// num_heads.
struct AttentionTile {
  const float* q = nullptr;  // row 0, first head of the tile
  int64_t q_stride = 0;      // elements from row to row
  float* out = nullptr;
  int64_t out_stride = 0;
  int64_t num_rows = 0;
  int64_t num_heads = 0;
  int64_t first_position = 0;  // of row 0
  int64_t head_dim = 0;
  int64_t padded_dim = 0;  // head_dim rounded up to 16
  float scale = 0;
  int64_t window = 0;
  const void* k_cache = nullptr;  // block 0 of this kv head
  const void* v_cache = nullptr;
  int64_t block_stride = 0;  // elements from block to block
  int64_t block_size = 0;
  const int32_t* block_table = nullptr;
  float* queries = nullptr;  // [kMaxTilePairs, padded_dim] scratch of this tile
  float* scratch = nullptr;  // [kAttentionScratchFloats], shared by the tiles of a call
};

struct AttentionKernels {
  // Write one key or value [head_dim] to slot `slot` of a page (attention_kernel.h); calls for
  // different slots may run side by side.
  void (*store_key)(const float* key, int64_t head_dim, int64_t block_size, int64_t slot,
                    void* page);
  void (*store_value)(const float* value, int64_t head_dim, int64_t slot, void* page);
  // Keys [begin, end) of a sequence into states[i] of tiles[i], starting afresh. `begin` is a block
  // border. The tiles differ in their kv head only: block by block, head by head, pages are read in
  // the order in which they lie in memory.
  void (*attend)(const AttentionTile* tiles, const SoftmaxState* states, int num_tiles,
                 int64_t begin, int64_t end);
  // Adds `part` to `total`.
  void (*merge)(int64_t pairs, int64_t padded_dim, const SoftmaxState& part,
                const SoftmaxState& total);
  // Writes a tile's rows once all keys are in `state`.
  void (*finish)(const AttentionTile& tile, const SoftmaxState& state);
};

struct RowKernels {
  // 1 / sqrt(mean(x^2) + eps)
  float (*inverse_rms)(const float* x, int64_t count, float eps);
  // out = x * factor * weight, and out = silu(gate) * up. A value's bits do not depend on where its
  // run begins or ends. `out` may be x.
  void (*scale)(const float* x, float factor, const float* weight, int64_t count, float* out);
  void (*silu_mul)(const float* gate, const float* up, int64_t count, float* out);
  // Rotates `num_heads` heads in place; cos_sin: head_dim / 2 cosines, then as many sines.
  void (*rope)(float* x, const float* cos_sin, int64_t num_heads, int64_t head_dim);

  // Sampling. maxima[c] = max of chunk c of 64 logits (the last may be shorter); returns true if
  // there is a NaN.
  bool (*chunk_maxima)(const float* logits, int64_t count, float* maxima);
  // out[i] = logits[i] where bit i % 32 of mask[i / 32] is set, else -infinity; maxima of out.
  void (*mask)(const float* logits, const uint32_t* mask, int64_t count, float* out, float* maxima);
  // sum of exp(x - max)
  double (*sum_exp)(const float* logits, int64_t count, float max);
  // weights[i] = exp((x[i] - max) / temperature); sums[c] = sum of chunk c of 64; returns the sum
  // of all.
  double (*weigh)(const float* logits, int64_t count, float max, float temperature, float* weights,
                  float* sums);
  // Number of x[i] > threshold.
  int64_t (*count_above)(const float* logits, int64_t count, float threshold);
};

inline constexpr int kSampleChunk = 64;
inline constexpr int kMaxTileKeys = 64;    // keys scored at once
inline constexpr int kMaxTilePairs = 32;   // (row, head) pairs in a query tile
inline constexpr float kNoScore = -1e30f;  // running maximum of a tile that has seen no key

struct KernelTable {
  MatMulKernels matmul;
  AttentionKernels attention_f32;   // f32 KV
  AttentionKernels attention_bf16;  // bf16 KV
  RowKernels rows;
};

// Floats that AttentionTile::scratch needs: the scores of a tile of keys.
inline constexpr int64_t kAttentionScratchFloats = kMaxTilePairs * kMaxTileKeys;

// Defined in gemm_<path>.cc and row_ops_<path>.cc. They only assign pointers: callable on any CPU.
void FillMatMulGeneric(MatMulKernels* kernels);
void FillMatMulAvx2(MatMulKernels* kernels);
void FillMatMulAvx2Vnni(MatMulKernels* kernels);
void FillMatMulAvx512(MatMulKernels* kernels);
void FillMatMulAvx512Bf16(MatMulKernels* kernels);
void FillMatMulAmx(MatMulKernels* kernels);  // the block kernels only
void FillRowsGeneric(KernelTable* table);
void FillRowsAvx2(KernelTable* table);
void FillRowsAvx512(KernelTable* table);
void FillRowsAvx512Bf16(KernelTable* table);
void FillRowsAmx(KernelTable* table);

KernelTable MakeKernelTable(Isa isa);

}  // namespace fastgen::cpu
