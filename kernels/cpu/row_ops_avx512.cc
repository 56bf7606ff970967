// The avx512 instances of the row and attention kernels.
#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/avx512_path.h"
#include "kernels/cpu/row_kernels.h"

namespace fastgen::cpu {

void FillRowsAvx512(KernelTable* table) {
  RowTemplates<Avx512Path>::Fill(&table->rows);
  AttentionTemplates<Avx512Path, float>::Fill(&table->attention_f32);
  AttentionTemplates<Avx512Path, uint16_t>::Fill(&table->attention_bf16);
}

}  // namespace fastgen::cpu
