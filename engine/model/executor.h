// Executor: runs a StepPlan on a device. Implemented by ModelExecutor and, in tests, by a fake with no model.
// Thread rule: engine thread only.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/schedule/step_plan.h"

namespace fastgen {

class Executor {
 public:
  virtual ~Executor() = default;

  // Computes the step: writes KV of every token, samples and scores what the plan asks for.
  // An error is a device error and final. REQUIRES: plan.num_tokens and the number of sequences within the limits the
  // executor was made with.
  virtual absl::StatusOr<StepResult> Run(const StepPlan& plan) = 0;
};

}  // namespace fastgen
