// The backends that this machine can run, and small conveniences for driving one with plain
// vectors.
//
// Every test of an op draws its backend from Backends(): each instruction set that the CPU has x
// both compute modes. Thread rule: the test's main thread.
#pragma once

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/make_backend.h"

namespace fastgen::testing {

inline std::vector<std::string> Paths() {
  std::vector<std::string> paths;
  for (cpu::Isa isa : cpu::kAllIsas) {
    if (cpu::HasIsa(isa)) paths.emplace_back(cpu::IsaName(isa));
  }
  return paths;
}

inline BackendOptions OptionsFor(const std::string& path, ComputeDType compute_dtype,
                                 int num_threads) {
  BackendOptions options;
  options.cpu_isa = path;
  options.compute_dtype = compute_dtype;
  options.num_threads = num_threads;
  return options;
}

inline std::vector<BackendOptions> Backends(int num_threads = 2) {
  std::vector<BackendOptions> all;
  for (const std::string& path : Paths()) {
    for (ComputeDType dtype : {ComputeDType::kAuto, ComputeDType::kF32}) {
      all.push_back(OptionsFor(path, dtype, num_threads));
    }
  }
  return all;
}

inline std::unique_ptr<Backend> Open(const BackendOptions& options) {
  auto backend = MakeBackend(options);
  CHECK(backend.ok()) << backend.status().ToString();
  Backend::Limits limits;
  limits.max_rows = 256;
  limits.max_cols = 2048;
  limits.max_context = 2048;
  limits.max_sequences = 16;
  limits.max_logit_rows = 16;
  limits.vocab = 300000;
  limits.attention = {8, 2, 128, 1, 0};
  limits.block_size = 16;
  const absl::Status reserved = (*backend)->Reserve(limits);
  CHECK(reserved.ok()) << reserved.ToString();
  return *std::move(backend);
}

inline Tensor View(std::vector<float>& values, int64_t rows, int64_t cols) {
  CHECK_EQ(static_cast<int64_t>(values.size()), rows * cols);
  return Tensor(values.data(), DType::kF32, {rows, cols});
}

inline std::vector<float> Gaussian(int64_t count, uint32_t seed, float deviation = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// sqrt(sum (a - b)^2 / sum b^2)
template <typename A, typename B>
double RelativeError(const std::vector<A>& a, const std::vector<B>& b) {
  CHECK_EQ(a.size(), b.size());
  double error = 0, norm = 1e-300;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    error += difference * difference;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(error / norm);
}

}  // namespace fastgen::testing

// base/check.h and Catch2 both define CHECK; from here on it is Catch2's. Include this header
// first.
#undef CHECK
#include <catch2/catch.hpp>
