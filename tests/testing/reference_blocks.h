// What an element of a quantised block is, straight from the format's definition, one element at a
// time in double precision: the oracle of packing, of kernels and of the reference forward.
// Thread rule: pure function.
// Tested by tests/kernels/dequantize_test.cc against another program's results.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace fastgen::testing {

// Element i of the block at `block`. REQUIRES: a block type.
double BlockElement(DType dtype, const uint8_t* block, int i);

}  // namespace fastgen::testing
