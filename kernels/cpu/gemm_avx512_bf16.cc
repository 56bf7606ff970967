// Products of bf16 weights by `vdpbf16ps`, on pairs of k. Everything else of the path is AVX-512's
// (gemm_avx512.cc).
#include <immintrin.h>

#include <utility>

#include "kernels/cpu/kernel_table.h"

namespace fastgen::cpu {
namespace {

inline __m512bh Broadcast(const void* p) {
  int32_t value;
  __builtin_memcpy(&value, p, sizeof(value));
  return (__m512bh)_mm512_set1_epi32(value);
}

template <int R>
void Bf16Tile(const uint8_t* panel, int64_t ahead, const void* x, int64_t cols, float* y) {
  const uint8_t* pairs = static_cast<const uint8_t*>(x);
  __m512 acc[R];
  for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
  for (int64_t k = 0; k < cols; k += 2, panel += 64, pairs += 4 * R) {
    PrefetchAhead<64>(panel, ahead);
    const __m512bh w = (__m512bh)_mm512_loadu_si512(panel);
    for (int r = 0; r < R; ++r) acc[r] = _mm512_dpbf16_ps(acc[r], w, Broadcast(pairs + 4 * r));
  }
  for (int r = 0; r < R; ++r) _mm512_store_ps(y + r * kPanelOutputs, acc[r]);
}

void PrepareBf16(const float* x, int64_t stride, int rows, int64_t cols, void* tile) {
  uint32_t* out = static_cast<uint32_t*>(tile);
  for (int r = 0; r < rows; ++r) {
    const float* row = x + r * stride;
    for (int64_t k = 0; k < cols; k += 32) {
      const int64_t rest = cols - k;
      const __mmask16 first = rest >= 16 ? 0xffff : static_cast<__mmask16>((1 << rest) - 1);
      const __mmask16 second = rest >= 32   ? 0xffff
                               : rest <= 16 ? 0
                                            : static_cast<__mmask16>((1 << (rest - 16)) - 1);
      const __m512bh half = _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(second, row + k + 16),
                                                _mm512_maskz_loadu_ps(first, row + k));
      uint32_t pairs[16];
      __builtin_memcpy(pairs, &half, sizeof(half));
      const int64_t num_pairs = rest >= 32 ? 16 : (rest + 1) / 2;
      for (int64_t i = 0; i < num_pairs; ++i) out[(k / 2 + i) * rows + r] = pairs[i];
    }
  }
}

template <int... kRows>
void FillBf16(MatMulKernels* kernels, std::integer_sequence<int, kRows...>) {
  ((kernels->bf16_tile[kRows] = Bf16Tile<kRows + 1>), ...);
}

}  // namespace

void FillMatMulAvx512Bf16(MatMulKernels* kernels) {
  FillMatMulAvx512(kernels);
  FillBf16(kernels, std::make_integer_sequence<int, kTileRows>());
  kernels->prepare_bf16 = PrepareBf16;
}

}  // namespace fastgen::cpu
