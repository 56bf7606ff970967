// Int8 products by AVX-VNNI: `vpdpbusd` on 256 bits, in the encoding of CPUs without AVX-512. All
// weights are worked unsigned, offsets enter as the sums' starting value. Everything else is
// AVX2's.
#include "kernels/cpu/avx2_int8.h"

namespace fastgen::cpu {
namespace {

struct VnniDot {
  static constexpr bool kSignedBytes = false;

  static constexpr int MaxRun(PanelFormat) { return 8; }

  template <int B, bool kSigned>
  struct Run {
    template <bool kIsFirst>
    void Add(__m256i w, const int8_t (*x)[4], __m256i (&dot)[B]) {
      for (int r = 0; r < B; ++r) {
        dot[r] = _mm256_dpbusd_avx_epi32(dot[r], w, Avx2Int8<VnniDot>::Broadcast(x[r]));
      }
    }
    void Finish(__m256i (&)[B]) {}
  };
};

}  // namespace

void FillMatMulAvx2Vnni(MatMulKernels* kernels) {
  FillMatMulAvx2(kernels);
  Avx2Int8<VnniDot>::Fill(kernels);
}

}  // namespace fastgen::cpu
