#include "tests/testing/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "tests/testing/reference_blocks.h"

namespace fastgen::testing {
namespace {

uint16_t Half(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }

// IEEE binary16 by its definition.
double F16(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  const double sign = bits >> 15 != 0 ? -1 : 1;
  if (exponent == 31)
    return fraction != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

double F32(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void DequantizeBlock(DType dtype, const uint8_t* block, double* out) {
  switch (dtype) {
    case DType::kF32: {
      uint32_t bits;
      std::memcpy(&bits, block, 4);
      *out = F32(bits);
      return;
    }
    case DType::kF16:
      *out = F16(Half(block));
      return;
    case DType::kBF16:
      *out = F32(uint32_t{Half(block)} << 16);
      return;
    default:
      for (int i = 0; i < Info(dtype).block_elements; ++i) out[i] = BlockElement(dtype, block, i);
      return;
  }
}

}  // namespace

std::vector<double> DequantizedRow(const MatrixSource& source, int64_t row) {
  const DTypeInfo info = Info(source.dtype);
  const int64_t from = source.row_order.empty() ? row : source.row_order[row];
  const uint8_t* bytes =
      static_cast<const uint8_t*>(source.data) + from * BytesOf(source.dtype, source.cols);
  std::vector<double> out(source.cols);
  for (int64_t k = 0; k < source.cols; k += info.block_elements, bytes += info.block_bytes) {
    DequantizeBlock(source.dtype, bytes, &out[k]);
  }
  return out;
}

std::vector<double> ReferenceMatMul(const std::vector<float>& x, int64_t rows,
                                    const MatrixSource& source) {
  std::vector<double> out(rows * source.rows);
  for (int64_t n = 0; n < source.rows; ++n) {
    const std::vector<double> w = DequantizedRow(source, n);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t k = 0; k < source.cols; ++k) sum += x[r * source.cols + k] * w[k];
      out[r * source.rows + n] = sum;
    }
  }
  return out;
}

std::vector<double> ReferenceRmsNorm(const std::vector<float>& x, const std::vector<float>& weight,
                                     double eps) {
  const size_t hidden = weight.size();
  std::vector<double> out(x.size());
  for (size_t row = 0; row < x.size() / hidden; ++row) {
    double sum = 0;
    for (size_t i = 0; i < hidden; ++i) sum += double{x[row * hidden + i]} * x[row * hidden + i];
    const double root = std::sqrt(sum / static_cast<double>(hidden) + eps);
    for (size_t i = 0; i < hidden; ++i)
      out[row * hidden + i] = x[row * hidden + i] / root * weight[i];
  }
  return out;
}

std::vector<double> ReferenceRmsNormQueriesAndKeys(const std::vector<float>& qkv,
                                                   const AttentionShape& shape,
                                                   const std::vector<float>& q_weight,
                                                   const std::vector<float>& k_weight, double eps) {
  std::vector<double> out;
  const size_t dim = static_cast<size_t>(shape.head_dim);
  const int64_t heads = shape.q_heads + 2 * shape.kv_heads;
  for (size_t at = 0; at < qkv.size(); at += dim) {
    const std::vector<float> head(qkv.begin() + static_cast<int64_t>(at),
                                  qkv.begin() + static_cast<int64_t>(at + dim));
    const int64_t index = static_cast<int64_t>(at / dim) % heads;
    const std::vector<double> normed = index < shape.q_heads ? ReferenceRmsNorm(head, q_weight, eps)
                                       : index < shape.q_heads + shape.kv_heads
                                           ? ReferenceRmsNorm(head, k_weight, eps)
                                           : std::vector<double>(head.begin(), head.end());
    out.insert(out.end(), normed.begin(), normed.end());
  }
  return out;
}

std::vector<double> ReferenceSiluMul(const std::vector<float>& gate_up, int64_t ffn) {
  const int64_t rows = static_cast<int64_t>(gate_up.size()) / (2 * ffn);
  std::vector<double> out(rows * ffn);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < ffn; ++i) {
      const double gate = gate_up[row * 2 * ffn + i];
      out[row * ffn + i] = gate / (1 + std::exp(-gate)) * gate_up[row * 2 * ffn + ffn + i];
    }
  }
  return out;
}

std::vector<double> ReferenceRope(const std::vector<double>& head,
                                  const std::vector<double>& cos_sin) {
  const size_t half = head.size() / 2;
  std::vector<double> out(head.size());
  for (size_t d = 0; d < half; ++d) {
    out[d] = head[d] * cos_sin[d] - head[d + half] * cos_sin[half + d];
    out[d + half] = head[d + half] * cos_sin[d] + head[d] * cos_sin[half + d];
  }
  return out;
}

std::vector<double> ReferenceAttention(const std::vector<double>& q, const std::vector<double>& k,
                                       const std::vector<double>& v, const AttentionShape& shape) {
  const int64_t dim = shape.head_dim;
  const int64_t length = static_cast<int64_t>(q.size()) / (shape.q_heads * dim);
  std::vector<double> out(q.size());
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t h = 0; h < shape.q_heads; ++h) {
      const int64_t kv = h / (shape.q_heads / shape.kv_heads);
      const int64_t first = shape.window > 0 ? std::max<int64_t>(0, i - shape.window + 1) : 0;
      std::vector<double> weights;
      for (int64_t j = first; j <= i; ++j) {
        double dot = 0;
        for (int64_t d = 0; d < dim; ++d) {
          dot += q[(i * shape.q_heads + h) * dim + d] * k[(j * shape.kv_heads + kv) * dim + d];
        }
        weights.push_back(dot * shape.scale);
      }
      const double max = *std::max_element(weights.begin(), weights.end());
      double sum = 0;
      for (double& weight : weights) sum += weight = std::exp(weight - max);
      for (int64_t d = 0; d < dim; ++d) {
        double value = 0;
        for (int64_t j = first; j <= i; ++j) {
          value += weights[j - first] / sum * v[(j * shape.kv_heads + kv) * dim + d];
        }
        out[(i * shape.q_heads + h) * dim + d] = value;
      }
    }
  }
  return out;
}

std::vector<double> ReferenceLogSoftmax(const std::vector<float>& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - max);
  std::vector<double> out;
  for (float logit : logits) out.push_back(logit - max - std::log(sum));
  return out;
}

std::vector<double> ReferenceRuledLogits(const std::vector<float>& logits, const SampleRow& row) {
  const double impossible = -std::numeric_limits<double>::infinity();
  std::vector<double> out(logits.begin(), logits.end());
  for (const TokenCount& seen : row.history) {
    double& logit = out[seen.token];
    logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    if (seen.count > 0) logit -= double{row.frequency_penalty} * seen.count + row.presence_penalty;
  }
  for (const LogitBias& entry : row.logit_bias) out[entry.token] += entry.bias;
  for (size_t id = 0; id < out.size() && !row.allowed_mask.empty(); ++id) {
    if ((row.allowed_mask[id / 32] & 1u << id % 32) == 0) out[id] = impossible;
  }
  for (int32_t id : row.banned_tokens) out[id] = impossible;
  return out;
}

std::vector<double> ReferenceDistribution(const std::vector<float>& logits, const SampleRow& row) {
  std::vector<double> scaled = ReferenceRuledLogits(logits, row);
  for (double& logit : scaled) logit /= row.temperature;
  std::vector<size_t> best_first(scaled.size());
  std::iota(best_first.begin(), best_first.end(), 0);
  std::stable_sort(best_first.begin(), best_first.end(),
                   [&](size_t a, size_t b) { return scaled[a] > scaled[b]; });
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < best_first.size())
    best_first.resize(row.top_k);
  const double max = scaled[best_first[0]];
  double sum = 0;
  for (size_t id : best_first) sum += std::exp(scaled[id] - max);
  std::vector<double> out(scaled.size());
  double mass = 0, kept = 0;
  for (size_t id : best_first) {
    const double weight = std::exp(scaled[id] - max);
    if (row.top_p < 1 && mass >= row.top_p * sum && mass > 0) break;
    mass += weight;
    if (weight < row.min_p) continue;
    out[id] = weight;
    kept += weight;
  }
  for (double& p : out) p /= kept;
  return out;
}

}  // namespace fastgen::testing
