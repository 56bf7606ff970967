// The avx512-bf16 instances of the row and attention kernels.
#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/avx512_bf16_path.h"
#include "kernels/cpu/row_kernels.h"

namespace fastgen::cpu {

void FillRowsAvx512Bf16(KernelTable* table) {
  RowTemplates<Avx512Bf16Path>::Fill(&table->rows);
  AttentionTemplates<Avx512Bf16Path, float>::Fill(&table->attention_f32);
  AttentionTemplates<Avx512Bf16Path, uint16_t>::Fill(&table->attention_bf16);
}

}  // namespace fastgen::cpu
