#include "engine/model/model_executor.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace fastgen {
namespace {

// A vocabulary smaller than the number of best tokens asked for leaves the rest out.
void FillScore(const SampleRow& row, const SampleResult& result, TokenScore* score) {
  // What a backend leaves there for a NaN means nothing, but a step may be running on it.
  score->token = result.is_nan ? std::max(row.target_token, 0) : result.token;
  score->logprob = row.num_top_logprobs < 0 ? 0 : result.logprob;
  score->rank = row.num_top_logprobs < 0 ? 0 : result.rank;
  score->top.clear();
  if (row.num_top_logprobs <= 0) return;
  score->top.reserve(static_cast<size_t>(row.num_top_logprobs));
  for (int32_t i = 0; i < row.num_top_logprobs; ++i) {
    const TopLogprob& top = result.top[static_cast<size_t>(i)];
    if (top.token < 0) break;
    score->top.emplace_back(top.token, top.logprob);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelExecutor>> ModelExecutor::Create(Backend* backend,
                                                                     ModelConfig config,
                                                                     Weights weights,
                                                                     const MemoryPlan& plan) {
  ASSIGN_OR_RETURN(Transformer transformer,
                   Transformer::Create(backend, std::move(config), std::move(weights), plan));
  std::unique_ptr<ModelExecutor> executor(new ModelExecutor(backend, std::move(transformer), plan));
  if (plan.num_host_blocks > 0) RETURN_IF_ERROR(executor->MeasurePaging(plan));
  return executor;
}

ModelExecutor::ModelExecutor(Backend* backend, Transformer transformer, const MemoryPlan& plan)
    : backend_(backend),
      max_num_seqs_(static_cast<size_t>(plan.max_num_seqs)),
      transformer_(std::move(transformer)),
      sampling_(plan, transformer_.config().vocab),
      inputs_(plan, transformer_.config().vocab),
      results_(static_cast<size_t>(plan.max_num_batched_tokens + plan.max_num_seqs)) {
  sampled_.reserve(max_num_seqs_);
  spare_results_.reserve(max_num_seqs_);
}

absl::Status ModelExecutor::MeasurePaging(const MemoryPlan& plan) {
  const int32_t num_blocks =
      std::min({kHostChunkTokens / plan.block_size, plan.num_blocks, plan.num_host_blocks});
  StepPlan round_trip;
  for (int32_t i = 0; i < num_blocks; ++i) round_trip.page_outs.push_back({i, i});
  round_trip.page_ins = round_trip.page_outs;
  KvMoves moves(plan);
  moves.Build(round_trip);
  // The first trip touches the pages and is not counted.
  std::array<double, 6> trips_us;
  for (double& trip_us : trips_us) {
    const auto begin = std::chrono::steady_clock::now();
    transformer_.MoveBlocks(moves);
    RETURN_IF_ERROR(backend_->Synchronize());
    trip_us =
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
  }
  std::sort(trips_us.begin() + 1, trips_us.end());
  page_us_per_token_ = trips_us[3] / (2.0 * num_blocks * plan.block_size);
  return absl::OkStatus();
}

absl::Status ModelExecutor::Run(const StepPlan& plan, StepResult* result) {
  CHECK_EQ(plan.step, last_step_ + 1) << "steps run in order";
  last_step_ = plan.step;
  inputs_.Build(plan, sampled_, &sampling_);
  transformer_.Forward(inputs_);
  sampling_.FinishMasks(plan);
  const int64_t num_logit_rows = static_cast<int64_t>(inputs_.logit_rows().size());
  for (int64_t begin = 0; begin < num_logit_rows; begin += transformer_.max_logit_rows()) {
    const int64_t count = std::min(transformer_.max_logit_rows(), num_logit_rows - begin);
    const Tensor logits = transformer_.Logits(inputs_, begin, count);
    const size_t first = static_cast<size_t>(begin);
    const size_t size = static_cast<size_t>(count);
    backend_->SampleRows(logits, inputs_.sample_rows().subspan(first, size),
                         absl::MakeSpan(results_).subspan(first, size));
  }
  RETURN_IF_ERROR(backend_->Synchronize());
  Collect(plan, result);
  return absl::OkStatus();
}

void ModelExecutor::Collect(const StepPlan& plan, StepResult* result) {
  ClearResult(plan, result);
  sampled_.clear();
  for (const ScheduledSequence& sequence : plan.sequences) sampled_.push_back({sequence.id, -1});
  for (size_t i = 0; i < inputs_.logit_rows().size(); ++i) {
    const StepInputs::LogitOwner owner = inputs_.logit_owners()[i];
    const size_t row = static_cast<size_t>(owner.sequence);
    SequenceResult& sequence = result->sequences[row];
    sequence.is_nan = sequence.is_nan || results_[i].is_nan;
    const bool is_sampled = owner.score_index == StepInputs::kSampled;
    TokenScore* score =
        is_sampled ? &sequence.next : &sequence.scored[static_cast<size_t>(owner.score_index)];
    FillScore(inputs_.sample_rows()[i], results_[i], score);
    if (!is_sampled) continue;
    sequence.sampled = true;
    sampled_[row].token = score->token;
    sequence.failure = sampling_.failure(plan.sequences[row]);
    sampling_.Append(plan.sequences[row], score->token);
  }
}

void ModelExecutor::ClearResult(const StepPlan& plan, StepResult* result) {
  std::vector<SequenceResult>& sequences = result->sequences;
  sequences.reserve(max_num_seqs_);
  while (sequences.size() > plan.sequences.size()) {
    if (spare_results_.size() < max_num_seqs_)
      spare_results_.push_back(std::move(sequences.back()));
    sequences.pop_back();
  }
  while (sequences.size() < plan.sequences.size()) {
    if (spare_results_.empty()) {
      sequences.emplace_back();
    } else {
      sequences.push_back(std::move(spare_results_.back()));
      spare_results_.pop_back();
    }
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i].sampled = false;
    sequences[i].is_nan = false;
    sequences[i].failure = absl::OkStatus();
    sequences[i].next.token = -1;
    sequences[i].next.logprob = 0;
    sequences[i].next.rank = 0;
    sequences[i].next.top.clear();
    sequences[i].scored.resize(plan.sequences[i].score_targets.size());
  }
}

}  // namespace fastgen
