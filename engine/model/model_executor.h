// ModelExecutor: a model on a backend, as the Executor that the step loop drives.
//
// Run: plan -> StepInputs -> Transformer::Forward (KV moves, then rows, layer by layer) -> pieces
// of at most max_logit_rows logit rows -> SampleRows -> one Synchronize -> StepResult. Scoring a
// whole prompt goes through the same pieces, so the workspace is bounded however long the prompt
// is. Kept from step to step: the ids that the last one sampled, for rows that were planned before
// they were known, and SamplingState. A row of logits that holds a NaN marks its sequence's result
// and no other. A decode step allocates nothing, once a step of as many rows has been. Thread rule:
// engine thread only. Tested by tests/engine/model/model_executor_test.cc, run_ahead_test.cc and
// forward_test.cc.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/executor.h"
#include "engine/model/memory_plan.h"
#include "engine/model/model_config.h"
#include "engine/model/sampling_state.h"
#include "engine/model/step_inputs.h"
#include "engine/model/transformer.h"
#include "engine/model/weights.h"
#include "kernels/backend.h"

namespace fastgen {

class ModelExecutor final : public Executor {
 public:
  // Takes all memory that `plan` names and, with a host tier, measures what moving KV takes.
  // `backend` must outlive the executor and serve no other.
  static absl::StatusOr<std::unique_ptr<ModelExecutor>> Create(Backend* backend, ModelConfig config,
                                                               Weights weights,
                                                               const MemoryPlan& plan);

  absl::Status Run(const StepPlan& plan, StepResult* result) override;
  double page_us_per_token() const override { return page_us_per_token_; }

 private:
  ModelExecutor(Backend* backend, Transformer transformer, const MemoryPlan& plan);
  // Sets page_us_per_token_ by moving a chunk of unused blocks out and in.
  absl::Status MeasurePaging(const MemoryPlan& plan);
  // Sorts results_ into the answer and notes what was sampled.
  void Collect(const StepPlan& plan, StepResult* result);
  // Makes room for `plan`'s results, empty, without giving storage back.
  void ClearResult(const StepPlan& plan, StepResult* result);

  Backend* const backend_;
  const size_t max_num_seqs_;
  Transformer transformer_;
  SamplingState sampling_;
  StepInputs inputs_;
  double page_us_per_token_ = 0;
  uint64_t last_step_ = 0;
  std::vector<SampledRow> sampled_;            // of that step, by row
  std::vector<SampleResult> results_;          // one a logit row; more than the step has
  std::vector<SequenceResult> spare_results_;  // of larger steps: their storage
};

}  // namespace fastgen
