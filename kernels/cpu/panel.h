// Panels: how weights and activations lie in memory for the matrix kernels.
//
// A weight matrix is cut into panels of 16 outputs. A panel is one linear stream, k ascending, read
// once by a kernel that keeps the sums of 16 outputs x up to 8 rows in registers. Nothing is
// rounded: integers and scales are the file's. Float formats:
//   kF32 [k][16] f32    kF16 [k][16] f16    kBF16 [k/2][16][2] bf16 (k padded to even with zeros)
//   kFp8 as kBF16, holding e4m3 values, then one f32 scale per output
// Integer formats: blocks of a header, d f16[16] (and m f16[16]), and of groups of 32 k:
//   planes | scale i8[halves][16] | minimum u8[halves][16]
// PanelTraits says which of them a format has and what a value is. An integer's bits lie in up to
// two planes of 64-byte vectors; byte 4 n + b of a vector belongs to output n and, for step
// s = 4 h + j < 8, to k = 4 s + b:
//   4 vectors of nibbles: the low (h = 0) or high (h = 1) nibble of vector j, as GGUF splits it
//   2 vectors of pairs:   bits 2 j of vector h
//   1 vector of bits:     bit s
//   8 vectors of bytes:   vector s (kQ8 formats; int8 + 128)
// so that 2, 3, 4, 5, 6 and 8 bits take 2 to 8 vectors. The last block of a row may
// have fewer groups.
//
// Activations are cut into tiles of 8 rows (the last tile has rows mod 8), R rows interleaved so
// that a kernel walks one pointer: float tile [k][R] f32; bf16 tile [k/2][R][2] bf16; int8 tile:
// per group of 32 k the record of Int8Group<R>. For tile instructions they are cut into blocks of 16
// rows instead, the last one filled up with zeros, a row's k side by side: int8, per group of 32 k
// an Int8Block; bf16 [k/32][16][32] bf16, k padded with zeros. Thread rule: constants and pure functions.
// Tested by tests/kernels/matmul_test.cc, tests/kernels/dequantize_test.cc.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace fastgen::cpu {

inline constexpr int kPanelOutputs = 16;
inline constexpr int kTileRows = 8;
inline constexpr int kBlockRows = 16;
inline constexpr int kGroup = 32;      // k values of one group
inline constexpr int kHalfGroup = 16;  // k values that share a scale where a group has two

enum class PanelFormat : uint8_t {
  kF32,
  kF16,
  kBF16,
  kFp8,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kQ8_G128,  // kQ8_0 with one d for 128 k
  kQ4_G128,  // kQ4_1 with one d and m for 128 k
};
inline constexpr int kNumPanelFormats = 18;
inline constexpr int kFirstIntegerFormat = static_cast<int>(PanelFormat::kQ4_0);
inline constexpr int kNumIntegerFormats = kNumPanelFormats - kFirstIntegerFormat;

// The largest magnitude of a row of activations is held to this range before its fp8 scale, a
// 448th of it, is formed; larger values saturate.
inline constexpr float kMinFp8RowMax = 1e-12f;
inline constexpr float kMaxFp8RowMax = 1200;

// The form that activations take for a kernel. kInt8Blocks: the first rows in blocks of 16, those
// that fill no block as kInt8.
enum class ActivationKind : uint8_t { kFloat, kBf16, kInt8, kFp8, kBf16Blocks, kInt8Blocks };

// What an integer format stores and means. With S = d, or d * scale where there are scales:
//   value = S * (q - zero_point)              no minimum
//   value = S * q + m                         minimum, no scales
//   value = S * q - m * minimum               minimum and scales
// and kCodebook[q] in place of q - zero_point where is_table.
struct PanelTraits {
  int bits = 0;  // of q: 2, 3, 4, 5, 6 or 8; 0: a float format
  int groups_per_block = 1;
  int halves = 0;  // scales of a group: 0, 1 or 2
  bool has_minimum = false;
  int zero_point = 0;
  bool is_table = false;

  constexpr bool has_nibbles() const { return bits >= 4 && bits <= 6; }
  constexpr bool has_pairs() const { return bits == 2 || bits == 3 || bits == 6; }
  constexpr bool has_bits() const { return bits == 3 || bits == 5; }
  // Offsets inside a group, and where a plane's bits go in q.
  constexpr int pairs_offset() const { return has_nibbles() ? 256 : 0; }
  constexpr int pairs_shift() const { return has_nibbles() ? 4 : 0; }
  constexpr int bits_offset() const { return 64 * (bits - 1); }
  constexpr int bits_shift() const { return bits - 1; }
  constexpr int scales_offset() const { return 64 * bits; }
  constexpr int minimums_offset() const { return 64 * bits + 16 * halves; }
  constexpr int group_bytes() const { return 64 * bits + 16 * halves * (has_minimum ? 2 : 1); }
  constexpr int header_bytes() const { return has_minimum ? 64 : 32; }
  constexpr int block_bytes() const { return header_bytes() + groups_per_block * group_bytes(); }
};
inline constexpr int kMinimumOffset = 32;  // of m in a header

constexpr PanelTraits TraitsOf(PanelFormat format) {
  switch (format) {
    case PanelFormat::kQ4_0: return {4, 1, 0, false, 8, false};
    case PanelFormat::kQ4_1: return {4, 1, 0, true, 0, false};
    case PanelFormat::kQ5_0: return {5, 1, 0, false, 16, false};
    case PanelFormat::kQ5_1: return {5, 1, 0, true, 0, false};
    case PanelFormat::kQ8_0: return {8, 1, 0, false, 128, false};
    case PanelFormat::kQ2_K: return {2, 8, 2, true, 0, false};
    case PanelFormat::kQ3_K: return {3, 8, 2, false, 4, false};
    case PanelFormat::kQ4_K: return {4, 8, 1, true, 0, false};
    case PanelFormat::kQ5_K: return {5, 8, 1, true, 0, false};
    case PanelFormat::kQ6_K: return {6, 8, 2, false, 32, false};
    case PanelFormat::kIQ4_NL: return {4, 1, 0, false, 0, true};
    case PanelFormat::kIQ4_XS: return {4, 8, 1, false, 0, true};
    case PanelFormat::kQ8_G128: return {8, 4, 0, false, 128, false};
    case PanelFormat::kQ4_G128: return {4, 4, 0, true, 0, false};
    default: return {};
  }
}

constexpr bool IsIntegerFormat(PanelFormat format) { return TraitsOf(format).bits > 0; }

// The values of a 4-bit index of IQ4_NL and IQ4_XS.
inline constexpr int8_t kCodebook[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

// One group of an int8 activation tile: x[k] ~ scale * q[k], scale = max|x| / 127.
// The last four give the exact corrections for weights that are stored with an offset: -offset *
// sum(q). Other offsets are a power of two of these.
template <int R>
struct Int8Group {
  int8_t q[kGroup / 4][R][4];
  float scale[R];
  float scaled_sum[R];  // scale * sum(q), multiplies a minimum
  int32_t minus_8_sum[R];
  int32_t minus_128_sum[R];
  int32_t minus_32_sum[2][R];  // over the first and the second 16 k
};
inline constexpr int64_t kInt8GroupBytes = 56;  // per row
static_assert(sizeof(Int8Group<1>) == kInt8GroupBytes);
static_assert(sizeof(Int8Group<8>) == 8 * kInt8GroupBytes);

// One group of an int8 activation block: x[r][k] ~ scale[r] * q[r][k], as in Int8Group.
struct Int8Block {
  int8_t q[kBlockRows][kGroup];
  float scale[kBlockRows];
  float scaled_sum[kBlockRows];
};
inline constexpr int64_t kInt8BlockRowBytes = 40;  // of a group
static_assert(sizeof(Int8Block) == kBlockRows * kInt8BlockRowBytes);

// Formats whose groups have one scale: a group's integers are one product of tiles.
constexpr bool HasInt8Blocks(PanelFormat format) {
  return IsIntegerFormat(format) && TraitsOf(format).halves < 2;
}

// Bytes of a panel of `cols` k. REQUIRES: a multiple of 32 for integer formats.
constexpr int64_t PanelBytes(PanelFormat format, int64_t cols) {
  const int64_t pair_bytes = (cols + 1) / 2 * 64;
  switch (format) {
    case PanelFormat::kF32: return cols * 64;
    case PanelFormat::kF16: return cols * 32;
    case PanelFormat::kBF16: return pair_bytes;
    case PanelFormat::kFp8: return pair_bytes + 64;
    default: break;
  }
  const PanelTraits traits = TraitsOf(format);
  const int64_t num_groups = cols / kGroup;
  const int64_t num_blocks = (num_groups + traits.groups_per_block - 1) / traits.groups_per_block;
  return num_groups * traits.group_bytes() + num_blocks * traits.header_bytes();
}

// Bytes that one row takes in an activation tile or block.
constexpr int64_t ActivationRowBytes(ActivationKind kind, int64_t cols) {
  switch (kind) {
    case ActivationKind::kFloat:
    case ActivationKind::kFp8: return cols * 4;
    case ActivationKind::kBf16: return (cols + 1) / 2 * 4;
    case ActivationKind::kInt8: return cols / kGroup * kInt8GroupBytes;
    case ActivationKind::kBf16Blocks: return (cols + 31) / 32 * 64;
    case ActivationKind::kInt8Blocks: return cols / kGroup * kInt8BlockRowBytes;
  }
  return 0;
}

// Has the `kBytes` bytes that lie `ahead` of `p` brought into L2, unless that is 0; they may be
// nobody's. Hides the memory's latency where a kernel works longer on a line than the CPU's own
// prefetcher looks ahead.
template <int kBytes>
inline void PrefetchAhead(const uint8_t* p, int64_t ahead) {
  if (ahead == 0) return;
#pragma GCC unroll 16
  for (int i = 0; i < kBytes; i += 64) __builtin_prefetch(p + ahead + i, 0, 2);
}

}  // namespace fastgen::cpu
