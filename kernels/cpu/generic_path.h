// GenericPath: four lanes and no instruction beyond the x86-64 baseline.
// Thread rule: pure functions.
// Tested by tests/kernels/*_test.cc with cpu_isa "generic".
#pragma once

#include "kernels/cpu/float_bits.h"
#include "kernels/cpu/simd.h"

namespace fastgen::cpu {

struct GenericPath : Simd<4> {
  static constexpr int kFloatRows = 2;   // rows whose 4 sum vectors stay in 16 registers
  static constexpr int kScoreRows = 2;   // likewise in attention, x kScoreVectors
  static constexpr int kScoreVectors = 4;

  static F LoadF16(const uint8_t* p) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      uint16_t half;
      __builtin_memcpy(&half, p + 2 * i, sizeof(half));
      lanes[i] = F16ToFloat(half);
    }
    return Load(lanes);
  }
};

}  // namespace fastgen::cpu
