// Rounding of weight rows to another form (WeightForm, kernels/dtype.h) while they are packed.
//
// Integers: one StoredBlock of 32 or 128 neighbours at a time (the last of a row may be shorter).
// Scales are f16, as in the block types of files, so that the same kernels serve both: 0.5 or 0.125
// bits a weight instead of 1 or 0.25, for an error of 2^-12 beside the integers' 2^-8 and 2^-5. The
// integers are chosen for the scale as rounded. int4 has a minimum: a group is rarely symmetric,
// and 16 values are too few to waste. A group that holds a NaN or an infinity becomes NaN.
// Thread rule: pure functions.
// Tested by tests/kernels/convert_test.cc.
#pragma once

#include <cstdint>

#include "kernels/cpu/panel.h"
#include "kernels/cpu/stored_rows.h"
#include "kernels/dtype.h"

namespace fastgen::cpu {

// The panel format of a form. REQUIRES: not kAsStored.
PanelFormat PanelFormatOf(WeightForm form);

// Rounds values[0, count), count <= 128, to the integers of `format`. REQUIRES: kQ8_0, kQ4_1 or one
// of the G128 formats.
void QuantizeBlock(PanelFormat format, const float* values, int count, StoredBlock* block);

// Rounds a row to e4m3 values, in place; returns the scale that they are multiplied by: the largest
// magnitude / 448, 0 for a row of zeros, NaN where the row holds a NaN or an infinity.
float QuantizeRowToE4m3(float* values, int64_t count);

}  // namespace fastgen::cpu
