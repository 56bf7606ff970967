// The row and attention kernels over a class of tiles, as a table: AmxTiles in row_ops_amx.cc,
// emulated tiles in tests.
//
// Only attention over bf16 pages goes through tiles; the rest is avx512-bf16's. For files compiled
// with the flags of row_ops_amx.cc only.
// Thread rule: pure functions.
// Tested by tests/kernels/amx_attention_test.cc.
#pragma once

#include "kernels/cpu/attention_amx.h"
#include "kernels/cpu/attention_kernel.h"

namespace fastgen::cpu {

template <typename Tiles>
struct AmxRows {
  static void Fill(KernelTable* table) {
    FillRowsAvx512Bf16(table);
    AttentionTemplates<AmxPath<Tiles>, uint16_t>::Fill(&table->attention_bf16);
  }
};

}  // namespace fastgen::cpu
