// The portable matrix kernels: the templates of matmul_kernels.h over SSE2's four lanes.
#include "kernels/cpu/generic_path.h"
#include "kernels/cpu/matmul_kernels.h"

namespace fastgen::cpu {

void FillMatMulGeneric(MatMulKernels* kernels) {
  MatMulTemplates<GenericPath>::FillFloat(kernels);
  MatMulTemplates<GenericPath>::FillInt8(kernels);
}

}  // namespace fastgen::cpu
