#include "engine/model/model_executor.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace fastgen {
namespace {

TokenScore ScoreOf(const SampleRow& row, SampleResult& result) {
  TokenScore score;
  score.token = result.token;
  if (row.num_top_logprobs < 0) return score;
  score.logprob = result.logprob;
  score.rank = result.rank;
  if (result.top == nullptr) return score;
  score.top.reserve(static_cast<size_t>(row.num_top_logprobs));
  for (int32_t i = 0; i < row.num_top_logprobs; ++i) {
    // A vocabulary smaller than the number asked for leaves the rest unset.
    if (result.top[static_cast<size_t>(i)].token < 0) break;
    score.top.emplace_back(result.top[static_cast<size_t>(i)].token,
                           result.top[static_cast<size_t>(i)].logprob);
  }
  return score;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelExecutor>> ModelExecutor::Create(Backend* backend,
                                                                     ModelConfig config,
                                                                     Weights weights,
                                                                     const MemoryPlan& plan) {
  ASSIGN_OR_RETURN(Transformer transformer,
                   Transformer::Create(backend, std::move(config), std::move(weights), plan));
  return std::unique_ptr<ModelExecutor>(new ModelExecutor(backend, std::move(transformer), plan));
}

ModelExecutor::ModelExecutor(Backend* backend, Transformer transformer, const MemoryPlan& plan)
    : backend_(backend),
      transformer_(std::move(transformer)),
      inputs_(plan, transformer_.config().vocab) {
  results_.reserve(static_cast<size_t>(plan.max_num_batched_tokens + plan.max_num_seqs));
}

absl::StatusOr<StepResult> ModelExecutor::Run(const StepPlan& plan) {
  if (plan.empty()) return StepResult();
  inputs_.Build(plan);
  transformer_.Forward(inputs_);
  const size_t num_logit_rows = inputs_.logit_rows().size();
  results_.clear();
  results_.resize(num_logit_rows);
  const size_t piece = static_cast<size_t>(transformer_.max_logit_rows());
  for (size_t begin = 0; begin < num_logit_rows; begin += piece) {
    const size_t count = std::min(piece, num_logit_rows - begin);
    const Tensor logits = transformer_.Logits(inputs_.logit_rows().subspan(begin, count));
    backend_->SampleRows(logits, inputs_.sample_rows().subspan(begin, count),
                         absl::MakeSpan(results_).subspan(begin, count));
  }
  RETURN_IF_ERROR(backend_->Synchronize());
  return Collect(plan);
}

StepResult ModelExecutor::Collect(const StepPlan& plan) {
  StepResult step;
  step.sequences.resize(plan.sequences.size());
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    step.sequences[i].scored.resize(plan.sequences[i].score_targets.size());
  }
  for (size_t i = 0; i < results_.size(); ++i) {
    const StepInputs::LogitOwner owner = inputs_.logit_owners()[i];
    SequenceResult& sequence = step.sequences[static_cast<size_t>(owner.sequence)];
    sequence.is_nan = sequence.is_nan || results_[i].is_nan;
    TokenScore score = ScoreOf(inputs_.sample_rows()[i], results_[i]);
    if (owner.score_index == StepInputs::kSampled) {
      sequence.sampled = true;
      sequence.next = std::move(score);
    } else {
      sequence.scored[static_cast<size_t>(owner.score_index)] = std::move(score);
    }
  }
  return step;
}

}  // namespace fastgen
