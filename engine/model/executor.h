// Executor: runs StepPlans on a device, in order. Implemented by ModelExecutor and, in tests, by a fake with no model.
// Thread rule: one thread, the rank thread (engine/rank_thread.h).
#pragma once

#include "absl/status/status.h"
#include "engine/schedule/step_plan.h"

namespace fastgen {

class Executor {
 public:
  virtual ~Executor() = default;

  // Computes the step: moves the plan's KV blocks, writes KV of every token, samples and scores what the plan asks for.
  // `result` is overwritten; its storage is used again, so that a caller that keeps it sees no allocation in a steady
  // decode. An error is a device error and final.
  // REQUIRES: plan.step follows the last one run; num_tokens and the number of sequences within the limits that the
  // executor was made with.
  virtual absl::Status Run(const StepPlan& plan, StepResult* result) = 0;

  // Measured at start-up: microseconds that moving one token's KV between device and host memory takes, one way.
  // 0 without a host tier.
  virtual double page_us_per_token() const { return 0; }
};

}  // namespace fastgen
