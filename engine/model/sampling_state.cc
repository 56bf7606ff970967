#include "engine/model/sampling_state.h"

#include <algorithm>

#include "base/check.h"
#include "base/int_math.h"

namespace fastgen {
namespace {

bool IsLess(const TokenCount& entry, int32_t token) { return entry.token < token; }

bool HasBadWords(const SequenceSampling& sampling) {
  return sampling.rules != nullptr && !sampling.rules->bad_words.empty();
}

// True when `output_end` ends with all of `word` but its last token.
bool EndsWithRest(const std::vector<int32_t>& output_end, const std::vector<int32_t>& word) {
  const size_t rest = word.size() - 1;
  return output_end.size() >= rest &&
         std::equal(word.begin(), word.end() - 1, output_end.end() - static_cast<int64_t>(rest));
}

}  // namespace

SamplingState::SamplingState(const MemoryPlan& plan, int64_t vocab)
    : max_model_len_(plan.max_model_len),
      vocab_(vocab),
      slots_(static_cast<size_t>(plan.max_num_seqs)) {
  // The last token that a sequence samples is never fed. What nobody touches takes no memory.
  const int64_t longest = int64_t{max_model_len_} + 1;
  unsorted_.reserve(static_cast<size_t>(longest));
  for (Slot& slot : slots_) {
    slot.counts.reserve(static_cast<size_t>(std::min(longest, vocab_)));
  }
}

void SamplingState::FillRow(const ScheduledSequence& sequence, int32_t pending_token,
                            SampleRow* row) {
  const SequenceSampling& sampling = sequence.sampling;
  CHECK(sequence.slot >= 0 && sequence.slot < static_cast<int32_t>(slots_.size()))
      << "slot " << sequence.slot << " of " << slots_.size();
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  if (sampling.rules != nullptr || sampling.needs_history()) {
    CHECK(!slot.is_row_filled) << "two rows of a step have slot " << sequence.slot;
    slot.is_row_filled = true;
  }
  if (sampling.rules != slot.rules) {
    slot.rules = sampling.rules;
    if (slot.rules != nullptr) Compile(*slot.rules, &slot);
  }
  if (sampling.needs_history()) {
    if (sequence.starts_history) {
      StartHistory(sequence, pending_token, &slot);
    } else {
      CHECK_EQ(slot.history_owner, sequence.id) << "a row without its history";
    }
  }
  if (sampling.has_penalties()) {
    row->history = slot.counts;
    row->presence_penalty = sampling.presence_penalty;
    row->frequency_penalty = sampling.frequency_penalty;
    row->repetition_penalty = sampling.repetition_penalty;
  }
  row->banned_tokens = sequence.banned_tokens;
  if (slot.rules == nullptr) return;
  row->logit_bias = slot.logit_bias;
  row->allowed_mask = slot.allowed_mask;
  if (HasBadWords(sampling)) {
    BanTokens(sequence, &slot);
    row->banned_tokens = slot.banned_tokens;
  }
}

void SamplingState::Compile(const TokenRules& rules, Slot* slot) const {
  slot->logit_bias.clear();
  slot->logit_bias.reserve(rules.logit_bias.size());
  for (const auto& [token, bias] : rules.logit_bias) slot->logit_bias.push_back({token, bias});
  slot->allowed_mask.clear();
  if (!rules.allowed_token_ids.empty()) {
    slot->allowed_mask.resize(static_cast<size_t>(CeilDiv<int64_t>(vocab_, 32)), 0);
    for (int32_t token : rules.allowed_token_ids) {
      if (token < 0 || token >= vocab_) continue;
      slot->allowed_mask[static_cast<size_t>(token / 32)] |= uint32_t{1} << (token % 32);
    }
  }
  size_t longest = 1;
  for (const std::vector<int32_t>& word : rules.bad_words) {
    CHECK(!word.empty()) << "an empty bad word";
    longest = std::max(longest, word.size());
  }
  slot->max_output_end = longest - 1;
  slot->output_end.reserve(slot->max_output_end);
}

void SamplingState::StartHistory(const ScheduledSequence& sequence, int32_t pending_token,
                                 Slot* slot) {
  const bool is_pending = sequence.tokens.back() == kPendingToken;
  const size_t context = static_cast<size_t>(sequence.context_begin) + sequence.tokens.size();
  CHECK_EQ(sequence.history.size() + (is_pending ? 1 : 0), context) << "sequence " << sequence.id;
  CHECK_LE(context, static_cast<size_t>(max_model_len_));
  CHECK_LE(static_cast<size_t>(sequence.num_prompt), sequence.history.size());
  slot->history_owner = sequence.id;
  slot->counts.clear();
  if (sequence.sampling.has_penalties()) CountTokens(sequence, slot);
  if (HasBadWords(sequence.sampling)) {
    const size_t num_output = sequence.history.size() - static_cast<size_t>(sequence.num_prompt);
    const size_t num_kept = std::min(num_output, slot->max_output_end);
    slot->output_end.assign(sequence.history.end() - static_cast<int64_t>(num_kept),
                            sequence.history.end());
  }
  if (is_pending) AddToHistory(sequence, pending_token, slot);
}

void SamplingState::CountTokens(const ScheduledSequence& sequence, Slot* slot) {
  unsorted_.clear();
  const auto output = sequence.history.begin() + sequence.num_prompt;
  for (auto token = sequence.history.begin(); token != sequence.history.end(); ++token) {
    unsorted_.push_back({*token, token < output ? 0 : 1});
  }
  std::sort(unsorted_.begin(), unsorted_.end(),
            [](const TokenCount& a, const TokenCount& b) { return a.token < b.token; });
  for (const TokenCount& entry : unsorted_) {
    CHECK(entry.token >= 0 && entry.token < vocab_) << entry.token;
    if (!slot->counts.empty() && slot->counts.back().token == entry.token) {
      slot->counts.back().count += entry.count;
    } else {
      slot->counts.push_back(entry);
    }
  }
}

void SamplingState::AddToHistory(const ScheduledSequence& sequence, int32_t token, Slot* slot) {
  if (sequence.sampling.has_penalties()) {
    const auto at = std::lower_bound(slot->counts.begin(), slot->counts.end(), token, IsLess);
    if (at != slot->counts.end() && at->token == token) {
      ++at->count;
    } else {
      slot->counts.insert(at, {token, 1});
    }
  }
  if (slot->max_output_end > 0 && HasBadWords(sequence.sampling)) {
    std::vector<int32_t>& end = slot->output_end;
    if (end.size() == slot->max_output_end) end.erase(end.begin());
    end.push_back(token);
  }
}

void SamplingState::BanTokens(const ScheduledSequence& sequence, Slot* slot) {
  const std::vector<std::vector<int32_t>>& words = slot->rules->bad_words;
  slot->banned_tokens.reserve(words.size() + sequence.banned_tokens.size());
  slot->banned_tokens.assign(sequence.banned_tokens.begin(), sequence.banned_tokens.end());
  for (const std::vector<int32_t>& word : words) {
    if (EndsWithRest(slot->output_end, word)) slot->banned_tokens.push_back(word.back());
  }
}

void SamplingState::Append(const ScheduledSequence& sequence, int32_t token) {
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  slot.is_row_filled = false;
  if (!sequence.sampling.needs_history()) return;
  CHECK_EQ(slot.history_owner, sequence.id);
  AddToHistory(sequence, token, &slot);
}

}  // namespace fastgen
