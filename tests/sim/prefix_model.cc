#include "tests/sim/prefix_model.h"

#include <algorithm>

#include "base/int_math.h"

namespace fastgen::sim {

void Expect(bool holds, SequenceId id, const char* what) {
  if (!holds) throw SimulationError("sequence " + std::to_string(id) + ": " + what);
}

uint64_t Mix(uint64_t a, uint64_t b) {
  // The finaliser of SplitMix64 over both words.
  uint64_t z = (a ^ (b * 0x9e3779b97f4a7c15u)) + 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t Random::Next() {
  state_ += 0x9e3779b97f4a7c15u;
  return Mix(state_, 0);
}

int32_t Random::Between(int32_t low, int32_t high) {
  return low + static_cast<int32_t>(Next() % static_cast<uint64_t>(high - low + 1));
}

uint64_t NextState(uint64_t state, int32_t token) {
  return Mix(state, static_cast<uint64_t>(token) + 1);
}

int32_t NextToken(uint64_t state, const std::vector<int32_t>& banned) {
  auto token = static_cast<int32_t>(Mix(state, 77) % kVocabSize);
  while (std::find(banned.begin(), banned.end(), token) != banned.end()) {
    token = (token + 1) % kVocabSize;
  }
  return token;
}

float LogprobOf(uint64_t state, int32_t token) {
  return -static_cast<float>(Mix(state, static_cast<uint64_t>(token) + 1000) % 4096);
}

void RunAlone(SimRequest* request) {
  const NewSequence& sequence = request->sequence;
  std::vector<int32_t> tokens = sequence.prompt;
  const auto num_prompt = static_cast<int32_t>(tokens.size());
  uint64_t state = 0;
  for (int32_t position = 0;; ++position) {
    state = NextState(state, tokens[position]);
    const bool is_last = position + 1 == static_cast<int32_t>(tokens.size());
    const bool is_scored =
        !is_last && position + 1 < num_prompt && sequence.sampling.num_prompt_top_logprobs >= 0;
    const auto num_output = static_cast<int32_t>(request->output.size());
    const bool samples = is_last && num_output < sequence.stop.max_output_tokens &&
                         static_cast<int32_t>(tokens.size()) < request->max_model_len;
    if ((is_scored || samples) && position == request->nan_position) {
      request->reason = FinishReason::kError;
      return;
    }
    if (is_scored) {
      TokenScore& score = request->scores.emplace_back();
      score.token = tokens[position + 1];
      score.logprob = LogprobOf(state, score.token);
    }
    if (!is_last) continue;
    if (!samples) return;  // kLength
    const bool may_stop = num_output >= sequence.stop.min_output_tokens;
    const std::vector<int32_t>& stops = sequence.stop.stop_token_ids;
    const int32_t token = NextToken(state, may_stop ? std::vector<int32_t>() : stops);
    tokens.push_back(token);
    request->output.push_back(token);
    if (may_stop && std::find(stops.begin(), stops.end(), token) != stops.end()) {
      request->reason = FinishReason::kStop;
      request->matched_token_id = token;
      return;
    }
    if (num_output + 1 == sequence.stop.max_output_tokens ||
        static_cast<int32_t>(tokens.size()) == request->max_model_len) {
      return;  // kLength: the last token is not computed
    }
  }
}

PrefixExecutor::PrefixExecutor(int32_t num_blocks, int32_t block_size)
    : block_size_(block_size), slots_(size_t{1} * num_blocks * block_size, 0) {}

void PrefixExecutor::AddSequence(SequenceId id, const std::vector<int32_t>& prompt,
                                 std::optional<int32_t> nan) {
  truths_[id].nan_position = nan;
  for (const int32_t token : prompt) AppendToken(id, token);
}

void PrefixExecutor::AppendToken(SequenceId id, int32_t token) {
  Truth& truth = truths_[id];
  const uint64_t before = truth.states.empty() ? 0 : truth.states.back();
  truth.tokens.push_back(token);
  truth.states.push_back(NextState(before, token));
}

StepResult PrefixExecutor::Run(const StepPlan& plan) {
  StepResult result;
  for (const ScheduledSequence& row : plan.sequences) result.sequences.push_back(RunRow(row));
  // A second look, when all have written: no row may have overwritten another's slots.
  for (const ScheduledSequence& row : plan.sequences) {
    const Truth& truth = truths_.at(row.id);
    const int32_t end = row.context_begin + static_cast<int32_t>(row.tokens.size());
    for (int32_t p = 0; p < end; ++p) {
      Expect(*Slot(row, p) == truth.states[p], row.id, "another row wrote into its blocks");
    }
  }
  return result;
}

SequenceResult PrefixExecutor::RunRow(const ScheduledSequence& row) {
  const Truth& truth = truths_.at(row.id);
  const auto num_tokens = static_cast<int32_t>(row.tokens.size());
  const int32_t end = row.context_begin + num_tokens;
  Expect(end <= static_cast<int32_t>(truth.tokens.size()), row.id, "feeds more tokens than it has");
  Expect(static_cast<int32_t>(row.block_table.size()) == CeilDiv(end, block_size_), row.id,
         "block table and positions disagree");
  Expect(!row.samples || end == static_cast<int32_t>(truth.tokens.size()), row.id,
         "samples in the middle");
  for (int32_t p = 0; p < row.context_begin; ++p) {
    Expect(*Slot(row, p) == truth.states[p], row.id,
           "attention reads something else than its prefix");
  }
  SequenceResult result;
  uint64_t state = row.context_begin == 0 ? 0 : *Slot(row, row.context_begin - 1);
  for (int32_t i = 0; i < num_tokens; ++i) {
    const int32_t position = row.context_begin + i;
    Expect(row.tokens[i] == truth.tokens[position], row.id, "feeds a token that it does not have");
    state = NextState(state, row.tokens[i]);
    *Slot(row, position) = state;
    const bool is_scored = i < static_cast<int32_t>(row.score_targets.size());
    const bool is_sampled = row.samples && i + 1 == num_tokens;
    if ((is_scored || is_sampled) && position == truth.nan_position) result.is_nan = true;
    if (!is_scored) continue;
    TokenScore& score = result.scored.emplace_back();
    score.token = row.score_targets[i];
    score.logprob = LogprobOf(state, score.token);
  }
  result.sampled = row.samples;
  if (row.samples) result.next.token = NextToken(state, row.banned_tokens);
  return result;
}

uint64_t* PrefixExecutor::Slot(const ScheduledSequence& row, int32_t position) {
  const int32_t block = row.block_table.at(position / block_size_);
  return &slots_.at(int64_t{block} * block_size_ + position % block_size_);
}

}  // namespace fastgen::sim
