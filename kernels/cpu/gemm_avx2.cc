#include "kernels/cpu/avx2_path.h"
#include "kernels/cpu/matmul_kernels.h"

namespace fastgen::cpu {

void FillMatMulAvx2(MatMulKernels* kernels) {
  MatMulTemplates<Avx2Path>::FillFloat(kernels);
  MatMulTemplates<Avx2Path>::FillInt8(kernels);
}

}  // namespace fastgen::cpu
