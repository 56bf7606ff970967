// The avx2 instances of the row and attention kernels.
#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/avx2_path.h"
#include "kernels/cpu/row_kernels.h"

namespace fastgen::cpu {

void FillRowsAvx2(KernelTable* table) {
  RowTemplates<Avx2Path>::Fill(&table->rows);
  AttentionTemplates<Avx2Path, float>::Fill(&table->attention_f32);
  AttentionTemplates<Avx2Path, uint16_t>::Fill(&table->attention_bf16);
}

}  // namespace fastgen::cpu
