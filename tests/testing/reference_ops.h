// Oracles of the backend's ops: naive loops in double precision, written from kernels/backend.h and
// the formats' own descriptions, sharing no code with kernels/cpu or kernels/cuda.
//
// Everything is plain vectors, row-major. They are slow on purpose: clarity is their only merit.
// Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace fastgen::testing {

// Row `row` of the matrix as its file defines it (row_order applied).
std::vector<double> DequantizedRow(const MatrixSource& source, int64_t row);

// x [rows, k], source [n, k] -> [rows, n]
std::vector<double> ReferenceMatMul(const std::vector<float>& x,
                                    int64_t rows,
                                    const MatrixSource& source);

std::vector<double> ReferenceRmsNorm(const std::vector<float>& x,       // [rows, hidden]
                                     const std::vector<float>& weight,  // [hidden]
                                     double eps);

// Every head of q and k of [rows, q_heads + 2 * kv_heads, head_dim] normed on its own.
std::vector<double> ReferenceRmsNormQueriesAndKeys(const std::vector<float>& qkv,
                                                   const AttentionShape& shape,
                                                   const std::vector<float>& q_weight,
                                                   const std::vector<float>& k_weight,
                                                   double eps);

std::vector<double> ReferenceSiluMul(const std::vector<float>& gate_up,  // [rows, 2 * ffn]
                                     int64_t ffn);

// Half-split rotation of one head, angles given as cos and sin per pair.
std::vector<double> ReferenceRope(const std::vector<double>& head,     // [head_dim]
                                  const std::vector<double>& cos_sin);  // [head_dim]: cos | sin

// One sequence whose query i is position i (all positions are queries).
// q [length, q_heads, head_dim], k and v [length, kv_heads, head_dim]
// -> [length, q_heads, head_dim]
std::vector<double> ReferenceAttention(const std::vector<double>& q,
                                       const std::vector<double>& k,
                                       const std::vector<double>& v,
                                       const AttentionShape& shape);

// Log-softmax of one row.
std::vector<double> ReferenceLogSoftmax(const std::vector<float>& logits);

// The logits after penalties, bias, mask and banned tokens; -infinity where a token cannot be
// chosen.
std::vector<double> ReferenceRuledLogits(const std::vector<float>& logits,
                                         const SampleRow& row);

// The probability of each token after those rules, temperature, top-k, top-p and min-p.
// REQUIRES: temperature > 0; a token is left.
std::vector<double> ReferenceDistribution(const std::vector<float>& logits,
                                          const SampleRow& row);

}  // namespace fastgen::testing
