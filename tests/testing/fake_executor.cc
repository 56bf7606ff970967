#include "tests/testing/fake_executor.h"

#include <set>
#include <utility>

#include "absl/status/status.h"
#include "base/check.h"

namespace fastgen::testing {
namespace {

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

void CheckBlocks(const StepPlan& plan, int32_t block_size) {
  std::set<int32_t> written;
  for (const ScheduledSequence& sequence : plan.sequences) {
    const int32_t end = sequence.context_begin + static_cast<int32_t>(sequence.tokens.size());
    CHECK_GE(static_cast<int64_t>(sequence.block_table.size()) * block_size, end);
    for (int32_t block = sequence.context_begin / block_size; block * block_size < end; ++block) {
      const bool is_new = written.insert(sequence.block_table[block]).second;
      CHECK(is_new) << "block " << sequence.block_table[block] << " is written twice";
    }
  }
}

}  // namespace

float FakeLogprob(int32_t token, size_t num_context) {
  return -0.01f * static_cast<float>(token) - static_cast<float>(num_context);
}

absl::StatusOr<StepResult> FakeExecutor::Run(const StepPlan& plan) {
  CheckBlocks(plan, options_.block_size);
  StepResult result;
  int32_t num_tokens = 0;
  for (const ScheduledSequence& sequence : plan.sequences) {
    num_tokens += static_cast<int32_t>(sequence.tokens.size());
    result.sequences.push_back(RunSequence(sequence));
  }
  CHECK_EQ(num_tokens, plan.num_tokens);
  {
    MutexLock lock(&mutex_);
    steps_.push_back({num_tokens, static_cast<int32_t>(plan.sequences.size())});
    changed_.SignalAll();
    if (std::exchange(fails_, false)) return absl::UnavailableError("device lost");
  }
  PassGate();
  return result;
}

SequenceResult FakeExecutor::RunSequence(const ScheduledSequence& sequence) {
  std::vector<int32_t>& context = contexts_[sequence.id];
  CHECK_LE(static_cast<size_t>(sequence.context_begin), context.size()) << "positions are missing";
  context.resize(sequence.context_begin);  // a preempted sequence starts again
  SequenceResult result;
  for (size_t i = 0; i < sequence.tokens.size(); ++i) {
    context.push_back(sequence.tokens[i]);
    if (i >= sequence.score_targets.size()) continue;
    result.scored.push_back(MakeScore(sequence.score_targets[i], context.size(),
                                      sequence.sampling.num_prompt_top_logprobs,
                                      options_.vocab_size));
  }
  if (!sequence.samples) return result;
  std::optional<int32_t> next = HashToken(context, sequence.sampling.seed, options_.vocab_size);
  if (next_token_ != nullptr) next = next_token_(context, sequence);
  result.sampled = true;
  result.is_nan = !next.has_value();
  if (next.has_value()) {
    result.next =
        MakeScore(*next, context.size(), sequence.sampling.num_top_logprobs, options_.vocab_size);
  }
  return result;
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
