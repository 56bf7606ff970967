// ModelExecutor: a model on a backend, as the Executor that the step loop drives.
//
// Run: plan -> StepInputs -> Transformer::Forward -> pieces of at most max_logit_rows logit rows ->
// SampleRows -> one Synchronize -> StepResult. Scoring a whole prompt goes through the same pieces,
// so the workspace is bounded however long the prompt is.
// A row of logits that holds a NaN marks its sequence's result and no other.
// Thread rule: engine thread only.
// Tested by tests/engine/model/model_executor_test.cc and forward_test.cc.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/executor.h"
#include "engine/model/memory_plan.h"
#include "engine/model/model_config.h"
#include "engine/model/step_inputs.h"
#include "engine/model/transformer.h"
#include "engine/model/weights.h"
#include "kernels/backend.h"

namespace fastgen {

class ModelExecutor final : public Executor {
 public:
  // Takes all memory that `plan` names. `backend` must outlive the executor and serve no other.
  static absl::StatusOr<std::unique_ptr<ModelExecutor>> Create(Backend* backend, ModelConfig config,
                                                               Weights weights,
                                                               const MemoryPlan& plan);

  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;

 private:
  ModelExecutor(Backend* backend, Transformer transformer, const MemoryPlan& plan);
  // Sorts results_ into the answer.
  StepResult Collect(const StepPlan& plan);

  Backend* const backend_;
  Transformer transformer_;
  StepInputs inputs_;
  std::vector<SampleResult> results_;  // one a logit row
};

}  // namespace fastgen
