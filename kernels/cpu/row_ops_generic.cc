// The generic instances of the row and attention kernels.
#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/generic_path.h"
#include "kernels/cpu/row_kernels.h"

namespace fastgen::cpu {

void FillRowsGeneric(KernelTable* table) {
  RowTemplates<GenericPath>::Fill(&table->rows);
  AttentionTemplates<GenericPath, float>::Fill(&table->attention_f32);
  AttentionTemplates<GenericPath, uint16_t>::Fill(&table->attention_bf16);
}

}  // namespace fastgen::cpu
