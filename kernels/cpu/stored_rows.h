// Weight rows as files store them, taken apart: each block as integers, scales and minimums, which
// is all that packing needs, and whole rows as floats, which is what conversion to another form
// needs.
//
// A block type has one decoder here, one panel format (PanelFormatOf) and no arithmetic of its own:
// what the fields mean is the panel format's PanelTraits. d * scale * integer has at most 24 bits
// in every format, so that float holds it exactly: a value is rounded once at most, as m is added.
// Thread rule: pure functions.
// Tested by tests/kernels/dequantize_test.cc.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/cpu/panel.h"
#include "kernels/dtype.h"

namespace fastgen::cpu {

// One block of a file, 32 or 256 elements, in the terms of PanelTraits.
struct StoredBlock {
  alignas(64) uint8_t q[256];  // as the panel has them: not negative
  uint16_t d = 0;              // f16
  uint16_t m = 0;              // f16
  uint8_t scales[16];          // int8, one per 32 or 16 elements
  uint8_t minimums[16];
};

// INVALID_ARGUMENT for a dtype without a kernel.
absl::StatusOr<PanelFormat> PanelFormatOf(DType dtype);

// Takes one block apart. REQUIRES: a block type.
void DecodeBlock(DType dtype, const uint8_t* bytes, StoredBlock* block);

// d (or m) of a block times nothing, a scale or a minimum, as `traits` say: the factor and the
// addend of group `group`, half `half`.
float FactorOf(const PanelTraits& traits, float d, int8_t scale);
float AddendOf(const PanelTraits& traits, float m, uint8_t minimum);
// The value of integer q under them.
inline float ValueOf(const PanelTraits& traits, int q, float factor, float addend) {
  const int integer = traits.is_table ? kCodebook[q] : q - traits.zero_point;
  return static_cast<float>(integer) * factor + addend;
}

// out[0, cols) = the row at `bytes`. REQUIRES: PanelFormatOf(dtype) is OK.
void DequantizeStoredRow(DType dtype, const uint8_t* bytes, int64_t cols, float* out);

}  // namespace fastgen::cpu
