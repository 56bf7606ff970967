// Panels: how weights and activations lie in memory for the matrix kernels.
//
// A weight matrix is cut into panels of 16 outputs. A panel is one linear stream, k ascending, read
// once by a kernel that keeps the sums of 16 outputs x up to 8 rows in registers. Nothing is
// rounded: integers and scales are the file's.
//
//   kF32   [k][16] f32        kF16 [k][16] f16        kBF16 [k/2][16][2] bf16 (k padded to even
//   with zeros) integer formats: one block per group of 32 k. "Bytes" are vectors of 64 B; byte 4 n
//   + b of vector j belongs to output n. Low nibbles are k = 4 j + b, high nibbles k = 16 + 4 j +
//   b, as GGUF splits a group.
//     kQ4_0  4 vectors | d f16[16]                            288 B, value = d (q - 8)
//     kQ4_1  4 vectors | d f16[16] | m f16[16]                320 B, value = d q + m
//     kQ8_0  8 vectors, q + 128, vector j holds k = 4 j + b | d f16[16]    544 B, value = d (u -
//     128) kQ6_K  4 vectors of low nibbles | 2 vectors of high pairs | scale i8[2][16] | d f16[16]
//     448 B
//            Bits 2 j of byte 4 n + b of pair vector h are bits 4 and 5 of k = 16 h + 4 j + b;
//            scale h covers k = 16 h .. 16 h + 15; value = d scale (q - 32)
//
// Activations are cut into tiles of 8 rows (the last tile has rows mod 8), R rows interleaved so
// that a kernel walks one pointer:
//   float tile [k][R] f32;   bf16 tile [k/2][R][2] bf16;   int8 tile: per group of 32 k the record
//   of Int8Group<R>.
// Thread rule: constants and pure functions.
// Tested by tests/kernels/matmul_test.cc.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace fastgen::cpu {

inline constexpr int kPanelOutputs = 16;
inline constexpr int kTileRows = 8;
inline constexpr int kGroup = 32;  // k values that share a scale

enum class PanelFormat : uint8_t { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ8_0, kQ6_K };
inline constexpr int kNumPanelFormats = 7;

// The form that activations take for a kernel.
enum class ActivationKind : uint8_t { kFloat, kBf16, kInt8 };

// One group of an int8 activation tile: x[k] ~ scale * q[k], scale = max|x| / 127.
// The last four give the exact corrections for weights that are stored with an offset: -offset *
// sum(q).
template <int R>
struct Int8Group {
  int8_t q[kGroup / 4][R][4];
  float scale[R];
  float scaled_sum[R];  // scale * sum(q), multiplies Q4_1's minimum
  int32_t minus_8_sum[R];
  int32_t minus_128_sum[R];
  int32_t minus_32_sum[2][R];  // over the first and the second 16 k
};
inline constexpr int64_t kInt8GroupBytes = 56;  // per row
static_assert(sizeof(Int8Group<1>) == kInt8GroupBytes);
static_assert(sizeof(Int8Group<8>) == 8 * kInt8GroupBytes);

// Offsets inside a block of an integer panel.
inline constexpr int kNibbleBytes = 256;
inline constexpr int kQ8Bytes = 512;
inline constexpr int kQ6HighOffset = 256;
inline constexpr int kQ6ScaleOffset = 384;
inline constexpr int kQ6DeltaOffset = 416;

constexpr bool IsIntegerFormat(PanelFormat format) { return format >= PanelFormat::kQ4_0; }

// Bytes of a panel for 32 k.
constexpr int64_t GroupBytes(PanelFormat format) {
  switch (format) {
    case PanelFormat::kF32:
      return 2048;
    case PanelFormat::kF16:
      return 1024;
    case PanelFormat::kBF16:
      return 1024;
    case PanelFormat::kQ4_0:
      return 288;
    case PanelFormat::kQ4_1:
      return 320;
    case PanelFormat::kQ8_0:
      return 544;
    case PanelFormat::kQ6_K:
      return 448;
  }
  return 0;
}

// Bytes of a panel of `cols` k. REQUIRES: a multiple of 32 for integer formats.
constexpr int64_t PanelBytes(PanelFormat format, int64_t cols) {
  switch (format) {
    case PanelFormat::kF32:
      return cols * 64;
    case PanelFormat::kF16:
      return cols * 32;
    case PanelFormat::kBF16:
      return (cols + 1) / 2 * 64;
    default:
      return cols / kGroup * GroupBytes(format);
  }
}

// Bytes that one row takes in an activation tile.
constexpr int64_t ActivationRowBytes(ActivationKind kind, int64_t cols) {
  switch (kind) {
    case ActivationKind::kFloat:
      return cols * 4;
    case ActivationKind::kBf16:
      return (cols + 1) / 2 * 4;
    case ActivationKind::kInt8:
      return cols / kGroup * kInt8GroupBytes;
  }
  return 0;
}

}  // namespace fastgen::cpu
