#include "tests/engine/model/batch_under_test.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/int_math.h"

namespace fastgen::testing {

std::vector<int32_t> BatchUnderTest::TakeBlocks(size_t count) {
  std::vector<int32_t> blocks = ScatteredBlocks(next_block_, static_cast<int32_t>(count));
  next_block_ += static_cast<int32_t>(count);
  CHECK_LE(next_block_, tested_->plan.num_blocks);
  return blocks;
}

int32_t BatchUnderTest::FreeSlot() const {
  int32_t slot = 0;
  while (std::any_of(sequences_.begin(), sequences_.end(),
                     [&](const auto& sequence) { return sequence->slot == slot; })) {
    ++slot;
  }
  return slot;
}

DrivenSequence* BatchUnderTest::Add(std::vector<int32_t> prompt, SequenceSampling sampling,
                                    int32_t max_length) {
  auto sequence = std::make_unique<DrivenSequence>();
  sequence->id = ++last_id_;
  sequence->slot = FreeSlot();
  sequence->num_prompt = static_cast<int32_t>(prompt.size());
  sequence->tokens = std::move(prompt);
  sequence->sampling = std::move(sampling);
  sequence->blocks = TakeBlocks(static_cast<size_t>(CeilDiv(max_length, tested_->plan.block_size)));
  sequences_.push_back(std::move(sequence));
  return sequences_.back().get();
}

DrivenSequence* BatchUnderTest::Fork(const DrivenSequence& leader, SequenceSampling sampling) {
  CHECK_GE(leader.num_computed, leader.num_prompt);
  const int32_t block_size = tested_->plan.block_size;
  const int32_t max_length = static_cast<int32_t>(leader.blocks.size()) * block_size;
  DrivenSequence* fork = Add({leader.tokens.begin(), leader.tokens.begin() + leader.num_prompt},
                             std::move(sampling), max_length);
  // The last prompt token is fed again, to sample after it.
  fork->num_computed = leader.num_prompt - 1;
  const int32_t num_shared = fork->num_computed / block_size;
  std::copy(leader.blocks.begin(), leader.blocks.begin() + num_shared, fork->blocks.begin());
  if (fork->num_computed % block_size != 0) {
    moves_.copies.push_back({leader.blocks[static_cast<size_t>(num_shared)],
                             fork->blocks[static_cast<size_t>(num_shared)]});
  }
  return fork;
}

void BatchUnderTest::Remove(DrivenSequence* sequence) {
  std::erase_if(sequences_, [&](const auto& entry) { return entry.get() == sequence; });
}

void BatchUnderTest::PreemptByRecompute(DrivenSequence* sequence) {
  moves_.poisoned_blocks.insert(moves_.poisoned_blocks.end(), sequence->blocks.begin(),
                                sequence->blocks.end());
  sequence->blocks = TakeBlocks(sequence->blocks.size());
  sequence->num_computed = 0;
  sequence->slot = FreeSlot();
  sequence->has_history = false;
}

void BatchUnderTest::FillHost(const DrivenSequence& sequence, int32_t first_host_block,
                              int32_t num_blocks) {
  CHECK_LE(num_blocks, sequence.num_computed / tested_->plan.block_size);
  for (int32_t i = 0; i < num_blocks; ++i) {
    moves_.page_outs.push_back({sequence.blocks[static_cast<size_t>(i)], first_host_block + i});
  }
}

void BatchUnderTest::SwapOut(DrivenSequence* sequence, int32_t first_host_block) {
  for (size_t i = 0; i < sequence->blocks.size(); ++i) {
    moves_.swap_outs.push_back({sequence->blocks[i], first_host_block + static_cast<int32_t>(i)});
    moves_.poisoned_blocks.push_back(sequence->blocks[i]);
  }
  sequence->is_held = true;
}

void BatchUnderTest::PageIn(DrivenSequence* sequence, int32_t first_host_block,
                            std::vector<int32_t> blocks, int32_t num_blocks) {
  CHECK_EQ(blocks.size(), sequence->blocks.size());
  sequence->blocks = std::move(blocks);
  for (int32_t i = 0; i < num_blocks; ++i) {
    moves_.page_ins.push_back({first_host_block + i, sequence->blocks[static_cast<size_t>(i)]});
  }
  sequence->is_held = false;
}

ScheduledSequence BatchUnderTest::MakeRow(DrivenSequence* sequence) const {
  ScheduledSequence row;
  const int32_t length = static_cast<int32_t>(sequence->tokens.size());
  const int32_t begin = sequence->num_computed;
  const int32_t end = std::min(length, begin + options_.chunk_size);
  row.id = sequence->id;
  row.slot = sequence->slot;
  row.context_begin = begin;
  row.tokens.assign(sequence->tokens.begin() + begin, sequence->tokens.begin() + end);
  row.block_table.assign(sequence->blocks.begin(),
                         sequence->blocks.begin() + CeilDiv(end, tested_->plan.block_size));
  row.samples = end == length;
  row.output_position = length - sequence->num_prompt;
  row.num_prompt = sequence->num_prompt;
  row.sampling = sequence->sampling;
  const bool is_pending = options_.runs_ahead && begin + 1 == length && sequence->last_row >= 0;
  if (is_pending) {
    row.tokens = {kPendingToken};
    row.token_row = sequence->last_row;
  }
  if (row.samples && row.sampling.needs_history() && !sequence->has_history) {
    row.starts_history = true;
    row.history.assign(sequence->tokens.begin(), sequence->tokens.end() - (is_pending ? 1 : 0));
    sequence->has_history = true;
  }
  for (int32_t i = begin; sequence->scores_prompt && i < std::min(end, sequence->num_prompt - 1);
       ++i) {
    row.score_targets.push_back(sequence->tokens[static_cast<size_t>(i + 1)]);
  }
  return row;
}

StepPlan BatchUnderTest::MakePlan() {
  StepPlan plan = std::exchange(moves_, StepPlan());
  rows_.clear();
  for (const auto& sequence : sequences_) {
    if (!sequence->is_held) rows_.push_back(sequence.get());
  }
  if (options_.rotates_rows && !rows_.empty()) {
    std::rotate(rows_.begin(), rows_.begin() + num_steps_ % static_cast<int32_t>(rows_.size()),
                rows_.end());
  }
  ++num_steps_;
  for (DrivenSequence* sequence : rows_) {
    plan.sequences.push_back(MakeRow(sequence));
    plan.num_tokens += static_cast<int32_t>(plan.sequences.back().tokens.size());
  }
  return plan;
}

void BatchUnderTest::Step() {
  const StepPlan plan = MakePlan();
  const StepResult result = tested_->Run(plan);
  CHECK_EQ(result.sequences.size(), rows_.size());
  for (const auto& sequence : sequences_) sequence->last_row = -1;
  for (size_t i = 0; i < rows_.size(); ++i) {
    Take(plan.sequences[i], result.sequences[i], static_cast<int32_t>(i), rows_[i]);
  }
}

void BatchUnderTest::Take(const ScheduledSequence& row, const SequenceResult& result, int32_t index,
                          DrivenSequence* sequence) const {
  sequence->num_computed += static_cast<int32_t>(row.tokens.size());
  sequence->scored.insert(sequence->scored.end(), result.scored.begin(), result.scored.end());
  CHECK_EQ(result.sampled, row.samples);
  if (!result.sampled) return;
  sequence->last_row = index;
  sequence->tokens.push_back(result.next.token);
  sequence->output.push_back(result.next);
}

void BatchUnderTest::Generate(size_t num_tokens) {
  const auto is_short = [&](const auto& sequence) {
    return !sequence->is_held && sequence->output.size() < num_tokens;
  };
  while (std::any_of(sequences_.begin(), sequences_.end(), is_short)) Step();
}

std::vector<int32_t> IdsOf(const std::vector<TokenScore>& scores) {
  std::vector<int32_t> ids;
  for (const TokenScore& score : scores) ids.push_back(score.token);
  return ids;
}

bool AreSame(const std::vector<TokenScore>& a, const std::vector<TokenScore>& b) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(), [](const TokenScore& x, const TokenScore& y) {
        // Not NaN, so equal numbers are equal bits but for the sign of zero.
        return x.token == y.token && x.logprob == y.logprob && x.rank == y.rank && x.top == y.top;
      });
}

std::vector<int32_t> RandomIds(int length, uint32_t seed, int64_t vocab) {
  std::vector<int32_t> ids;
  uint32_t state = seed * 2654435761u + 1;
  for (int i = 0; i < length; ++i) {
    state = state * 1664525u + 1013904223u;
    ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(vocab)));
  }
  return ids;
}

}  // namespace fastgen::testing
