// The AMX path with emulated tiles: the kernels of an AVX-512 CPU, and the block and attention
// kernels that AMX adds, over EmulatedTiles (emulated_tiles.h).
// Thread rule: a constant; the kernels as the CPU's own.
// Tested by tests/kernels/amx_test.cc and amx_attention_test.cc.
#pragma once

#include "kernels/cpu/kernel_table.h"

namespace fastgen::testing {

// They only assign pointers; calling the kernels takes the instructions of "avx512-bf16".
void FillMatMulAmxEmulated(cpu::MatMulKernels* kernels);
void FillRowsAmxEmulated(cpu::KernelTable* table);

}  // namespace fastgen::testing
