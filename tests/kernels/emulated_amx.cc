#include "tests/kernels/emulated_amx.h"

#include "kernels/cpu/gemm_amx.h"
#include "kernels/cpu/row_ops_amx.h"
#include "tests/kernels/emulated_tiles.h"

namespace fastgen::testing {

void FillMatMulAmxEmulated(cpu::MatMulKernels* kernels) {
  cpu::FillMatMulAvx512(kernels);
  cpu::AmxKernels<EmulatedTiles>::Fill(&kernels->blocks);
}

void FillRowsAmxEmulated(cpu::KernelTable* table) { cpu::AmxRows<EmulatedTiles>::Fill(table); }

}  // namespace fastgen::testing
