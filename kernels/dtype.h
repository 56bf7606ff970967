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
  kQ4_0,  // 32 elements: f16 scale d, 16 bytes of nibbles; value = d * (q - 8)
  kQ4_1,  // 32 elements: f16 d, f16 m, 16 bytes of nibbles; value = d * q + m
  kQ8_0,  // 32 elements: f16 d, 32 int8; value = d * q
  kQ6_K,  // 256 elements: 128 low nibbles, 64 bytes of high pairs, 16 int8 scales, f16 d; value = d * scale * (q - 32)
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
    case DType::kQ8_0: return {"Q8_0", 32, 34};
    case DType::kQ6_K: return {"Q6_K", 256, 210};
  }
  return {"?", 1, 0};
}

constexpr bool IsBlockType(DType dtype) { return Info(dtype).block_elements > 1; }

// Bytes of `elements` neighbouring elements. REQUIRES: a whole number of blocks.
constexpr int64_t BytesOf(DType dtype, int64_t elements) {
  return elements / Info(dtype).block_elements * Info(dtype).block_bytes;
}

}  // namespace fastgen
