// ReferenceModel: the logits of every architecture that the engine runs, computed naively in double
// precision: the oracle.
//
// No cache, no chunks, no kernels of the product: every weight is turned into doubles by code of
// its own, every position is computed from all positions before it. Only for small models; time
// grows with the square of the prompt.
// Thread rule: immutable after Load.
// Tested by tests/engine/model/golden_test.cc (against recorded results of another program).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "engine/model/checkpoint.h"
#include "engine/model/model_config.h"

namespace fastgen::testing {

class ReferenceModel {
 public:
  static ReferenceModel Load(const Checkpoint& checkpoint);

  // Logits after every token, [ids.size(), vocab] row-major.
  std::vector<double> Logits(absl::Span<const int32_t> ids) const;

 private:
  struct Matrix {
    int64_t rows = 0;
    int64_t cols = 0;
    std::vector<double> values;
  };
  const std::vector<double>& Values(const std::string& name) const;
  // The product with "<name>.weight", plus "<name>.bias" where there is one.
  std::vector<double> Multiply(const std::string& name, const std::vector<double>& x) const;
  std::vector<double> Norm(const std::string& name, const std::vector<double>& x) const;
  // Norms every head by the weights `norm`, where the model has them, and turns it to its position.
  void NormAndRotate(const std::string& norm, int64_t position, std::vector<double>* heads) const;
  // What RoPE divides pair i's frequency by.
  double FrequencyDivisor(int64_t i, double frequency) const;
  std::vector<double> Attend(int64_t layer, const std::vector<double>& q,
                             const std::vector<std::vector<double>>& keys,
                             const std::vector<std::vector<double>>& values) const;

  ModelConfig config_;
  std::map<std::string, Matrix> tensors_;  // a vector has one column
};

// Natural log of the softmax of one row of logits.
std::vector<double> LogSoftmax(absl::Span<const double> logits);

}  // namespace fastgen::testing
