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

uint64_t FirstState(const std::string& salt) {
  uint64_t state = 0;
  for (const char c : salt) state = Mix(state, static_cast<uint64_t>(c) + 5000);
  return state;
}

uint64_t NextState(uint64_t state, int32_t token) {
  return Mix(state, static_cast<uint64_t>(token) + 1);
}

int32_t NextToken(uint64_t state, uint32_t choice, const std::vector<int32_t>& banned) {
  auto token = static_cast<int32_t>(Mix(state, 77 + choice) % kVocabSize);
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
  uint64_t state = FirstState(sequence.cache_salt);
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
    const int32_t token =
        NextToken(state, sequence.sampling.choice_index, may_stop ? std::vector<int32_t>() : stops);
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

PrefixExecutor::PrefixExecutor(int32_t num_blocks, int32_t num_host_blocks, int32_t block_size)
    : block_size_(block_size),
      slots_(size_t{1} * num_blocks * block_size, 0),
      host_slots_(size_t{1} * num_host_blocks * block_size, 0) {}

void PrefixExecutor::AddSequence(const SimRequest& request) {
  Truth& truth = truths_[request.sequence.id];
  truth.salt = request.sequence.cache_salt;
  truth.nan_position = request.nan_position;
  truth.num_prompt = static_cast<int32_t>(request.sequence.prompt.size());
  truth.needs_history = request.sequence.sampling.needs_history();
  for (const int32_t token : request.sequence.prompt) AppendToken(&truth, token);
}

void PrefixExecutor::AppendToken(Truth* truth, int32_t token) {
  const uint64_t before = truth->states.empty() ? FirstState(truth->salt) : truth->states.back();
  truth->tokens.push_back(token);
  truth->states.push_back(NextState(before, token));
}

PrefixExecutor::Touched PrefixExecutor::TouchedBy(const StepPlan& plan) const {
  Touched touched;
  for (const auto [from, to] : plan.page_outs) {
    touched.read.insert(from);
    touched.host_filled.insert(to);
    Expect(touched.host_written.insert(to).second, 0, "a host block is written twice in a step");
  }
  // These, and poison, are done before the step writes anything.
  for (const auto [from, to] : plan.swap_outs) {
    Expect(touched.host_written.insert(to).second, 0, "a host block is written twice in a step");
  }
  for (const auto [from, to] : plan.page_ins) {
    touched.host_read.insert(from);
    touched.written[to] = 0;
  }
  for (const auto [from, to] : plan.copies) {
    touched.read.insert(from);
    touched.written[to] = 0;
  }
  for (const ScheduledSequence& row : plan.sequences) {
    const int32_t end = row.context_begin + static_cast<int32_t>(row.tokens.size());
    for (const int32_t block : row.block_table) touched.read.insert(block);
    for (int32_t i = row.context_begin / block_size_; i * block_size_ < end; ++i) {
      touched.written[row.block_table.at(i)] = row.id;
    }
  }
  return touched;
}

void PrefixExecutor::Launch(const StepPlan& plan) {
  Touched touched = TouchedBy(plan);
  for (const auto [from, to] : plan.page_outs) {
    Expect(!touched.written.contains(from), 0, "a block is written by the step that moves it out");
  }
  for (const auto& [earlier, before] : in_flight_) {
    for (const auto& [block, writer] : touched.written) {
      const auto it = before.written.find(block);
      const bool continues = writer != 0 && it != before.written.end() && it->second == writer;
      Expect(continues || (it == before.written.end() && !before.read.contains(block)), writer,
             "writes a block that the step in flight touches");
    }
    for (const int32_t block : touched.host_read) {
      Expect(!before.host_filled.contains(block), 0, "a host block is read before it is filled");
    }
    for (const int32_t block : touched.host_written) {
      Expect(!before.host_read.contains(block) && !before.host_written.contains(block), 0,
             "a host block is written that the step in flight touches");
    }
  }
  in_flight_.emplace_back(plan, std::move(touched));
}

void PrefixExecutor::Move(const std::vector<KvBlockMove>& moves, const std::vector<uint64_t>& from,
                          std::vector<uint64_t>* to) {
  for (const KvBlockMove& move : moves) {
    const int64_t source = int64_t{move.from} * block_size_;
    const int64_t destination = int64_t{move.to} * block_size_;
    for (int32_t i = 0; i < block_size_; ++i) to->at(destination + i) = from.at(source + i);
  }
}

void PrefixExecutor::MoveBlocks(const StepPlan& plan) {
  Move(plan.swap_outs, slots_, &host_slots_);
  for (const int32_t block : plan.poisoned_blocks) {
    for (int32_t i = 0; i < block_size_; ++i) slots_.at(int64_t{block} * block_size_ + i) = ~0ull;
  }
  Move(plan.page_ins, host_slots_, &slots_);
  Move(plan.copies, slots_, &slots_);
}

StepResult PrefixExecutor::Run() {
  Expect(!in_flight_.empty(), 0, "nothing is in flight");
  const StepPlan plan = std::move(in_flight_.front().first);
  in_flight_.pop_front();
  Expect(plan.step == last_step_ + 1, 0, "steps are launched out of order");
  last_step_ = plan.step;
  MoveBlocks(plan);
  StepResult result;
  std::vector<int32_t> sampled;
  for (const ScheduledSequence& row : plan.sequences) {
    result.sequences.push_back(RunRow(row));
    const SequenceResult& row_result = result.sequences.back();
    sampled.push_back(row_result.sampled ? row_result.next.token : -1);
  }
  Move(plan.page_outs, slots_, &host_slots_);  // as late as a device may
  // A second look, when all have written: no row may have overwritten another's slots.
  for (const ScheduledSequence& row : plan.sequences) {
    const Truth& truth = truths_.at(row.id);
    const int32_t end = row.context_begin + static_cast<int32_t>(row.tokens.size());
    for (int32_t p = 0; p < end; ++p) {
      Expect(*Slot(row, p) == truth.states[p], row.id, "another row wrote into its blocks");
    }
  }
  // Only now: the next row of a sequence is in the next step.
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    if (sampled[i] >= 0) AppendToken(&truths_.at(plan.sequences[i].id), sampled[i]);
  }
  last_sampled_ = std::move(sampled);
  return result;
}

void PrefixExecutor::CheckHistory(const ScheduledSequence& row) {
  Truth& truth = truths_.at(row.id);
  if (!truth.needs_history || !row.samples) {
    Expect(!row.starts_history, row.id, "starts a history that nobody needs");
    return;
  }
  if (row.starts_history) {
    Expect(row.history == truth.tokens, row.id, "starts from a history that is not its own");
    Expect(row.num_prompt == truth.num_prompt, row.id, "has another number of prompt tokens");
    truth.slot = row.slot;
    histories_[row.slot] = row.id;
  }
  Expect(truth.slot == row.slot && histories_[row.slot] == row.id, row.id,
         "samples by the history of another");
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
  Expect(!row.samples || truth.num_prompt + row.output_position == end, row.id,
         "samples another output position");
  CheckHistory(row);
  for (int32_t p = 0; p < row.context_begin; ++p) {
    Expect(*Slot(row, p) == truth.states[p], row.id,
           "attention reads something else than its prefix");
  }
  SequenceResult result;
  uint64_t state =
      row.context_begin == 0 ? FirstState(truth.salt) : *Slot(row, row.context_begin - 1);
  for (int32_t i = 0; i < num_tokens; ++i) {
    const int32_t position = row.context_begin + i;
    int32_t token = row.tokens[i];
    if (token == kPendingToken) {
      Expect(num_tokens == 1 && row.token_row >= 0, row.id, "waits for a token of no row");
      token = last_sampled_.at(row.token_row);
    }
    Expect(token == truth.tokens[position], row.id, "feeds a token that it does not have");
    state = NextState(state, token);
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
  if (row.samples) {
    result.next.token = NextToken(state, row.sampling.choice_index, row.banned_tokens);
  }
  return result;
}

uint64_t* PrefixExecutor::Slot(const ScheduledSequence& row, int32_t position) {
  const int32_t block = row.block_table.at(position / block_size_);
  return &slots_.at(int64_t{block} * block_size_ + position % block_size_);
}

}  // namespace fastgen::sim
