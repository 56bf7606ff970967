// Matrix kernels for AVX2, FMA and F16C.
//
// `vpmaddubsw` multiplies u8 by s8 and adds neighbours in 16 bits, `vpmaddwd` by ones adds those in
// 32. Two products of a weight of b bits take at most 2 * (2^b - 1) * 127: with 4 bits eight steps
// fit 16 bits, with 5 four, with 6 two, so that one vpmaddwd serves them all. 8-bit weights and the
// codebook's would not even fit once: their sign moves to the activation, |w| * (x with w's sign),
// at most 128 * 127 * 2 < 2^15, and no correction for an offset is due.
#include "kernels/cpu/avx2_int8.h"
#include "kernels/cpu/avx2_path.h"
#include "kernels/cpu/matmul_kernels.h"

namespace fastgen::cpu {
namespace {

struct MaddDot {
  static constexpr bool kSignedBytes = true;

  // Steps whose products 16 bits hold.
  static constexpr int MaxRun(PanelFormat format) {
    const PanelTraits traits = TraitsOf(format);
    if (traits.bits == 8 || traits.is_table) return 1;
    const int largest = 2 * ((1 << traits.bits) - 1) * 127;
    return 32767 / largest < 8 ? 32767 / largest : 8;
  }

  template <int B, bool kSigned>
  struct Run {
    __m256i part[B];

    template <bool kIsFirst>
    void Add(__m256i w, const int8_t (*x)[4], __m256i (&)[B]) {
      const __m256i magnitude = kSigned ? _mm256_abs_epi8(w) : w;
      for (int r = 0; r < B; ++r) {
        __m256i activation = Avx2Int8<MaddDot>::Broadcast(x[r]);
        if constexpr (kSigned) activation = _mm256_sign_epi8(activation, w);
        const __m256i product = _mm256_maddubs_epi16(magnitude, activation);
        part[r] = kIsFirst ? product : _mm256_add_epi16(part[r], product);
        // Keeps GCC from putting off the additions until all products lie on the stack.
        asm volatile("" : "+x"(part[r]));
      }
    }
    void Finish(__m256i (&dot)[B]) {
      const __m256i ones = _mm256_set1_epi16(1);
      for (int r = 0; r < B; ++r) {
        dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(part[r], ones));
        asm volatile("" : "+x"(dot[r]));  // likewise
      }
    }
  };
};

}  // namespace

void FillMatMulAvx2(MatMulKernels* kernels) {
  MatMulTemplates<Avx2Path>::FillFloat(kernels);
  Avx2Int8<MaddDot>::Fill(kernels);
}

}  // namespace fastgen::cpu
