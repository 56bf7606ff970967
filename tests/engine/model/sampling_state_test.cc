// SamplingState: histories and rules by slot.
#include "engine/model/sampling_state.h"

#include "tests/testing/aborts.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace fastgen {
namespace {

using ::fastgen::testing::Aborts;

constexpr int64_t kVocab = 70;

MemoryPlan Limits() {
  MemoryPlan plan;
  plan.max_model_len = 64;
  plan.max_num_seqs = 3;
  return plan;
}

template <typename T>
std::vector<T> Vector(absl::Span<const T> span) {
  return {span.begin(), span.end()};
}

std::vector<std::pair<int32_t, int32_t>> Counts(const SampleRow& row) {
  std::vector<std::pair<int32_t, int32_t>> counts;
  for (const TokenCount& entry : row.history) counts.emplace_back(entry.token, entry.count);
  return counts;
}

SequenceSampling WithPenalties() {
  SequenceSampling sampling;
  sampling.presence_penalty = 0.5f;
  sampling.frequency_penalty = 0.25f;
  sampling.repetition_penalty = 1.5f;
  return sampling;
}

SequenceSampling WithBadWords(std::vector<std::vector<int32_t>> words) {
  SequenceSampling sampling;
  TokenRules rules;
  rules.bad_words = std::move(words);
  sampling.rules = std::make_shared<const TokenRules>(std::move(rules));
  return sampling;
}

// The first row that samples: the prompt in one chunk, the output behind it as after a preemption.
ScheduledSequence First(SequenceId id, int32_t slot, const SequenceSampling& sampling,
                        std::vector<int32_t> prompt, const std::vector<int32_t>& output = {}) {
  ScheduledSequence sequence;
  sequence.id = id;
  sequence.slot = slot;
  sequence.sampling = sampling;
  sequence.samples = true;
  sequence.num_prompt = static_cast<int32_t>(prompt.size());
  prompt.insert(prompt.end(), output.begin(), output.end());
  sequence.tokens = prompt;
  sequence.starts_history = sampling.needs_history();
  if (sequence.starts_history) sequence.history = std::move(prompt);
  return sequence;
}

ScheduledSequence Decode(const ScheduledSequence& first) {
  ScheduledSequence decode = first;
  decode.starts_history = false;
  decode.history.clear();
  decode.context_begin = static_cast<int32_t>(first.tokens.size());
  decode.tokens = {kPendingToken};
  return decode;
}

SampleRow Fill(SamplingState* state, const ScheduledSequence& sequence, int32_t pending = -1) {
  SampleRow row;
  state->FillRow(sequence, pending, &row);
  return row;
}

TEST_CASE("history counts output tokens, prompt tokens are there with 0", "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  const ScheduledSequence first = First(1, 0, WithPenalties(), {9, 3, 9, 5}, {3, 60, 3});
  const SampleRow row = Fill(&state, first);
  CHECK(Counts(row) == std::vector<std::pair<int32_t, int32_t>>{{3, 2}, {5, 0}, {9, 0}, {60, 1}});
  CHECK(row.presence_penalty == 0.5f);
  CHECK(row.frequency_penalty == 0.25f);
  CHECK(row.repetition_penalty == 1.5f);
  CHECK(row.banned_tokens.empty());
  CHECK(row.allowed_mask.empty());
}

TEST_CASE("what was sampled is in the next row's history", "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  const ScheduledSequence first = First(1, 2, WithPenalties(), {9, 3});
  std::map<int32_t, int32_t> expected = {{3, 0}, {9, 0}};
  Fill(&state, first);
  state.Append(first, 4);
  ++expected[4];
  // Through the whole context: nothing may move once it has begun.
  const ScheduledSequence decode = Decode(first);
  const TokenCount* storage = Fill(&state, decode).history.data();
  state.Append(decode, 9);
  ++expected[9];
  for (int i = 0; i < 60; ++i) {
    const SampleRow row = Fill(&state, decode);
    CHECK(row.history.data() == storage);
    CHECK(Counts(row) ==
          std::vector<std::pair<int32_t, int32_t>>(expected.begin(), expected.end()));
    const int32_t token = (i * 23) % 67;
    state.Append(decode, token);
    ++expected[token];
  }
}

TEST_CASE("a history that starts while its last token is unknown has it", "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  ScheduledSequence decode = First(1, 0, WithPenalties(), {9, 3}, {4});
  decode.context_begin = 3;
  decode.tokens = {kPendingToken};
  CHECK(Counts(Fill(&state, decode, 9)) ==
        std::vector<std::pair<int32_t, int32_t>>{{3, 0}, {4, 1}, {9, 1}});
}

TEST_CASE("a slot's next sequence begins anew", "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  SequenceSampling both = WithBadWords({{4, 5}});
  both.presence_penalty = 1;
  const ScheduledSequence old = First(1, 0, both, {9, 3}, {4});
  CHECK(Vector(Fill(&state, old).banned_tokens) == std::vector<int32_t>{5});
  state.Append(old, 7);
  SequenceSampling other = WithBadWords({{4, 6}, {7, 8}});
  other.presence_penalty = 1;
  const SampleRow row = Fill(&state, First(2, 0, other, {1}));
  CHECK(Counts(row) == std::vector<std::pair<int32_t, int32_t>>{{1, 0}});
  CHECK(row.banned_tokens.empty());  // neither end of a word is the new output's
}

TEST_CASE("slots do not see each other", "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  const ScheduledSequence a = First(1, 0, WithPenalties(), {1});
  const ScheduledSequence b = First(2, 1, WithPenalties(), {2});
  const SampleRow row_a = Fill(&state, a);
  const SampleRow row_b = Fill(&state, b);
  CHECK(Counts(row_a) == std::vector<std::pair<int32_t, int32_t>>{{1, 0}});
  CHECK(Counts(row_b) == std::vector<std::pair<int32_t, int32_t>>{{2, 0}});
  state.Append(a, 50);
  state.Append(b, 60);
  CHECK(Counts(Fill(&state, Decode(a))) ==
        std::vector<std::pair<int32_t, int32_t>>{{1, 0}, {50, 1}});
}

TEST_CASE("bias and allowed ids are compiled as the backend reads them", "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  TokenRules rules;
  rules.logit_bias = {{7, 1.5f}, {2, -100.0f}};
  rules.allowed_token_ids = {0, 31, 32, 69};
  SequenceSampling sampling;
  sampling.rules = std::make_shared<const TokenRules>(rules);
  const ScheduledSequence first = First(1, 1, sampling, {1});
  for (int repeat = 0; repeat < 2; ++repeat) {
    const SampleRow row = Fill(&state, first);
    REQUIRE(row.logit_bias.size() == 2);
    CHECK(row.logit_bias[0].token == 7);
    CHECK(row.logit_bias[0].bias == 1.5f);
    CHECK(row.logit_bias[1].token == 2);
    CHECK(row.logit_bias[1].bias == -100.0f);
    CHECK(Vector(row.allowed_mask) == std::vector<uint32_t>{0x80000001u, 1u, 1u << 5});
    CHECK(row.history.empty());
    state.Append(first, 3);
  }
  // Other rules in the same slot, then none.
  rules.logit_bias.clear();
  rules.allowed_token_ids = {1};
  sampling.rules = std::make_shared<const TokenRules>(rules);
  const ScheduledSequence second = First(2, 1, sampling, {1});
  const SampleRow row = Fill(&state, second);
  CHECK(row.logit_bias.empty());
  CHECK(Vector(row.allowed_mask) == std::vector<uint32_t>{2u, 0u, 0u});
  state.Append(second, 3);
  const SampleRow plain = Fill(&state, First(3, 1, SequenceSampling(), {1}));
  CHECK(plain.allowed_mask.empty());
  CHECK(plain.logit_bias.empty());
}

TEST_CASE("rules are held, so that other rules at their address are not taken for them",
          "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  auto rules = std::make_shared<const TokenRules>();
  const std::weak_ptr<const TokenRules> watched = rules;
  {
    SequenceSampling sampling;
    sampling.rules = std::move(rules);
    const ScheduledSequence first = First(1, 0, sampling, {1});
    Fill(&state, first);
    state.Append(first, 2);
  }
  CHECK_FALSE(watched.expired());
  const ScheduledSequence next = First(2, 0, SequenceSampling(), {1});
  Fill(&state, next);
  CHECK(watched.expired());
}

TEST_CASE("a bad word's last token is banned where the output ends with the rest",
          "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  const SequenceSampling sampling = WithBadWords({{5}, {1, 2, 3}, {2, 2}, {2, 4}, {1, 2, 1, 2, 6}});
  ScheduledSequence row = First(1, 0, sampling, {1, 2});  // the prompt does not count
  row.banned_tokens = {0};
  const auto next = [&](int32_t sampled) {
    state.Append(row, sampled);
    row = Decode(row);
    row.banned_tokens.clear();
    return Vector(Fill(&state, row).banned_tokens);
  };
  CHECK(Vector(Fill(&state, row).banned_tokens) == std::vector<int32_t>{0, 5});
  CHECK(next(1) == std::vector<int32_t>{5});
  CHECK(next(2) == std::vector<int32_t>{5, 3, 2, 4});
  CHECK(next(1) == std::vector<int32_t>{5});
  CHECK(next(2) == std::vector<int32_t>{5, 3, 2, 4, 6});
  CHECK(next(7) == std::vector<int32_t>{5});
  CHECK(next(2) == std::vector<int32_t>{5, 2, 4});
}

TEST_CASE("a preempted sequence's output still counts against bad words", "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  const ScheduledSequence row = First(1, 0, WithBadWords({{1, 2, 3}}), {8, 9}, {7, 1, 2});
  CHECK(Vector(Fill(&state, row).banned_tokens) == std::vector<int32_t>{3});
  // Only its output: not the two prompt tokens, nor one of each.
  const ScheduledSequence other = First(2, 1, WithBadWords({{1, 2, 3}}), {8, 1, 2});
  CHECK(Fill(&state, other).banned_tokens.empty());
  const ScheduledSequence mixed = First(3, 2, WithBadWords({{1, 2, 3}}), {8, 1}, {2});
  CHECK(Fill(&state, mixed).banned_tokens.empty());
}

TEST_CASE("rows that break the scheduler's promises are CHECKed", "[model][sampling]") {
  SamplingState state(Limits(), kVocab);
  const ScheduledSequence first = First(1, 0, WithPenalties(), {9, 3});
  CHECK(Aborts([&] { Fill(&state, Decode(first)); }));  // a history that never began
  Fill(&state, first);
  CHECK(Aborts([&] { Fill(&state, First(2, 0, WithPenalties(), {1})); }));  // one slot, two rows
  state.Append(first, 4);
  CHECK_FALSE(Aborts([&] { Fill(&state, Decode(first)); }));
  ScheduledSequence other = Decode(first);
  other.id = 2;
  CHECK(Aborts([&] { Fill(&state, other); }));  // another sequence's
  ScheduledSequence beyond = first;
  beyond.slot = 3;
  CHECK(Aborts([&] { Fill(&state, beyond); }));
  ScheduledSequence cut = First(3, 1, WithPenalties(), {9, 3});
  cut.history.pop_back();
  CHECK(Aborts([&] { Fill(&state, cut); }));  // not all tokens
}

}  // namespace
}  // namespace fastgen
