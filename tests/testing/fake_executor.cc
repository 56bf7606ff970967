#include "tests/testing/fake_executor.h"

#include <algorithm>
#include <set>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "base/check.h"

namespace fastgen::testing {
namespace {

constexpr int32_t kNothing = -1;

// FNV-1a over the context and the seed.
int32_t HashToken(const std::vector<int32_t>& context, uint64_t seed, int32_t vocab_size) {
  uint64_t hash = 14695981039346656037u ^ seed;
  for (int32_t token : context) hash = (hash ^ static_cast<uint64_t>(token)) * 1099511628211u;
  return static_cast<int32_t>((hash >> 20) % static_cast<uint64_t>(vocab_size));
}

TokenScore MakeScore(int32_t token, size_t num_context, int32_t num_top, int32_t vocab_size) {
  TokenScore score;
  score.token = token;
  if (num_top < 0) return score;
  score.logprob = FakeLogprob(token, num_context);
  score.rank = 1;
  for (int32_t i = 0; i < num_top; ++i) {
    const int32_t candidate = (token + i) % vocab_size;
    score.top.emplace_back(candidate, score.logprob - static_cast<float>(i));
  }
  return score;
}

// True when `token` would complete a bad word at the end of `context`.
bool CompletesBadWord(const TokenRules& rules, const std::vector<int32_t>& context, int32_t token,
                      size_t num_output) {
  for (const std::vector<int32_t>& word : rules.bad_words) {
    const size_t num_before = word.size() - 1;
    if (word.back() != token || num_before > num_output) continue;
    if (std::equal(word.begin(), word.end() - 1,
                   context.end() - static_cast<ptrdiff_t>(num_before))) {
      return true;
    }
  }
  return false;
}

bool IsPermitted(const ScheduledSequence& row, const std::vector<int32_t>& context, int32_t token) {
  const std::vector<int32_t>& banned = row.banned_tokens;
  if (std::find(banned.begin(), banned.end(), token) != banned.end()) return false;
  if (row.sampling.rules == nullptr) return true;
  const std::vector<int32_t>& allowed = row.sampling.rules->allowed_token_ids;
  if (!allowed.empty() && !std::binary_search(allowed.begin(), allowed.end(), token)) return false;
  return !CompletesBadWord(*row.sampling.rules, context, token,
                           static_cast<size_t>(row.output_position));
}

}  // namespace

float FakeLogprob(int32_t token, size_t num_context) {
  return -0.01f * static_cast<float>(token) - static_cast<float>(num_context);
}

FakeExecutor::FakeExecutor(const Options& options)
    : options_(options),
      device_(static_cast<size_t>(options.num_blocks) * options.block_size, kNothing),
      host_(static_cast<size_t>(options.num_host_blocks) * options.block_size, kNothing) {}

absl::Status FakeExecutor::Run(const StepPlan& plan, StepResult* result) {
  CHECK_EQ(plan.step, last_step_ + 1) << "steps follow each other";
  CHECK(!plan.empty());
  last_step_ = plan.step;
  Move(plan);
  CheckBlocks(plan);
  // All rows write before any reads: a device works layer by layer.
  for (const ScheduledSequence& row : plan.sequences) WriteRow(row);
  result->sequences.clear();
  result->sequences.resize(plan.sequences.size());
  sampled_.assign(plan.sequences.size(), kNothing);
  StepRecord record;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    record.num_tokens += static_cast<int32_t>(plan.sequences[i].tokens.size());
    RunRow(plan.sequences[i], &result->sequences[i]);
    if (result->sequences[i].sampled) sampled_[i] = result->sequences[i].next.token;
  }
  last_sampled_.swap(sampled_);
  CHECK_EQ(record.num_tokens, plan.num_tokens);
  record.num_sequences = static_cast<int32_t>(plan.sequences.size());
  record.num_page_outs = static_cast<int32_t>(plan.page_outs.size() + plan.swap_outs.size());
  record.num_page_ins = static_cast<int32_t>(plan.page_ins.size());
  record.num_copies = static_cast<int32_t>(plan.copies.size());
  {
    MutexLock lock(&mutex_);
    steps_.push_back(record);
    changed_.SignalAll();
    if (std::exchange(fails_, false)) return absl::UnavailableError("device lost");
  }
  const auto step_time = step_time_ + record.num_tokens * time_per_token_;
  if (step_time.count() > 0) std::this_thread::sleep_for(step_time);
  PassGate();
  return absl::OkStatus();
}

void FakeExecutor::Move(const StepPlan& plan) {
  // Fills may be read at any time in the step: nothing writes to their blocks, see CheckBlocks.
  MoveBlocks(plan.page_outs, &device_, &host_);
  MoveBlocks(plan.swap_outs, &device_, &host_);
  MoveBlocks(plan.swap_outs, &device_, &host_);
  for (int32_t block : plan.poisoned_blocks) {
    const size_t begin = static_cast<size_t>(block) * options_.block_size;
    CHECK(block >= 0 && begin < device_.size()) << "poisoned block " << block;
    std::fill_n(device_.begin() + static_cast<ptrdiff_t>(begin), options_.block_size, kNothing);
  }
  MoveBlocks(plan.page_ins, &host_, &device_);
  MoveBlocks(plan.copies, &device_, &device_);
}

void FakeExecutor::MoveBlocks(const std::vector<KvBlockMove>& moves, Cache* from, Cache* to) const {
  std::set<int32_t> written;
  for (const KvBlockMove& move : moves) {
    const size_t source = static_cast<size_t>(move.from) * options_.block_size;
    const size_t target = static_cast<size_t>(move.to) * options_.block_size;
    CHECK(move.from >= 0 && source < from->size()) << "a move from block " << move.from;
    CHECK(move.to >= 0 && target < to->size()) << "a move to block " << move.to;
    CHECK(written.insert(move.to).second) << "block " << move.to << " is moved to twice";
    std::copy_n(from->begin() + static_cast<ptrdiff_t>(source), options_.block_size,
                to->begin() + static_cast<ptrdiff_t>(target));
  }
}

void FakeExecutor::CheckBlocks(const StepPlan& plan) const {
  std::set<int32_t> written;
  for (const KvBlockMove& move : plan.page_ins) written.insert(move.to);
  for (const KvBlockMove& move : plan.copies) written.insert(move.to);
  written.insert(plan.poisoned_blocks.begin(), plan.poisoned_blocks.end());
  for (const KvBlockMove& fill : plan.page_outs) {
    CHECK(written.count(fill.from) == 0) << "block " << fill.from << " is written while it fills";
  }
  written.clear();
  for (const KvBlockMove& fill : plan.page_outs) written.insert(fill.from);
  std::set<int32_t> slots;
  for (const ScheduledSequence& row : plan.sequences) {
    CHECK(slots.insert(row.slot).second) << "slot " << row.slot << " is two sequences'";
    const int32_t end = row.context_begin + static_cast<int32_t>(row.tokens.size());
    CHECK_GE(static_cast<int64_t>(row.block_table.size()) * options_.block_size, end);
    for (int32_t block = row.context_begin / options_.block_size; block * options_.block_size < end;
         ++block) {
      const bool is_new = written.insert(row.block_table[block]).second;
      CHECK(is_new) << "block " << row.block_table[block] << " is written twice, or while it fills";
    }
  }
}

int32_t FakeExecutor::FedToken(const ScheduledSequence& row, size_t i) const {
  if (row.tokens[i] != kPendingToken) return row.tokens[i];
  CHECK_EQ(row.tokens.size(), 1u) << "sequence " << row.id;
  CHECK(row.token_row >= 0 && row.token_row < static_cast<int32_t>(last_sampled_.size()))
      << "sequence " << row.id << " takes its token from row " << row.token_row;
  const int32_t token = last_sampled_[row.token_row];
  CHECK(token != kNothing) << "row " << row.token_row << " of the step before sampled nothing";
  return token;
}

void FakeExecutor::WriteRow(const ScheduledSequence& row) {
  for (size_t i = 0; i < row.tokens.size(); ++i) {
    const size_t position = static_cast<size_t>(row.context_begin) + i;
    const int32_t block = row.block_table[position / options_.block_size];
    const size_t entry =
        static_cast<size_t>(block) * options_.block_size + position % options_.block_size;
    CHECK(block >= 0 && entry < device_.size()) << "block " << block;
    device_[entry] = FedToken(row, i);
  }
}

std::vector<int32_t> FakeExecutor::ReadContext(const ScheduledSequence& row,
                                               size_t num_tokens) const {
  std::vector<int32_t> context(num_tokens);
  for (size_t position = 0; position < num_tokens; ++position) {
    const size_t block = static_cast<size_t>(row.block_table[position / options_.block_size]);
    const size_t entry = block * options_.block_size + position % options_.block_size;
    CHECK_LT(entry, device_.size()) << "sequence " << row.id;
    context[position] = device_[entry];
    CHECK(context[position] != kNothing) << "sequence " << row.id << " reads position " << position
                                         << " of block " << block << ", where nothing is";
  }
  return context;
}

void FakeExecutor::RunRow(const ScheduledSequence& row, SequenceResult* result) {
  const size_t begin = static_cast<size_t>(row.context_begin);
  const std::vector<int32_t> context = ReadContext(row, begin + row.tokens.size());
  CHECK_LE(row.score_targets.size(), row.tokens.size());
  for (size_t i = 0; i < row.score_targets.size(); ++i) {
    result->scored.push_back(MakeScore(row.score_targets[i], begin + i + 1,
                                       row.sampling.num_prompt_top_logprobs, options_.vocab_size));
  }
  if (!row.samples) return;
  FollowHistory(row, context);
  const std::optional<int32_t> next =
      next_token_ != nullptr ? next_token_(context, row) : ChooseToken(row, context);
  result->sampled = true;
  result->is_nan = !next.has_value();
  result->next.token = 0;
  if (!next.has_value()) return;
  result->next =
      MakeScore(*next, context.size(), row.sampling.num_top_logprobs, options_.vocab_size);
  if (row.sampling.needs_history()) histories_[row.slot].push_back(*next);
}

void FakeExecutor::FollowHistory(const ScheduledSequence& row,
                                 const std::vector<int32_t>& context) {
  if (!row.sampling.needs_history()) {
    CHECK(!row.starts_history) << "sequence " << row.id << " needs no history";
    return;
  }
  if (row.slot >= static_cast<int32_t>(histories_.size())) histories_.resize(row.slot + 1);
  std::vector<int32_t>& history = histories_[row.slot];
  if (row.starts_history) {
    history = row.history;
    for (int32_t& token : history) {
      if (token == kPendingToken) token = context[&token - history.data()];
    }
    CHECK_EQ(row.num_prompt + row.output_position, static_cast<int32_t>(context.size()));
  }
  CHECK(history == context) << "the history of slot " << row.slot << " is not sequence " << row.id
                            << "'s";
}

std::optional<int32_t> FakeExecutor::ChooseToken(const ScheduledSequence& row,
                                                 const std::vector<int32_t>& context) const {
  uint64_t seed = row.sampling.seed;
  if (row.sampling.temperature > 0) seed += row.sampling.choice_index * 0x9E3779B97F4A7C15u;
  int32_t token = HashToken(context, seed, options_.vocab_size);
  for (int32_t i = 0; i < options_.vocab_size && !IsPermitted(row, context, token); ++i) {
    token = (token + 1) % options_.vocab_size;
  }
  return token;
}

void FakeExecutor::PassGate() {
  MutexLock lock(&mutex_);
  while (closed_ && num_let_through_ == 0) changed_.Wait(&mutex_);
  if (closed_) --num_let_through_;
}

void FakeExecutor::CloseGate() {
  MutexLock lock(&mutex_);
  closed_ = true;
}

void FakeExecutor::OpenGate() {
  MutexLock lock(&mutex_);
  closed_ = false;
  num_let_through_ = 0;
  changed_.SignalAll();
}

void FakeExecutor::LetThrough(int num_steps) {
  MutexLock lock(&mutex_);
  num_let_through_ += num_steps;
  changed_.SignalAll();
}

void FakeExecutor::WaitForStep(uint64_t num_steps) {
  MutexLock lock(&mutex_);
  while (steps_.size() < num_steps) changed_.Wait(&mutex_);
}

void FakeExecutor::FailNextStep() {
  MutexLock lock(&mutex_);
  fails_ = true;
}

std::vector<FakeExecutor::StepRecord> FakeExecutor::steps() const {
  MutexLock lock(&mutex_);
  return steps_;
}

}  // namespace fastgen::testing
