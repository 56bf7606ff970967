#include "kernels/cpu/kernel_table.h"

namespace fastgen::cpu {

KernelTable MakeKernelTable(Isa isa) {
  KernelTable table;
  switch (isa) {
    case Isa::kGeneric:
      FillMatMulGeneric(&table.matmul);
      FillRowsGeneric(&table);
      break;
    case Isa::kAvx2:
      FillMatMulAvx2(&table.matmul);
      FillRowsAvx2(&table);
      break;
    case Isa::kAvx2Vnni:
      FillMatMulAvx2Vnni(&table.matmul);
      FillRowsAvx2(&table);
      break;
    case Isa::kAvx512:
      FillMatMulAvx512(&table.matmul);
      FillRowsAvx512(&table);
      break;
    case Isa::kAvx512Bf16:
      FillMatMulAvx512Bf16(&table.matmul);
      FillRowsAvx512Bf16(&table);
      break;
    case Isa::kAmx:
      FillMatMulAvx512(&table.matmul);
      FillMatMulAmx(&table.matmul);
      FillRowsAmx(&table);
      break;
  }
  return table;
}

}  // namespace fastgen::cpu
