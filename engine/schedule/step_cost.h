// StepCost: what a step costs, learnt from the steps that were measured.
//
// A step of n tokens takes about base + slope * n: weights are read once a step, arithmetic is per
// token. Both follow by least squares over the measured (n, duration), older ones weighing less by
// kDecay a step, so that the model follows a machine whose speed changes. Steps of one size only
// say nothing about the slope: it keeps its last value, 0 at first. A duration counts for at
// most kMaxJump times what was to be expected: a machine that was suspended teaches little, and a
// lasting change is followed all the same. The typical step is an average
// of recent durations, likewise decayed. Estimates err on the low side: attention over long
// contexts is not modelled. Thread rule: engine thread only; a copy is a value. Tested by
// tests/engine/schedule/step_cost_test.cc.
#pragma once

#include <cstdint>

namespace fastgen {

class StepCost {
 public:
  static constexpr double kDecay = 0.98;
  static constexpr double kMaxJump = 8;

  // REQUIRES: num_tokens >= 1, duration_us >= 0.
  void Observe(int32_t num_tokens, int64_t duration_us);

  bool is_known() const { return weight_ > 0; }
  // Both >= 0; 0 while nothing was observed.
  double base_us() const;
  double us_per_token() const { return slope_; }
  double typical_step_us() const;
  // Time to compute `num_tokens` in steps of at most `max_step_tokens`.
  double PrefillUs(int64_t num_tokens, int32_t max_step_tokens) const;

 private:
  // Decayed sums of 1, n, n^2, t, n * t.
  double weight_ = 0;
  double sum_n_ = 0;
  double sum_nn_ = 0;
  double sum_t_ = 0;
  double sum_nt_ = 0;
  double slope_ = 0;
};

}  // namespace fastgen
