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

  // Byte b of lane n = the integer of k = 4 step + b; `group` is moved to the lanes' outputs.
  template <PanelFormat kFormat>
  static I StepBytes(const uint8_t* group, int step) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    const int half = step / 4, j = step % 4;
    if constexpr (kTraits.bits == 8) return V::LoadInt(group + 64 * step);
    I q = {};
    if constexpr (kTraits.has_nibbles()) {
      q = (V::LoadInt(group + 64 * j) >> (4 * half)) & 0x0f0f0f0f;
    }
    if constexpr (kTraits.has_pairs()) {
      const I pairs = V::LoadInt(group + kTraits.pairs_offset() + 64 * half);
      q |= ((pairs >> (2 * j)) & 0x03030303) << kTraits.pairs_shift();
    }
    if constexpr (kTraits.has_bits()) {
      const I bits = V::LoadInt(group + kTraits.bits_offset());
      q |= ((bits >> step) & 0x01010101) << kTraits.bits_shift();
    }
    return q;
  }

  // w[k][16] = the stored integers (of a table: its values), k < 32, without scale or offset.
  template <PanelFormat kFormat>
  static void UnpackGroup(const uint8_t* group, float* w) {
    for (int part = 0; part < kParts; ++part) {
      float* out = w + part * kLanes;
      for (int step = 0; step < 8; ++step) {
        const I bytes = StepBytes<kFormat>(group + 4 * part * kLanes, step);
        for (int b = 0; b < 4; ++b, out += kPanelOutputs) {
          const I q = (bytes >> (8 * b)) & 255;
          V::Store(out, TraitsOf(kFormat).is_table ? V::LookUp(q) : V::ToFloat(q));
        }
      }
    }
  }

  // d and m of a block for outputs [part * kLanes, ..).
  static F HeaderScale(const uint8_t* header, int part) {
    return V::LoadF16(header + 2 * part * kLanes);
  }
  static F HeaderMinimum(const uint8_t* header, int part) {
    return V::LoadF16(header + kMinimumOffset + 2 * part * kLanes);
  }

  // Scale of outputs [part * kLanes, ..) for k in half `half` of the group.
  template <PanelFormat kFormat>
  static F GroupScale(const uint8_t* header, const uint8_t* group, int part, int half) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    const F d = HeaderScale(header, part);
    if constexpr (kTraits.halves == 0) return d;
    const uint8_t* scales =
        group + kTraits.scales_offset() + (kTraits.halves == 2 ? 16 * half : 0) + part * kLanes;
    float s[kLanes];
    for (int i = 0; i < kLanes; ++i) s[i] = static_cast<int8_t>(scales[i]);
    return d * V::Load(s);
  }

  // Likewise what is added to scale * integer.
  template <PanelFormat kFormat>
  static F GroupMinimum(const uint8_t* header, const uint8_t* group, int part, int half) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    if constexpr (!kTraits.has_minimum) return V::Zero();
    const F m = HeaderMinimum(header, part);
    if constexpr (kTraits.halves == 0) return m;
    const uint8_t* minimums =
        group + kTraits.minimums_offset() + (kTraits.halves == 2 ? 16 * half : 0) + part * kLanes;
    float s[kLanes];
    for (int i = 0; i < kLanes; ++i) s[i] = -static_cast<float>(minimums[i]);
    return m * V::Load(s);
  }

  // Turns the integers of UnpackGroup into weights.
  template <PanelFormat kFormat>
  static void ScaleGroup(const uint8_t* header, const uint8_t* group, float* w) {
    constexpr float kOffset = static_cast<float>(TraitsOf(kFormat).zero_point);
    for (int part = 0; part < kParts; ++part) {
      for (int half = 0; half < 2; ++half) {
        const F d = GroupScale<kFormat>(header, group, part, half);
        const F m = GroupMinimum<kFormat>(header, group, part, half);
        for (int k = 16 * half; k < 16 * half + 16; ++k) {
          float* at = w + k * kPanelOutputs + part * kLanes;
          V::Store(at, V::MulAdd(V::Load(at) - kOffset, d, m));
        }
      }
    }
  }

  // Calls use(header, group) for each group of a panel, k ascending.
  template <PanelFormat kFormat, typename Use>
  static void ForGroups(const uint8_t* panel, int64_t cols, Use&& use) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    for (int64_t left = cols / kGroup; left > 0; left -= kTraits.groups_per_block) {
      const uint8_t* header = panel;
      panel += kTraits.header_bytes();
      const int64_t groups = left < kTraits.groups_per_block ? left : kTraits.groups_per_block;
      for (int64_t g = 0; g < groups; ++g, panel += kTraits.group_bytes()) use(header, panel);
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
    } else {  // kBF16 and kFp8
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
  static void FloatBlock(const uint8_t* panel, int64_t ahead, const float* x, int stride,
                         int64_t cols, float* y) {
    F acc[B][kParts] = {};
    if constexpr (IsIntegerFormat(kFormat)) {
      alignas(64) float w[kGroup * kPanelOutputs];
      ForGroups<kFormat>(panel, cols, [&](const uint8_t* header, const uint8_t* group) {
        PrefetchAhead<TraitsOf(kFormat).group_bytes()>(group, ahead);
        UnpackGroup<kFormat>(group, w);
        ScaleGroup<kFormat>(header, group, w);
        for (int k = 0; k < kGroup; ++k, x += stride) {
          for (int part = 0; part < kParts; ++part) {
            Accumulate<B>(V::Load(w + k * kPanelOutputs + part * kLanes), part, x, acc);
          }
        }
      });
    } else {
      int64_t k = 0;
      constexpr int kPairBytes = kFormat == PanelFormat::kF32 ? 128 : 64;
      for (; k + 2 <= cols; k += 2, x += 2 * stride) {
        PrefetchAhead<kPairBytes>(panel + k / 2 * kPairBytes, ahead);
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
    // Unrolled early, or g++ 12 keeps the sums of more than 4 rows in memory meanwhile.
#pragma GCC unroll 8
    for (int r = 0; r < B; ++r) {
      for (int part = 0; part < kParts; ++part) {
        V::Store(y + r * kPanelOutputs + part * kLanes, acc[r][part]);
      }
    }
  }

  template <PanelFormat kFormat, int R>
  static void FloatTile(const uint8_t* panel, int64_t ahead, const void* x, int64_t cols,
                        float* y) {
    // As many rows at once as the register file holds sums of.
    constexpr int kRows = R < V::kFloatRows ? R : V::kFloatRows;
    constexpr int kRest = R % kRows;
    const float* rows = static_cast<const float*>(x);
    for (int r = 0; r + kRows <= R; r += kRows, ahead = 0) {
      FloatBlock<kFormat, kRows>(panel, ahead, rows + r, R, cols, y + r * kPanelOutputs);
    }
    if constexpr (kRest > 0) {
      FloatBlock<kFormat, kRest>(panel, 0, rows + R - kRest, R, cols,
                                 y + (R - kRest) * kPanelOutputs);
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
  static void Int8Row(const uint8_t* header, const uint8_t* block, const float* w,
                      const Int8Group<R>& group, int r, float* y) {
    constexpr PanelTraits kTraits = TraitsOf(kFormat);
    constexpr int kHalves = kTraits.halves == 2 ? 2 : 1;
    constexpr float kOffset = static_cast<float>(kTraits.zero_point);
    for (int part = 0; part < kParts; ++part) {
      F sum = V::Load(y + part * kLanes);
      for (int half = 0; half < kHalves; ++half) {
        F dot = V::Zero();
        for (int k = half * 16; k < (kHalves == 1 ? kGroup : 16 * half + 16); ++k) {
          dot = V::MulAdd(V::Load(w + k * kPanelOutputs + part * kLanes),
                          V::Set1(static_cast<float>(group.q[k / 4][r][k % 4])), dot);
        }
        const int32_t minus_32_sum = group.minus_32_sum[half][r];
        // Powers of two: exact.
        if constexpr (kHalves == 2) dot += static_cast<float>(minus_32_sum) * (kOffset / 32);
        if constexpr (kHalves == 1) {
          dot += static_cast<float>(group.minus_128_sum[r]) * (kOffset / 128);
        }
        sum = V::FusedMulAdd(dot * group.scale[r], GroupScale<kFormat>(header, block, part, half),
                             sum);
        if constexpr (kTraits.has_minimum) {
          const F m = GroupMinimum<kFormat>(header, block, part, half);
          const float scaled_sum =
              kHalves == 1 ? group.scaled_sum[r]
                           : group.scale[r] * (static_cast<float>(minus_32_sum) * -0.03125f);
          sum = V::FusedMulAdd(m, V::Set1(scaled_sum), sum);
        }
      }
      V::Store(y + part * kLanes, sum);
    }
  }

  template <PanelFormat kFormat, int R>
  static void Int8Tile(const uint8_t* panel, int64_t, const void* x, int64_t cols, float* y) {
    alignas(64) float w[kGroup * kPanelOutputs];
    const Int8Group<R>* activations = static_cast<const Int8Group<R>*>(x);
    for (int i = 0; i < R * kPanelOutputs; ++i) y[i] = 0;
    ForGroups<kFormat>(panel, cols, [&](const uint8_t* header, const uint8_t* group) {
      UnpackGroup<kFormat>(group, w);
      for (int r = 0; r < R; ++r) {
        Int8Row<kFormat, R>(header, group, w, *activations, r, y + r * kPanelOutputs);
      }
      ++activations;
    });
  }

  // ---- fp8 activations ----

  static F Clamp(F v, float limit) {
    const F high = Set(limit), low = Set(-limit);
    v = v < high ? v : high;
    return v > low ? v : low;
  }
  static F Set(float x) { return V::Set1(x); }

  // As float_bits.h's RoundToE4m3, of numbers.
  static F RoundToE4m3(F v) {
    v = Clamp(v, 448.0f);
    const I bits = (I)v;
    const F normal = (F)((bits + 0x7ffff + ((bits >> 20) & 1)) & static_cast<int32_t>(0xfff00000));
    const F shift = (F)((bits & static_cast<int32_t>(0x80000000)) | 0x46800000);  // +- 2^14
    const F subnormal = (v + shift) - shift;
    return V::Abs(v) < Set(0x1p-6f) ? subnormal : normal;
  }

  // Rounds a row to e4m3 in out[cols]; returns its scale, NaN if the row holds a NaN or infinity.
  static float QuantizeFp8Row(const float* x, int64_t cols, float* out) {
    float max = 0, taint = 0;
    for (int64_t k = 0; k < cols; ++k) {
      const float magnitude = x[k] < 0 ? -x[k] : x[k];
      max = max < magnitude ? magnitude : max;
      taint += x[k] * 0.0f;
    }
    if (taint != 0 || taint != taint) {
      for (int64_t k = 0; k < cols; ++k) out[k] = 0;
      return taint;
    }
    max = max < kMinFp8RowMax ? kMinFp8RowMax : max > kMaxFp8RowMax ? kMaxFp8RowMax : max;
    const float inverse = 448.0f / max;
    int64_t k = 0;
    for (; k + kLanes <= cols; k += kLanes) {
      V::Store(out + k, RoundToE4m3(V::Load(x + k) * inverse));
    }
    float rest[kLanes] = {};
    for (int64_t i = k; i < cols; ++i) rest[i - k] = x[i];
    V::Store(rest, RoundToE4m3(V::Load(rest) * inverse));
    for (int64_t i = k; i < cols; ++i) out[i] = rest[i - k];
    return max / 448.0f;
  }

  // ---- tables ----

  template <PanelFormat kFormat, int... kRows>
  static void FillFloat(MatMulKernels* kernels, std::integer_sequence<int, kRows...>) {
    ((kernels->float_tile[static_cast<int>(kFormat)][kRows] = FloatTile<kFormat, kRows + 1>), ...);
  }
  template <int... kFormats>
  static void FillFloatFormats(MatMulKernels* kernels, std::integer_sequence<int, kFormats...>) {
    (FillFloat<static_cast<PanelFormat>(kFormats)>(kernels,
                                                   std::make_integer_sequence<int, kTileRows>()),
     ...);
  }

  // Also what all paths share: preparing activations, storing sums.
  static void FillFloat(MatMulKernels* kernels) {
    FillFloatFormats(kernels, std::make_integer_sequence<int, kNumPanelFormats>());
    kernels->prepare_float = PrepareFloat;
    kernels->prepare_int8 = PrepareInt8;
    kernels->quantize_fp8 = QuantizeFp8Row;
    kernels->store = StoreSums;
  }

  template <PanelFormat kFormat, int... kRows>
  static void FillInt8(MatMulKernels* kernels, std::integer_sequence<int, kRows...>) {
    ((kernels->int8_tile[static_cast<int>(kFormat)][kRows] = Int8Tile<kFormat, kRows + 1>), ...);
  }
  template <int... kFormats>
  static void FillInt8Formats(MatMulKernels* kernels, std::integer_sequence<int, kFormats...>) {
    (FillInt8<static_cast<PanelFormat>(kFirstIntegerFormat + kFormats)>(
         kernels, std::make_integer_sequence<int, kTileRows>()),
     ...);
  }

  static void FillInt8(MatMulKernels* kernels) {
    FillInt8Formats(kernels, std::make_integer_sequence<int, kNumIntegerFormats>());
  }
};

}  // namespace fastgen::cpu
