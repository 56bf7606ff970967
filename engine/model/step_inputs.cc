#include "engine/model/step_inputs.h"

#include <algorithm>

#include "base/check.h"
#include "base/int_math.h"

namespace fastgen {
namespace {

int32_t Length(const std::vector<int32_t>& values) { return static_cast<int32_t>(values.size()); }

// What stands for the sequence's kPendingToken; -1 when it has none.
int32_t PendingToken(const ScheduledSequence& sequence, absl::Span<const SampledRow> previous) {
  if (sequence.tokens.size() != 1 || sequence.tokens[0] != kPendingToken) return -1;
  CHECK(sequence.token_row >= 0 && sequence.token_row < static_cast<int32_t>(previous.size()))
      << "sequence " << sequence.id << " takes its token from row " << sequence.token_row << " of "
      << previous.size();
  const SampledRow& row = previous[static_cast<size_t>(sequence.token_row)];
  CHECK_EQ(row.id, sequence.id) << "row " << sequence.token_row << " is another sequence's";
  CHECK_GE(row.token, 0) << "row " << sequence.token_row << " did not sample";
  return row.token;
}

}  // namespace

StepInputs::StepInputs(const MemoryPlan& plan, int64_t vocab)
    : limits_(plan), vocab_(vocab), moves_(plan) {
  const size_t tokens = static_cast<size_t>(plan.max_num_batched_tokens);
  const size_t sequences = static_cast<size_t>(plan.max_num_seqs);
  const size_t blocks = static_cast<size_t>(CeilDiv(plan.max_model_len, plan.block_size));
  ids_.reserve(tokens);
  positions_.reserve(tokens);
  slots_.reserve(tokens);
  query_start_.reserve(sequences + 1);
  context_len_.reserve(sequences);
  block_tables_.reserve(sequences * blocks);
  // A token may be scored and sampled after at once.
  logit_rows_.reserve(tokens + sequences);
  sample_rows_.reserve(tokens + sequences);
  logit_owners_.reserve(tokens + sequences);
}

void StepInputs::Clear() {
  ids_.clear();
  positions_.clear();
  slots_.clear();
  query_start_.clear();
  context_len_.clear();
  logit_rows_.clear();
  sample_rows_.clear();
  logit_owners_.clear();
}

void StepInputs::Build(const StepPlan& plan, absl::Span<const SampledRow> previous,
                       SamplingState* sampling) {
  CHECK_LE(plan.sequences.size(), static_cast<size_t>(limits_.max_num_seqs));
  CHECK_LE(plan.num_tokens, limits_.max_num_batched_tokens);
  Clear();
  moves_.Build(plan);

  size_t max_blocks = 1;
  for (const ScheduledSequence& sequence : plan.sequences) {
    max_blocks = std::max(max_blocks, sequence.block_table.size());
  }
  block_tables_.assign(plan.sequences.size() * max_blocks, 0);
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const ScheduledSequence& sequence = plan.sequences[i];
    const int32_t first_row = Length(ids_);
    query_start_.push_back(first_row);
    context_len_.push_back(sequence.context_begin + Length(sequence.tokens));
    std::copy(sequence.block_table.begin(), sequence.block_table.end(),
              block_tables_.begin() + static_cast<int64_t>(i * max_blocks));
    const int32_t pending_token = PendingToken(sequence, previous);
    AddTokens(sequence, pending_token);
    AddLogitRows(sequence, static_cast<int32_t>(i), first_row);
    if (sequence.samples) {
      AddSampledRow(sequence, static_cast<int32_t>(i), pending_token, sampling);
    }
  }
  query_start_.push_back(Length(ids_));
  CHECK_EQ(Length(ids_), plan.num_tokens);
  attention_.query_start = query_start_;
  attention_.context_len = context_len_;
  attention_.block_tables = block_tables_;
  attention_.max_blocks = static_cast<int64_t>(max_blocks);
}

void StepInputs::AddTokens(const ScheduledSequence& sequence, int32_t pending_token) {
  CHECK(!sequence.tokens.empty()) << "sequence " << sequence.id;
  CHECK_GE(sequence.context_begin, 0);
  const int32_t context = sequence.context_begin + Length(sequence.tokens);
  CHECK_LE(context, limits_.max_model_len) << "sequence " << sequence.id;
  CHECK_EQ(Length(sequence.block_table), CeilDiv(context, limits_.block_size))
      << "sequence " << sequence.id;
  for (int32_t block : sequence.block_table) {
    CHECK(block >= 0 && block < limits_.num_blocks) << block;
  }
  for (int32_t i = 0; i < Length(sequence.tokens); ++i) {
    const int32_t id = pending_token >= 0 ? pending_token : sequence.tokens[static_cast<size_t>(i)];
    CHECK(id >= 0 && id < vocab_) << id;
    const int32_t position = sequence.context_begin + i;
    const int64_t block = sequence.block_table[static_cast<size_t>(position / limits_.block_size)];
    ids_.push_back(id);
    positions_.push_back(position);
    slots_.push_back(block * limits_.block_size + position % limits_.block_size);
  }
}

void StepInputs::AddLogitRows(const ScheduledSequence& sequence, int32_t index, int32_t first_row) {
  CHECK_LE(sequence.score_targets.size(), sequence.tokens.size());
  for (int32_t i = 0; i < Length(sequence.score_targets); ++i) {
    SampleRow row;
    row.target_token = sequence.score_targets[static_cast<size_t>(i)];
    CHECK(row.target_token >= 0 && row.target_token < vocab_) << row.target_token;
    // Scoring asks for the target's own logprob at least.
    row.num_top_logprobs = std::max(sequence.sampling.num_prompt_top_logprobs, 0);
    logit_rows_.push_back(first_row + i);
    sample_rows_.push_back(row);
    logit_owners_.push_back({index, i});
  }
}

void StepInputs::AddSampledRow(const ScheduledSequence& sequence, int32_t index,
                               int32_t pending_token, SamplingState* sampling) {
  SampleRow row;
  row.temperature = sequence.sampling.temperature;
  row.top_k = sequence.sampling.top_k;
  row.top_p = sequence.sampling.top_p;
  row.min_p = sequence.sampling.min_p;
  row.seed = sequence.sampling.seed;
  row.choice_index = sequence.sampling.choice_index;
  row.output_position = static_cast<uint32_t>(sequence.output_position);
  row.num_top_logprobs = sequence.sampling.num_top_logprobs;
  sampling->FillRow(sequence, pending_token, &row);
  logit_rows_.push_back(Length(ids_) - 1);
  sample_rows_.push_back(row);
  logit_owners_.push_back({index, kSampled});
}

}  // namespace fastgen
