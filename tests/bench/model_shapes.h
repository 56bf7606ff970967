// The matrices and attention of three models, as the kernels see them: what kernels_bench measures.
//
// SmolLM2-135M as the default model holds it (Q4_1, head Q8_0), a 1B and an 8B model of Llama 3's
// shapes as a Q4_0 file holds them (the head Q6_K). q, k and v are one matrix, gate and up another:
// so the engine stacks them. "formats" is one matrix of the 1B in every type that is read or
// rounded to.
// Thread rule: constants.
// Tested by the smoke run of kernels_bench (tests/bench/CMakeLists.txt).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace fastgen::bench {

struct MatrixShape {
  std::string name;
  DType dtype = DType::kF32;
  int64_t rows = 0;  // outputs
  int64_t cols = 0;
  WeightForm form = WeightForm::kAsStored;
  // Only rows that are sampled pass it: no figures beyond kMaxHeadRows.
  bool is_head = false;
};
inline constexpr int64_t kMaxHeadRows = 128;

struct ModelShape {
  std::string name;
  std::vector<MatrixShape> matrices;
  AttentionShape attention;  // q_heads 0: none is measured
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
};

inline ModelShape MakeModel(const std::string& name, DType dtype, DType head, int64_t hidden,
                            int64_t ffn, const AttentionShape& attention, int64_t vocab) {
  const int64_t q_width = attention.q_heads * attention.head_dim;
  const int64_t qkv_width = q_width + 2 * attention.kv_heads * attention.head_dim;
  return {name,
          {{"qkv", dtype, qkv_width, hidden},
           {"o", dtype, hidden, q_width},
           {"gate_up", dtype, 2 * ffn, hidden},
           {"down", dtype, hidden, ffn},
           {"head", head, vocab, hidden, WeightForm::kAsStored, true}},
          attention,
          hidden,
          ffn,
          vocab};
}

inline ModelShape EveryFormat() {
  ModelShape model;
  model.name = "formats";
  for (DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                      DType::kIQ4_NL, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K,
                      DType::kQ6_K, DType::kIQ4_XS, DType::kBF16, DType::kF16, DType::kF32}) {
    model.matrices.push_back({"8192x2048", dtype, 8192, 2048});
  }
  for (WeightForm form : {WeightForm::kInt8Group32, WeightForm::kInt8Group128,
                          WeightForm::kInt4Group32, WeightForm::kInt4Group128}) {
    model.matrices.push_back({"8192x2048", DType::kBF16, 8192, 2048, form});
  }
  return model;
}

inline std::vector<ModelShape> AllModels() {
  return {MakeModel("smollm2", DType::kQ4_1, DType::kQ8_0, 576, 1536, {9, 3, 64, 0.125f, 0}, 49152),
          MakeModel("1b", DType::kQ4_0, DType::kQ6_K, 2048, 8192, {32, 8, 64, 0.125f, 0}, 128256),
          MakeModel("8b", DType::kQ4_0, DType::kQ6_K, 4096, 14336, {32, 8, 128, 0.088f, 0}, 128256),
          EveryFormat()};
}

}  // namespace fastgen::bench
