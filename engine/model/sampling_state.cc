#include "engine/model/sampling_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
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
      slots_(static_cast<size_t>(plan.max_num_seqs)),
      masks_(plan.max_num_seqs, vocab) {
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
      if (sampling.constraint != nullptr) StartMask(sequence, pending_token);
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
  if (slot.rules != nullptr) {
    row->logit_bias = slot.logit_bias;
    row->allowed_mask = slot.allowed_mask;
    if (HasBadWords(sampling)) {
      BanTokens(sequence, &slot);
      row->banned_tokens = slot.banned_tokens;
    }
  }
  if (sampling.constraint == nullptr) return;
  slot.mask.resize(static_cast<size_t>(CeilDiv<int64_t>(vocab_, 32)));
  row->allowed_mask = slot.mask;
  slot.row_banned_tokens = row->banned_tokens;
}

void SamplingState::StartMask(const ScheduledSequence& sequence, int32_t pending_token) {
  std::vector<int32_t> output(sequence.history.begin() + sequence.num_prompt,
                              sequence.history.end());
  if (sequence.tokens.back() == kPendingToken) output.push_back(pending_token);
  slots_[static_cast<size_t>(sequence.slot)].failure = absl::OkStatus();
  masks_.Start(sequence.slot, sequence.sampling.constraint, output);
}

void SamplingState::FinishMasks(const StepPlan& plan) {
  for (const ScheduledSequence& sequence : plan.sequences) {
    if (!sequence.samples || sequence.sampling.constraint == nullptr) continue;
    Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
    absl::Span<uint32_t> mask;
    // A sequence that has failed may still have a row, planned ahead, that nobody looks at.
    absl::Status status = masks_.Wait(sequence.slot, &mask);
    if (status.ok()) status = ApplyRules(sequence, mask, &slot);
    if (slot.failure.ok()) slot.failure = std::move(status);
  }
}

absl::Status SamplingState::ApplyRules(const ScheduledSequence& sequence,
                                       absl::Span<const uint32_t> mask, Slot* slot) const {
  CHECK_EQ(mask.size(), slot->mask.size());
  bool was_any = false;
  for (size_t i = 0; i < mask.size(); ++i) {
    slot->mask[i] = mask[i];
    if (!slot->allowed_mask.empty() && sequence.sampling.rules != nullptr) {
      slot->mask[i] &= slot->allowed_mask[i];
    }
    was_any = was_any || mask[i] != 0;
  }
  for (int32_t token : slot->row_banned_tokens) {
    if (token >= 0 && token < vocab_) {
      slot->mask[static_cast<size_t>(token / 32)] &= ~(uint32_t{1} << (token % 32));
    }
  }
  for (uint32_t word : slot->mask) {
    if (word != 0) return absl::OkStatus();
  }
  if (!was_any) {
    return absl::FailedPreconditionError(
        absl::StrCat("constraint: the model's vocabulary has no token that may come after ",
                     sequence.output_position, " output tokens"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "constraint: every token that it allows after ", sequence.output_position,
      " output tokens is excluded by allowed_token_ids, bad_words or min_tokens"));
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
  if (sequence.sampling.constraint != nullptr && slot.failure.ok()) {
    masks_.Push(sequence.slot, token);
  }
  AddToHistory(sequence, token, &slot);
}

absl::Status SamplingState::failure(const ScheduledSequence& sequence) const {
  if (sequence.sampling.constraint == nullptr) return absl::OkStatus();
  return slots_[static_cast<size_t>(sequence.slot)].failure;
}

}  // namespace fastgen
