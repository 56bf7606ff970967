// Where a quantised block has its f16 scale and minimum, for tests and benchmarks that make blocks of
// random bits with scales of sane size.
// Thread rule: pure function.
#pragma once

#include <vector>

#include "kernels/dtype.h"

namespace fastgen::testing {

// Byte offsets, the scale's first. Empty for types that are no blocks.
inline std::vector<int> BlockScaleOffsets(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS: return {0};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K: return {0, 2};
    case DType::kQ2_K: return {80, 82};
    case DType::kQ3_K: return {108};
    case DType::kQ6_K: return {208};
    default: return {};
  }
}

}  // namespace fastgen::testing
