// Matrix kernels as templates over a path (simd.h): float products for every weight format, the
// float activation tile, and the portable forms of int8 quantisation and of the int8 product.
//
// Float: sums of 16 outputs x a block of rows stay in registers; integer weights become floats in a
// buffer of one group. acc = fma(w, x, acc), k ascending, whatever the number of rows: the
// contract's point 3. Int8: per group an exact integer dot product, then acc = fma(dot * scale, d,
// acc) (and fma(scaled_sum, m, acc)), groups ascending. gemm_avx512.cc and gemm_avx2.cc do the same
// arithmetic with integer instructions. Thread rule: pure functions. Tested by
// tests/kernels/matmul_test.cc.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/panel.h"

namespace fastgen::cpu {

template <typename V>
struct MatMulTemplates {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kParts = kPanelOutputs / kLanes;  // vectors that hold 16 outputs

  // ---- weights of one group as floats ----

  // w[k][16] = the stored integers, k < 32, without scale or offset.
  template <PanelFormat kFormat>
  static void UnpackGroup(const uint8_t* block, float* w) {
    for (int part = 0; part < kParts; ++part) {
      float* out = w + part * kLanes;
      const uint8_t* in = block + 4 * part * kLanes;
      for (int j = 0; j < (kFormat == PanelFormat::kQ8_0 ? 8 : 4); ++j) {
        const I v = V::LoadInt(in + 64 * j);
        for (int b = 0; b < 4; ++b) {
          float* low = out + (4 * j + b) * kPanelOutputs;
          if constexpr (kFormat == PanelFormat::kQ8_0) {
            V::Store(low, V::ToFloat((v >> (8 * b)) & 255));
          } else {
            I q0 = (v >> (8 * b)) & 15;
            I q1 = (v >> (8 * b + 4)) & 15;
            if constexpr (kFormat == PanelFormat::kQ6_K) {
              const I high0 = V::LoadInt(in + kQ6HighOffset);
              const I high1 = V::LoadInt(in + kQ6HighOffset + 64);
              q0 |= ((high0 >> (8 * b + 2 * j)) & 3) << 4;
              q1 |= ((high1 >> (8 * b + 2 * j)) & 3) << 4;
            }
            V::Store(low, V::ToFloat(q0));
            V::Store(low + 16 * kPanelOutputs, V::ToFloat(q1));
          }
        }
      }
    }
  }

  // Scale of outputs [part * kLanes, ..) for k in half `half` of the group.
  template <PanelFormat kFormat>
  static F GroupScale(const uint8_t* block, int part, int half) {
    constexpr int kOffset = kFormat == PanelFormat::kQ8_0   ? kQ8Bytes
                            : kFormat == PanelFormat::kQ6_K ? kQ6DeltaOffset
                                                            : kNibbleBytes;
    const F d = V::LoadF16(block + kOffset + 2 * part * kLanes);
    if constexpr (kFormat != PanelFormat::kQ6_K) return d;
    const int8_t* scales =
        reinterpret_cast<const int8_t*>(block + kQ6ScaleOffset + 16 * half + part * kLanes);
    float s[kLanes];
    for (int i = 0; i < kLanes; ++i) s[i] = scales[i];
    return d * V::Load(s);
  }

  // Turns the integers of UnpackGroup into weights.
  template <PanelFormat kFormat>
  static void ScaleGroup(const uint8_t* block, float* w) {
    constexpr float kOffset = kFormat == PanelFormat::kQ4_0   ? 8
                              : kFormat == PanelFormat::kQ8_0 ? 128
                              : kFormat == PanelFormat::kQ6_K ? 32
                                                              : 0;
    for (int part = 0; part < kParts; ++part) {
      for (int half = 0; half < 2; ++half) {
        const F d = GroupScale<kFormat>(block, part, half);
        F m = V::Zero();
        if constexpr (kFormat == PanelFormat::kQ4_1) {
          m = V::LoadF16(block + kNibbleBytes + 32 + 2 * part * kLanes);
        }
        for (int k = 16 * half; k < 16 * half + 16; ++k) {
          float* at = w + k * kPanelOutputs + part * kLanes;
          V::Store(at, V::MulAdd(V::Load(at) - kOffset, d, m));
        }
      }
    }
  }

  // ---- float product ----

  // Weights of k for one vector of outputs, straight from a float panel.
  template <PanelFormat kFormat>
  static F FloatWeight(const uint8_t* panel, int64_t k, int part) {
    if constexpr (kFormat == PanelFormat::kF32) {
      return V::Load(reinterpret_cast<const float*>(panel + k * 64 + part * kLanes * 4));
    } else if constexpr (kFormat == PanelFormat::kF16) {
      return V::LoadF16(panel + k * 32 + part * kLanes * 2);
    } else {
      const I pair = V::LoadInt(panel + k / 2 * 64 + part * kLanes * 4);
      return k % 2 == 0 ? (F)(pair << 16) : (F)(pair & static_cast<int32_t>(0xffff0000));
    }
  }

  template <int B>
  static void Accumulate(F w, int part, const float* x, F (&acc)[B][kParts]) {
    for (int r = 0; r < B; ++r) acc[r][part] = V::MulAdd(w, V::Set1(x[r]), acc[r][part]);
  }

  // Rows [0, B) of a tile whose rows are interleaved `stride` wide.
  template <PanelFormat kFormat, int B>
  static void FloatBlock(const uint8_t* panel, const float* x, int stride, int64_t cols, float* y) {
    F acc[B][kParts] = {};
    if constexpr (IsIntegerFormat(kFormat)) {
      constexpr int64_t kBlockBytes = GroupBytes(kFormat);
      alignas(64) float w[kGroup * kPanelOutputs];
      for (int64_t k0 = 0; k0 < cols; k0 += kGroup, panel += kBlockBytes) {
        UnpackGroup<kFormat>(panel, w);
        ScaleGroup<kFormat>(panel, w);
        for (int k = 0; k < kGroup; ++k, x += stride) {
          for (int part = 0; part < kParts; ++part) {
            Accumulate<B>(V::Load(w + k * kPanelOutputs + part * kLanes), part, x, acc);
          }
        }
      }
    } else {
      int64_t k = 0;
      for (; k + 2 <= cols; k += 2, x += 2 * stride) {
        for (int part = 0; part < kParts; ++part) {
          Accumulate<B>(FloatWeight<kFormat>(panel, k, part), part, x, acc);
          Accumulate<B>(FloatWeight<kFormat>(panel, k + 1, part), part, x + stride, acc);
        }
      }
      if (k < cols) {
        for (int part = 0; part < kParts; ++part) {
          Accumulate<B>(FloatWeight<kFormat>(panel, k, part), part, x, acc);
        }
      }
    }
    for (int r = 0; r < B; ++r) {
      for (int part = 0; part < kParts; ++part) {
        V::Store(y + r * kPanelOutputs + part * kLanes, acc[r][part]);
      }
    }
  }

  template <PanelFormat kFormat, int R>
  static void FloatTile(const uint8_t* panel, const void* x, int64_t cols, float* y) {
    // As many rows at once as the register file holds sums of.
    constexpr int kRows = R < V::kFloatRows ? R : V::kFloatRows;
    constexpr int kRest = R % kRows;
    const float* rows = static_cast<const float*>(x);
    for (int r = 0; r + kRows <= R; r += kRows) {
      FloatBlock<kFormat, kRows>(panel, rows + r, R, cols, y + r * kPanelOutputs);
    }
    if constexpr (kRest > 0) {
      FloatBlock<kFormat, kRest>(panel, rows + R - kRest, R, cols, y + (R - kRest) * kPanelOutputs);
    }
  }

  static void PrepareFloat(const float* x, int64_t stride, int rows, int64_t cols, void* tile) {
    float* out = static_cast<float*>(tile);
    for (int r = 0; r < rows; ++r) {
      const float* row = x + r * stride;
      for (int64_t k = 0; k < cols; ++k) out[k * rows + r] = row[k];
    }
  }

  static void StoreSums(const float* sums, int rows, int num_outputs, const float* bias,
                        const float* residual, int64_t residual_stride, float* out,
                        int64_t out_stride) {
    for (int r = 0; r < rows; ++r, sums += kPanelOutputs, out += out_stride) {
      if (num_outputs == kPanelOutputs) {
        for (int n = 0; n < kPanelOutputs; n += kLanes) {
          F v = V::Load(sums + n);
          if (bias != nullptr) v += V::Load(bias + n);
          if (residual != nullptr) v += V::Load(residual + n);
          V::Store(out + n, v);
        }
      } else {
        for (int n = 0; n < num_outputs; ++n) {
          float v = sums[n];
          if (bias != nullptr) v += bias[n];
          if (residual != nullptr) v += residual[n];
          out[n] = v;
        }
      }
      if (residual != nullptr) residual += residual_stride;
    }
  }

  // ---- int8, portable ----

  // Quantises one group; q receives 32 integers. Returns the scale: NaN if the group holds a NaN or
  // an infinity.
  static float QuantizeGroup(const float* x, int32_t* q) {
    F largest = V::Zero();
    F taint = V::Zero();
    for (int k = 0; k < kGroup; k += kLanes) {
      const F v = V::Load(x + k);
      largest = V::Max(V::Abs(v), largest);
      taint = taint + v * 0.0f;
    }
    const float poison = V::ReduceAdd(taint);
    if (poison != poison) {
      // The scale alone makes every product of the row NaN; the integers must only be in range.
      for (int k = 0; k < kGroup; ++k) q[k] = 0;
      return poison;
    }
    const float max = V::ReduceMax(largest);
    const float inverse = max > 1e-30f ? 127.0f / max : 0.0f;
    for (int k = 0; k < kGroup; k += kLanes) {
      // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
      const F shifted = V::Load(x + k) * inverse + 12582912.0f;
      const I integer = (I)shifted - 0x4b400000;
      __builtin_memcpy(q + k, &integer, sizeof(integer));
    }
    return max > 1e-30f ? max / 127.0f : 0.0f;
  }

  template <int R>
  static void StoreQuantized(const int32_t* q, float scale, int r, Int8Group<R>* group) {
    int32_t sums[2] = {0, 0};
    for (int k = 0; k < kGroup; ++k) {
      group->q[k / 4][r][k % 4] = static_cast<int8_t>(q[k]);
      sums[k / 16] += q[k];
    }
    const int32_t sum = sums[0] + sums[1];
    group->scale[r] = scale;
    group->scaled_sum[r] = scale * static_cast<float>(sum);
    group->minus_8_sum[r] = -8 * sum;
    group->minus_128_sum[r] = -128 * sum;
    group->minus_32_sum[0][r] = -32 * sums[0];
    group->minus_32_sum[1][r] = -32 * sums[1];
  }

  template <int R>
  static void PrepareInt8Rows(const float* x, int64_t stride, int64_t cols, void* tile) {
    Int8Group<R>* group = static_cast<Int8Group<R>*>(tile);
    for (int64_t k = 0; k < cols; k += kGroup, ++group) {
      for (int r = 0; r < R; ++r) {
        int32_t q[kGroup];
        const float scale = QuantizeGroup(x + r * stride + k, q);
        StoreQuantized<R>(q, scale, r, group);
      }
    }
  }

  static void PrepareInt8(const float* x, int64_t stride, int rows, int64_t cols, void* tile) {
    using Rows = void (*)(const float*, int64_t, int64_t, void*);
    static constexpr Rows kByRows[kTileRows] = {
        PrepareInt8Rows<1>, PrepareInt8Rows<2>, PrepareInt8Rows<3>, PrepareInt8Rows<4>,
        PrepareInt8Rows<5>, PrepareInt8Rows<6>, PrepareInt8Rows<7>, PrepareInt8Rows<8>};
    kByRows[rows - 1](x, stride, cols, tile);
  }

  // Products of integers below 2^15, 32 of them: exact in float, so this equals the integer
  // instructions.
  template <PanelFormat kFormat, int R>
  static void Int8Row(const uint8_t* block, const float* w, const Int8Group<R>& group, int r,
                      float* y) {
    constexpr int kHalves = kFormat == PanelFormat::kQ6_K ? 2 : 1;
    for (int part = 0; part < kParts; ++part) {
      F sum = V::Load(y + part * kLanes);
      for (int half = 0; half < kHalves; ++half) {
        F dot = V::Zero();
        for (int k = half * 16; k < (kHalves == 1 ? kGroup : 16 * half + 16); ++k) {
          dot = V::MulAdd(V::Load(w + k * kPanelOutputs + part * kLanes),
                          V::Set1(static_cast<float>(group.q[k / 4][r][k % 4])), dot);
        }
        if constexpr (kFormat == PanelFormat::kQ4_0)
          dot += static_cast<float>(group.minus_8_sum[r]);
        if constexpr (kFormat == PanelFormat::kQ8_0)
          dot += static_cast<float>(group.minus_128_sum[r]);
        if constexpr (kFormat == PanelFormat::kQ6_K) {
          dot += static_cast<float>(group.minus_32_sum[half][r]);
        }
        sum = V::MulAdd(dot * group.scale[r], GroupScale<kFormat>(block, part, half), sum);
      }
      if constexpr (kFormat == PanelFormat::kQ4_1) {
        const F m = V::LoadF16(block + kNibbleBytes + 32 + 2 * part * kLanes);
        sum = V::MulAdd(m, V::Set1(group.scaled_sum[r]), sum);
      }
      V::Store(y + part * kLanes, sum);
    }
  }

  template <PanelFormat kFormat, int R>
  static void Int8Tile(const uint8_t* panel, const void* x, int64_t cols, float* y) {
    constexpr int64_t kBlockBytes = GroupBytes(kFormat);
    alignas(64) float w[kGroup * kPanelOutputs];
    const Int8Group<R>* group = static_cast<const Int8Group<R>*>(x);
    for (int i = 0; i < R * kPanelOutputs; ++i) y[i] = 0;
    for (int64_t k = 0; k < cols; k += kGroup, panel += kBlockBytes, ++group) {
      UnpackGroup<kFormat>(panel, w);
      for (int r = 0; r < R; ++r) Int8Row<kFormat, R>(panel, w, *group, r, y + r * kPanelOutputs);
    }
  }

  // ---- tables ----

  template <PanelFormat kFormat, int... kRows>
  static void FillFloat(MatMulKernels* kernels, std::integer_sequence<int, kRows...>) {
    ((kernels->float_tile[static_cast<int>(kFormat)][kRows] = FloatTile<kFormat, kRows + 1>), ...);
  }

  // Also what all paths share: preparing activations, storing sums.
  static void FillFloat(MatMulKernels* kernels) {
    using Rows = std::make_integer_sequence<int, kTileRows>;
    FillFloat<PanelFormat::kF32>(kernels, Rows());
    FillFloat<PanelFormat::kF16>(kernels, Rows());
    FillFloat<PanelFormat::kBF16>(kernels, Rows());
    FillFloat<PanelFormat::kQ4_0>(kernels, Rows());
    FillFloat<PanelFormat::kQ4_1>(kernels, Rows());
    FillFloat<PanelFormat::kQ8_0>(kernels, Rows());
    FillFloat<PanelFormat::kQ6_K>(kernels, Rows());
    kernels->prepare_float = PrepareFloat;
    kernels->prepare_int8 = PrepareInt8;
    kernels->store = StoreSums;
  }

  template <PanelFormat kFormat, int... kRows>
  static void FillInt8(MatMulKernels* kernels, std::integer_sequence<int, kRows...>) {
    ((kernels->int8_tile[static_cast<int>(kFormat)][kRows] = Int8Tile<kFormat, kRows + 1>), ...);
  }

  static void FillInt8(MatMulKernels* kernels) {
    using Rows = std::make_integer_sequence<int, kTileRows>;
    FillInt8<PanelFormat::kQ4_0>(kernels, Rows());
    FillInt8<PanelFormat::kQ4_1>(kernels, Rows());
    FillInt8<PanelFormat::kQ8_0>(kernels, Rows());
    FillInt8<PanelFormat::kQ6_K>(kernels, Rows());
  }
};

}  // namespace fastgen::cpu
