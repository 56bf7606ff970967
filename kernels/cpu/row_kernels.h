// Row kernels as templates over a path (simd.h): RMSNorm, SiLU, RoPE, and the scans of
// sampling.
//
// Sums run over lanes with a fixed tree at the end; what does not fill a vector is added one by one
// after it. Thread rule: pure functions. Tested by tests/kernels/row_ops_test.cc and
// sampling_test.cc.
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"

namespace fastgen::cpu {

template <typename V>
struct RowTemplates {
  using F = typename V::F;
  static constexpr int kLanes = V::kLanes;

  // Loads x[0, count) and fills the rest of the vector.
  static F LoadSome(const float* x, int64_t count, float fill) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = i < count ? x[i] : fill;
    return V::Load(lanes);
  }
  static void StoreSome(float* x, int64_t count, F v) {
    float lanes[kLanes];
    V::Store(lanes, v);
    for (int64_t i = 0; i < count; ++i) x[i] = lanes[i];
  }

  static float InverseRms(const float* x, int64_t count, float eps) {
    F sums[2] = {};
    int64_t i = 0;
    for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
      const F a = V::Load(x + i);
      const F b = V::Load(x + i + kLanes);
      sums[0] = V::MulAdd(a, a, sums[0]);
      sums[1] = V::MulAdd(b, b, sums[1]);
    }
    float sum = V::ReduceAdd(sums[0] + sums[1]);
    for (; i < count; ++i) sum += x[i] * x[i];
    return 1.0f / __builtin_sqrtf(sum / static_cast<float>(count) + eps);
  }

  static void Scale(const float* x, float factor, const float* weight, int64_t count, float* out) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      V::Store(out + i, V::Load(x + i) * factor * V::Load(weight + i));
    }
    for (; i < count; ++i) out[i] = x[i] * factor * weight[i];
  }

  static F Silu(F x) {
    const F exponent = -x > 88.0f ? V::Set1(88.0f) : -x;
    return x / (1.0f + V::Exp(exponent));
  }

  static void SiluMul(const float* gate, const float* up, int64_t count, float* out) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
      V::Store(out + i, Silu(V::Load(gate + i)) * V::Load(up + i));
    if (i == count) return;
    const int64_t rest = count - i;
    StoreSome(out + i, rest, Silu(LoadSome(gate + i, rest, 0)) * LoadSome(up + i, rest, 0));
  }

  static void Rope(float* x, const float* cos_sin, int64_t num_heads, int64_t head_dim) {
    const int64_t half = head_dim / 2;
    const float* __restrict cosine = cos_sin;
    const float* __restrict sine = cos_sin + half;
    for (int64_t head = 0; head < num_heads; ++head, x += head_dim) {
      float* __restrict low = x;
      float* __restrict high = x + half;
      for (int64_t d = 0; d < half; ++d) {
        const float a = low[d], b = high[d];
        low[d] = a * cosine[d] - b * sine[d];
        high[d] = b * cosine[d] + a * sine[d];
      }
    }
  }

  // ---- sampling ----

  // Calls body(vector, first, valid) for the vectors of [begin, end); lanes past the end hold
  // `fill`.
  template <typename Body>
  static void ForVectors(const float* x, int64_t begin, int64_t end, float fill, Body&& body) {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) body(V::Load(x + i), i, static_cast<int64_t>(kLanes));
    if (i < end) body(LoadSome(x + i, end - i, fill), i, end - i);
  }

  static bool ChunkMaxima(const float* logits, int64_t count, float* maxima) {
    const float lowest = -__builtin_inff();
    F taint = V::Zero();  // NaN in a lane that has seen one
    for (int64_t begin = 0; begin < count; begin += kSampleChunk) {
      const int64_t end = begin + kSampleChunk < count ? begin + kSampleChunk : count;
      F best = V::Set1(lowest);
      ForVectors(logits, begin, end, lowest, [&](F v, int64_t, int64_t) {
        best = V::Max(v, best);
        taint = v == v ? taint : v;
      });
      maxima[begin / kSampleChunk] = V::ReduceMax(best);
    }
    const float sum = V::ReduceAdd(taint);
    return sum != sum;
  }

  // Bit (lane + shift) of `word` decides on each lane.
  static F Select(F v, uint32_t word, int shift) {
    typename V::I bits;
    for (int lane = 0; lane < kLanes; ++lane) bits[lane] = 1 << lane;
    const typename V::I chosen = bits & static_cast<int32_t>(word >> shift);
    return chosen != 0 ? v : V::Set1(-__builtin_inff());
  }

  static void Mask(const float* logits, const uint32_t* mask, int64_t count, float* out,
                   float* maxima) {
    static_assert(kSampleChunk % 32 == 0 && 32 % kLanes == 0);
    const float lowest = -__builtin_inff();
    for (int64_t begin = 0; begin < count; begin += kSampleChunk) {
      const int64_t end = begin + kSampleChunk < count ? begin + kSampleChunk : count;
      uint32_t any = 0;
      for (int64_t i = begin; i < end; i += 32) any |= mask[i / 32];
      if (any == 0) {  // most chunks, under a grammar
        for (int64_t i = begin; i < end; ++i) out[i] = lowest;
        maxima[begin / kSampleChunk] = lowest;
        continue;
      }
      F best = V::Set1(lowest);
      ForVectors(logits, begin, end, lowest, [&](F v, int64_t i, int64_t valid) {
        const F allowed = Select(v, mask[i / 32], static_cast<int>(i % 32));
        best = V::Max(allowed, best);
        if (valid == kLanes) {
          V::Store(out + i, allowed);
        } else {
          StoreSome(out + i, valid, allowed);
        }
      });
      maxima[begin / kSampleChunk] = V::ReduceMax(best);
    }
  }

  static double SumExp(const float* logits, int64_t count, float max) {
    double sum = 0;
    for (int64_t begin = 0; begin < count; begin += kSampleChunk) {
      const int64_t end = begin + kSampleChunk < count ? begin + kSampleChunk : count;
      F part = V::Zero();
      ForVectors(logits, begin, end, -__builtin_inff(),
                 [&](F v, int64_t, int64_t) { part += V::Exp(v - max); });
      sum += static_cast<double>(V::ReduceAdd(part));
    }
    return sum;
  }

  static double Weigh(const float* logits, int64_t count, float max, float temperature,
                      float* weights, float* sums) {
    double sum = 0;
    for (int64_t begin = 0; begin < count; begin += kSampleChunk) {
      const int64_t end = begin + kSampleChunk < count ? begin + kSampleChunk : count;
      F part = V::Zero();
      ForVectors(logits, begin, end, -__builtin_inff(), [&](F v, int64_t i, int64_t valid) {
        const F weight = V::Exp((v - max) / temperature);
        part += weight;
        if (valid == kLanes) {
          V::Store(weights + i, weight);
        } else {
          StoreSome(weights + i, valid, weight);
        }
      });
      sums[begin / kSampleChunk] = V::ReduceAdd(part);
      sum += static_cast<double>(sums[begin / kSampleChunk]);
    }
    return sum;
  }

  static int64_t CountAbove(const float* logits, int64_t count, float threshold) {
    typename V::I counts = {};
    ForVectors(logits, 0, count, -__builtin_inff(),
               [&](F v, int64_t, int64_t) { counts -= v > threshold; });
    int64_t total = 0;
    for (int i = 0; i < kLanes; ++i) total += counts[i];
    return total;
  }

  static void Fill(RowKernels* rows) {
    rows->inverse_rms = InverseRms;
    rows->scale = Scale;
    rows->silu_mul = SiluMul;
    rows->rope = Rope;
    rows->chunk_maxima = ChunkMaxima;
    rows->mask = Mask;
    rows->sum_exp = SumExp;
    rows->weigh = Weigh;
    rows->count_above = CountAbove;
  }
};

}  // namespace fastgen::cpu
