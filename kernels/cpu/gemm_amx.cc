// The matrix kernels of gemm_amx.h over the CPU's own tiles.
#include "kernels/cpu/gemm_amx.h"

namespace fastgen::cpu {

void FillMatMulAmx(MatMulKernels* kernels) { AmxKernels<AmxTiles>::Fill(&kernels->blocks); }

}  // namespace fastgen::cpu
