// The block kernels over a class of tiles, as a table: AmxTiles in gemm_amx.cc, emulated tiles in
// tests.
//
// For files compiled with the flags of gemm_amx.cc only. What the kernels do: gemm_amx_int8.h,
// gemm_amx_bf16.h.
// Thread rule: pure functions.
// Tested by tests/kernels/amx_test.cc.
#pragma once

#include <utility>

#include "kernels/cpu/gemm_amx_bf16.h"
#include "kernels/cpu/gemm_amx_int8.h"
#include "kernels/cpu/kernel_table.h"

namespace fastgen::cpu {

template <typename Tiles>
struct AmxKernels {
  template <int kFormat>
  static void FillInt8(BlockKernels* kernels) {
    if constexpr (HasInt8Blocks(static_cast<PanelFormat>(kFormat))) {
      kernels->int8[kFormat] = AmxInt8<Tiles>::template Blocks<static_cast<PanelFormat>(kFormat)>;
    }
  }
  template <int... kFormats>
  static void FillInt8(BlockKernels* kernels, std::integer_sequence<int, kFormats...>) {
    (FillInt8<kFormats>(kernels), ...);
  }

  static void Fill(BlockKernels* kernels) {
    FillInt8(kernels, std::make_integer_sequence<int, kNumPanelFormats>());
    kernels->bf16 = AmxBf16<Tiles>::Blocks;
    kernels->prepare_int8 = AmxInt8<Tiles>::Prepare;
    kernels->prepare_bf16 = AmxBf16<Tiles>::Prepare;
    kernels->release = TileUse<Tiles>::Release;
  }
};

}  // namespace fastgen::cpu
