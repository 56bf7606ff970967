#include "engine/schedule/step_cost.h"

#include <algorithm>

#include "base/check.h"

namespace fastgen {

void StepCost::Observe(int32_t num_tokens, int64_t duration_us) {
  CHECK_GE(num_tokens, 1);
  CHECK_GE(duration_us, 0);
  const double n = num_tokens;
  double t = static_cast<double>(duration_us);
  // Relative to what the model expects of this many tokens, or it would distrust long chunks after
  // short decodes.
  if (is_known() && sum_t_ > 0) {
    t = std::min(t, kMaxJump * std::max(base_us() + slope_ * n, sum_t_ / sum_n_ * n));
  }
  weight_ = weight_ * kDecay + 1;
  sum_n_ = sum_n_ * kDecay + n;
  sum_nn_ = sum_nn_ * kDecay + n * n;
  sum_t_ = sum_t_ * kDecay + t;
  sum_nt_ = sum_nt_ * kDecay + n * t;
  const double variance = sum_nn_ * weight_ - sum_n_ * sum_n_;
  // A relative spread below 1 % is one size.
  if (variance <= 1e-4 * sum_nn_ * weight_) return;
  // Costs of tokens lie between none and all of what was measured.
  slope_ = std::clamp((sum_nt_ * weight_ - sum_n_ * sum_t_) / variance, 0.0, sum_t_ / sum_n_);
}

double StepCost::base_us() const {
  return is_known() ? std::max(0.0, (sum_t_ - slope_ * sum_n_) / weight_) : 0;
}

double StepCost::typical_step_us() const { return is_known() ? sum_t_ / weight_ : 0; }

double StepCost::PrefillUs(int64_t num_tokens, int32_t max_step_tokens) const {
  const int64_t num_steps = (num_tokens + max_step_tokens - 1) / max_step_tokens;
  return base_us() * static_cast<double>(num_steps) + slope_ * static_cast<double>(num_tokens);
}

}  // namespace fastgen
