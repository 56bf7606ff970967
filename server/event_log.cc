#include "server/event_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace fastgen {
namespace {

// What one event costs beside its contents.
constexpr int64_t kEventBytes = 256;
constexpr int64_t kCandidateBytes = 48;
constexpr int64_t kToolCallBytes = 64;

int64_t NumBytesOf(const std::vector<TokenLogprob>& logprobs) {
  int64_t num_bytes = 0;
  for (const TokenLogprob& logprob : logprobs) {
    num_bytes += kCandidateBytes * static_cast<int64_t>(1 + logprob.top.size());
  }
  return num_bytes;
}

int64_t NumBytesOf(const TokenDelta& delta, const DeltaFields& fields, const std::string& raw) {
  int64_t num_bytes = static_cast<int64_t>(raw.size());
  if (fields.text) {
    num_bytes += static_cast<int64_t>(delta.text.size() + delta.reasoning.size());
    for (const ToolCallDelta& call : delta.tool_calls) {
      num_bytes += kToolCallBytes + static_cast<int64_t>(call.id.size() + call.name.size() +
                                                         call.arguments.size());
    }
  }
  if (fields.token_ids) num_bytes += 4 * static_cast<int64_t>(delta.token_ids.size());
  if (fields.logprobs) num_bytes += NumBytesOf(delta.logprobs);
  if (fields.prompt_logprobs) num_bytes += NumBytesOf(delta.prompt_logprobs);
  return num_bytes;
}

int32_t WeightOf(const TokenDelta& delta) {
  return NumOutputTokens(delta) +
         std::max(delta.num_prompt_tokens, static_cast<int32_t>(delta.prompt_logprobs.size()));
}

}  // namespace

EventLog::EventLog(Keep keep, int32_t num_choices, int32_t max_ring_tokens)
    : keep_(keep),
      max_ring_tokens_(max_ring_tokens),
      last_delta_of_(static_cast<size_t>(num_choices), -1) {}

EventLog::Entry* EventLog::Append() {
  Entry& entry = entries_.emplace_back();
  entry.position = end_position_;
  entry.weight_before = end_weight_;
  entry.num_bytes = kEventBytes;
  num_bytes_ += kEventBytes;
  return &entry;
}

EventLog::Entry* EventLog::EntryFor(int32_t index, int32_t weight) {
  CHECK(index >= 0 && static_cast<size_t>(index) < last_delta_of_.size())
      << "a delta of choice " << index << " of " << last_delta_of_.size();
  int64_t& last = last_delta_of_[static_cast<size_t>(index)];
  const bool waits =
      last >= std::max(begin_, taken_end_) && (keep_ == Keep::kUntilTaken || last == end() - 1);
  if (waits) {
    Entry& entry = entries_[static_cast<size_t>(last - begin_)];
    if (entry.weight + weight <= kMaxMessageTokens) return &entry;
  }
  last = end();
  return Append();
}

void EventLog::Add(TokenDelta delta, const DeltaFields& fields, const std::string& raw) {
  const int32_t num_tokens = NumOutputTokens(delta);
  const int32_t weight = WeightOf(delta);
  const int64_t num_bytes = NumBytesOf(delta, fields, raw);
  Entry* entry = EntryFor(delta.index, weight);
  v1::Delta* proto = entry->event.mutable_delta();
  AppendToProto(std::move(delta), fields, proto);
  if (!raw.empty()) proto->mutable_raw()->append(raw);
  entry->num_tokens += num_tokens;
  entry->weight += weight;
  entry->num_bytes += num_bytes;
  num_bytes_ += num_bytes;
  end_position_ += num_tokens;
  end_weight_ += weight;
}

void EventLog::Add(v1::Finished finished) {
  *Append()->event.mutable_finished() = std::move(finished);
}

bool EventLog::DropOldest() {
  if (entries_.size() < 2) return false;
  num_bytes_ -= entries_.front().num_bytes;
  dropped_position_ = entries_.front().position;
  entries_.pop_front();
  ++begin_;
  return true;
}

void EventLog::Trim(int64_t unread) {
  if (keep_ != Keep::kAsRing) return;
  while (begin_ < unread && NumTokensFrom(begin_) > max_ring_tokens_ && DropOldest()) {
  }
}

void EventLog::Clear() {
  begin_ = end();
  entries_.clear();
  num_bytes_ = 0;
}

int64_t EventLog::first_position() const {
  return entries_.empty() ? end_position_ : entries_.front().position;
}

bool EventLog::Take(int64_t number, v1::GenerateEvent* event) {
  if (number < begin_ || number >= end()) return false;
  taken_end_ = std::max(taken_end_, number + 1);
  if (keep_ == Keep::kAsRing) {
    *event = entries_[static_cast<size_t>(number - begin_)].event;
    return true;
  }
  CHECK_EQ(number, begin_) << "an outbox is taken in order";
  *event = std::move(entries_.front().event);
  num_bytes_ -= entries_.front().num_bytes;
  entries_.pop_front();
  ++begin_;
  return true;
}

absl::StatusOr<EventLog::Place> EventLog::Find(int64_t from_token) const {
  if (from_token > end_position_) {
    return absl::OutOfRangeError(absl::StrCat("from_token: ", from_token, " is beyond the ",
                                              end_position_, " tokens that were produced"));
  }
  // An event without tokens stands at the position of the one after it: it may be gone where that
  // one is kept.
  const int64_t oldest = std::max(first_position(), dropped_position_ + 1);
  if (from_token < oldest) {
    return absl::OutOfRangeError(absl::StrCat(
        "from_token: ", from_token, " is no longer kept; the oldest that is kept is ", oldest));
  }
  // The first event at that position; else the one that holds the token.
  const auto at_or_after = std::lower_bound(
      entries_.begin(), entries_.end(), from_token,
      [](const Entry& entry, int64_t position) { return entry.position < position; });
  auto found = at_or_after;
  const bool exact = found != entries_.end() && found->position == from_token;
  if (!exact && from_token < end_position_) --found;
  Place place;
  place.number = begin_ + (found - entries_.begin());
  place.position = found == entries_.end() ? end_position_ : found->position;
  return place;
}

int64_t EventLog::NumTokensFrom(int64_t number) const {
  if (number >= end()) return 0;
  return end_weight_ -
         entries_[static_cast<size_t>(std::max(number, begin_) - begin_)].weight_before;
}

}  // namespace fastgen
