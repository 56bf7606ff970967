// Simd<N>: vectors of N floats written with the compiler's vector extensions, so that one source
// serves every path.
//
// The row kernels (row_kernels.h, attention_kernel.h) and the float matrix kernels
// (matmul_kernels.h) are templates over a path's own class derived from Simd<N>. They are
// instantiated only in gemm_<path>.cc and row_ops_<path>.cc, whose flags fit N. Everything here is
// a template member on purpose: a plain inline function compiled for AVX-512 could be the copy that
// the linker keeps for all. Reductions have a fixed order, so a result depends on the path and the
// data alone. Thread rule: pure functions. Tested by tests/kernels/*_test.cc, which run every op on
// every path.
#pragma once

#include <cstdint>

namespace fastgen::cpu {

// Written out because GCC 12 does not convert between vectors whose size is a template's
// expression.
template <int N>
struct VectorTypes;
template <>
struct VectorTypes<4> {
  typedef float F __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));
  typedef uint32_t U __attribute__((vector_size(16)));
  typedef uint16_t H __attribute__((vector_size(8)));
};
template <>
struct VectorTypes<8> {
  typedef float F __attribute__((vector_size(32)));
  typedef int32_t I __attribute__((vector_size(32)));
  typedef uint32_t U __attribute__((vector_size(32)));
  typedef uint16_t H __attribute__((vector_size(16)));
};
template <>
struct VectorTypes<16> {
  typedef float F __attribute__((vector_size(64)));
  typedef int32_t I __attribute__((vector_size(64)));
  typedef uint32_t U __attribute__((vector_size(64)));
  typedef uint16_t H __attribute__((vector_size(32)));
};

// `Path` is the deriving class. It gives MulAdd(a, b, c) = a * b + c, fused where the path has the
// instruction. Contraction by the compiler is switched off in these files: it may differ from one
// instance of a template to the next.
template <int N, typename Path>
struct Simd {
  static constexpr int kLanes = N;
  using F = typename VectorTypes<N>::F;
  using I = typename VectorTypes<N>::I;
  using U = typename VectorTypes<N>::U;
  using H = typename VectorTypes<N>::H;

  static F Load(const float* p) {
    F v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
  }
  static I LoadInt(const void* p) {
    I v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
  }
  static void Store(float* p, F v) { __builtin_memcpy(p, &v, sizeof(v)); }
  static F Zero() { return F{}; }
  static F Set1(float x) { return x - F{}; }
  static F ToFloat(I v) { return __builtin_convertvector(v, F); }
  static F Max(F a, F b) { return a > b ? a : b; }
  static F Abs(F a) { return (F)((I)a & 0x7fffffff); }

  static F LoadBf16(const uint16_t* p) {
    H v;
    __builtin_memcpy(&v, p, sizeof(v));
    return (F)(__builtin_convertvector(v, I) << 16);
  }
  // Round to nearest even; a NaN stays one.
  static void StoreBf16(uint16_t* p, F v) {
    const I bits = (I)v;
    const I rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const I quiet = (bits >> 16) | 0x40;
    const H half = __builtin_convertvector(v == v ? rounded : quiet, H);
    __builtin_memcpy(p, &half, sizeof(half));
  }

  // Lane i with lane i + N/2, then halves of that: the same tree on every call.
  static float ReduceAdd(F v) {
    float lanes[N];
    __builtin_memcpy(lanes, &v, sizeof(v));
    for (int width = N / 2; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    }
    return lanes[0];
  }
  static float ReduceMax(F v) {
    float lanes[N];
    __builtin_memcpy(lanes, &v, sizeof(v));
    for (int width = N / 2; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i)
        lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    }
    return lanes[0];
  }

  // e^x within 2 ulp: x = n ln 2 + r, |r| <= ln 2 / 2, the Taylor polynomial of degree 7 in r (next
  // term 4e-9). Exactly 1 at 0; exactly 0 below -87 and at -infinity; NaN at NaN. REQUIRES: x
  // <= 88.
  static F Exp(F x) {
    constexpr float kRound =
        12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const F shifted = Path::MulAdd(x, Set1(1.44269504f), Set1(kRound));
    const F n = shifted - kRound;
    // ln 2 in two parts; the first has so few bits that its product with n is exact.
    F r = Path::MulAdd(n, Set1(-0.693145752f), x);
    r = Path::MulAdd(n, Set1(-1.42860677e-6f), r);
    F p = Path::MulAdd(r, Set1(1.98412698e-4f), Set1(1.38888889e-3f));
    p = Path::MulAdd(p, r, Set1(8.33333333e-3f));
    p = Path::MulAdd(p, r, Set1(4.16666667e-2f));
    p = Path::MulAdd(p, r, Set1(1.66666667e-1f));
    p = Path::MulAdd(p, r, Set1(0.5f));
    p = Path::MulAdd(p, r, Set1(1.0f));
    p = Path::MulAdd(p, r, Set1(1.0f));
    // Below -87 this is nothing meaningful, nor is it used.
    const F power = (F)(((U)shifted - 0x4b400000u + 127u) << 23);
    return x < -87.0f ? Zero() : p * power;
  }
};

}  // namespace fastgen::cpu
