#include "kernels/cpu/avx512_path.h"
#include "kernels/cpu/matmul_kernels.h"

namespace fastgen::cpu {

void FillMatMulAvx512(MatMulKernels* kernels) {
  MatMulTemplates<Avx512Path>::FillFloat(kernels);
  MatMulTemplates<Avx512Path>::FillInt8(kernels);
}

}  // namespace fastgen::cpu
