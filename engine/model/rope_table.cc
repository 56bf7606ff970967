#include "engine/model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace fastgen {
namespace {

double Llama3Frequency(const RopeScaling& scaling, double frequency) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double turns = scaling.original_max_position / wavelength;
  if (turns > scaling.high_freq_factor) return frequency;
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  const double smooth =
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

// How far pair i is from turning as trained (0) to turning `factor` times slower (1).
class YarnRamp {
 public:
  explicit YarnRamp(const ModelConfig& config) {
    const RopeScaling& scaling = config.rope_scaling;
    const double head_dim = static_cast<double>(config.head_dim);
    const auto pair_of = [&](double turns) {
      return head_dim * std::log(scaling.original_max_position / (turns * 2 * std::numbers::pi)) /
             (2 * std::log(config.rope_theta));
    };
    double low = pair_of(scaling.beta_fast);
    double high = pair_of(scaling.beta_slow);
    if (scaling.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low_ = std::max(low, 0.0);
    high_ = std::min(high, head_dim - 1);
    // Published implementations part the two by this much where they meet.
    if (low_ == high_) high_ += 0.001;
  }
  double At(int64_t pair) const {
    return std::clamp((static_cast<double>(pair) - low_) / (high_ - low_), 0.0, 1.0);
  }

 private:
  double low_ = 0;
  double high_ = 0;
};

}  // namespace

std::vector<double> RopeFrequencies(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  std::vector<double> frequencies;
  for (int64_t i = 0; i < config.head_dim / 2; ++i) {
    double frequency = std::pow(
        config.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
    switch (scaling.kind) {
      case RopeScaling::Kind::kNone:
        break;
      case RopeScaling::Kind::kLinear:
        frequency /= scaling.factor;
        break;
      case RopeScaling::Kind::kLlama3:
        frequency = Llama3Frequency(scaling, frequency);
        break;
      case RopeScaling::Kind::kYarn: {
        const double slowed = YarnRamp(config).At(i);
        frequency = slowed * frequency / scaling.factor + (1 - slowed) * frequency;
        break;
      }
      case RopeScaling::Kind::kDivisors:
        frequency /= scaling.divisors[static_cast<size_t>(i)];
        break;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

double YarnAttentionFactor(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

void FillRopeTable(const ModelConfig& config, Tensor cos_sin) {
  CHECK(cos_sin.dtype == DType::kF32 && cos_sin.contiguous());
  CHECK_EQ(cos_sin.cols(), config.head_dim);
  const std::vector<double> frequencies = RopeFrequencies(config);
  const int64_t half = config.head_dim / 2;
  const double scale = config.rope_scaling.attention_factor;
  for (int64_t position = 0; position < cos_sin.rows(); ++position) {
    float* row = cos_sin.as<float>() + position * config.head_dim;
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * frequencies[static_cast<size_t>(i)];
      row[i] = static_cast<float>(scale * std::cos(angle));
      row[half + i] = static_cast<float>(scale * std::sin(angle));
    }
  }
}

}  // namespace fastgen
