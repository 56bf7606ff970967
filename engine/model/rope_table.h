// RoPE tables: cos and sin of every position's angles, computed in double, stored in fp32.
//
//   angle(p, i) = p * f(i),  f(i) = theta^(-2 i / head_dim), i in [0, head_dim / 2)
// and f scaled as the model was trained:
//   linear    f / factor
//   llama3    by wavelength w = 2 pi / f against the original context c: f where w < c / high,
//             f / factor where w > c / low, and between them (1 - s) * f / factor + s * f with
//             s = (c / w - low) / (high - low)
//   yarn      g(i) * f / factor + (1 - g(i)) * f, where g climbs from 0 to 1 between the pairs that
//             make beta_fast and beta_slow turns within c: pair(t) = d ln(c / (2 pi t)) / (2 ln
//             theta); cos and sin are multiplied by attention_factor (arXiv 2309.00071)
//   divisors  f(i) / divisors[i]
// Thread rule: pure.
// Tested by tests/engine/model/rope_table_test.cc.
#pragma once

#include <vector>

#include "engine/model/model_config.h"
#include "kernels/tensor.h"

namespace fastgen {

// [head_dim / 2] angles a position. REQUIRES: CheckConfig holds.
std::vector<double> RopeFrequencies(const ModelConfig& config);

// YaRN's attention factor where a model gives none: 0.1 mscale ln(factor) + 1.
double YarnAttentionFactor(double factor, double mscale);

// Fills `cos_sin`, in the layout that Backend::RopeAndWriteKv reads.
void FillRopeTable(const ModelConfig& config,
                   Tensor cos_sin);  // [positions, head_dim] f32 in host memory

}  // namespace fastgen
