// The element types that tensors and weight files have, and how many bytes a run of elements takes.
//
// Block types follow the layouts that GGUF defines (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): a
// block holds `block_elements` neighbouring elements of one row in `block_bytes` bytes.
// Thread rule: immutable, any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace fastgen {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kI32,
  kI64,
  // Blocks of 32 elements; d and m are f16.
  kQ4_0,    // d, 16 bytes of nibbles; value = d * (q - 8)
  kQ4_1,    // d, m, 16 bytes of nibbles; value = d * q + m
  kQ5_0,    // d, 32 fifth bits, 16 bytes of nibbles; value = d * (q - 16)
  kQ5_1,    // d, m, 32 fifth bits, 16 bytes of nibbles; value = d * q + m
  kQ8_0,    // d, 32 int8; value = d * q
  kIQ4_NL,  // d, 16 bytes of nibbles; value = d * table[q]
  // Blocks of 256 elements.
  kQ2_K,    // 16 bytes of 4-bit scales and minimums, 64 of pairs, d, m; value = d * scale * q - m * minimum
  kQ3_K,    // 32 bytes of third bits, 64 of pairs, 16 6-bit scales, d; value = d * (scale - 32) * (q - 4)
  kQ4_K,    // d, m, 8 6-bit scales and minimums, 128 bytes of nibbles; value = d * scale * q - m * minimum
  kQ5_K,    // as kQ4_K with 32 bytes of fifth bits before the nibbles
  kQ6_K,    // 128 bytes of nibbles, 64 of high pairs, 16 int8 scales, d; value = d * scale * (q - 32)
  kIQ4_XS,  // d, 8 6-bit scales, 128 bytes of nibbles; value = d * (scale - 32) * table[q]
};

struct DTypeInfo {
  std::string_view name;
  int block_elements;
  int block_bytes;
};

constexpr DTypeInfo Info(DType dtype) {
  switch (dtype) {
    case DType::kF32: return {"F32", 1, 4};
    case DType::kF16: return {"F16", 1, 2};
    case DType::kBF16: return {"BF16", 1, 2};
    case DType::kI32: return {"I32", 1, 4};
    case DType::kI64: return {"I64", 1, 8};
    case DType::kQ4_0: return {"Q4_0", 32, 18};
    case DType::kQ4_1: return {"Q4_1", 32, 20};
    case DType::kQ5_0: return {"Q5_0", 32, 22};
    case DType::kQ5_1: return {"Q5_1", 32, 24};
    case DType::kQ8_0: return {"Q8_0", 32, 34};
    case DType::kIQ4_NL: return {"IQ4_NL", 32, 18};
    case DType::kQ2_K: return {"Q2_K", 256, 84};
    case DType::kQ3_K: return {"Q3_K", 256, 110};
    case DType::kQ4_K: return {"Q4_K", 256, 144};
    case DType::kQ5_K: return {"Q5_K", 256, 176};
    case DType::kQ6_K: return {"Q6_K", 256, 210};
    case DType::kIQ4_XS: return {"IQ4_XS", 256, 136};
  }
  return {"?", 1, 0};
}

// The form in which a backend keeps a matrix. Anything but kAsStored rounds to nearest, row by row,
// while the matrix is packed; scales are f16 but for kFp8Rows.
enum class WeightForm : uint8_t {
  kAsStored,
  kBf16,
  kInt8Group32,   // value = d * q, q in [-127, 127], d = max|w| / 127 of 32 neighbours
  kInt8Group128,  // likewise of 128
  kInt4Group32,   // value = d * q + m, q in [0, 15], of 32 neighbours
  kInt4Group128,  // likewise of 128
  kFp8Rows,       // value = s * e4m3, s = max|w| / 448 of the row, f32; activations become e4m3 per row
};

constexpr std::string_view FormName(WeightForm form) {
  switch (form) {
    case WeightForm::kAsStored: return "auto";
    case WeightForm::kBf16: return "bf16";
    case WeightForm::kInt8Group32: return "int8";
    case WeightForm::kInt8Group128: return "int8-g128";
    case WeightForm::kInt4Group32: return "int4";
    case WeightForm::kInt4Group128: return "int4-g128";
    case WeightForm::kFp8Rows: return "fp8";
  }
  return "?";
}

constexpr bool IsBlockType(DType dtype) { return Info(dtype).block_elements > 1; }

// Bytes of `elements` neighbouring elements. REQUIRES: a whole number of blocks.
constexpr int64_t BytesOf(DType dtype, int64_t elements) {
  return elements / Info(dtype).block_elements * Info(dtype).block_bytes;
}

}  // namespace fastgen
