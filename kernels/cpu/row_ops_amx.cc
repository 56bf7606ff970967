// The amx instances of the row and attention kernels.
#include "kernels/cpu/row_ops_amx.h"

namespace fastgen::cpu {

void FillRowsAmx(KernelTable* table) { AmxRows<AmxTiles>::Fill(table); }

}  // namespace fastgen::cpu
