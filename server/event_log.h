// EventLog: what one request has produced and its reader has yet to get, in the order of delivery.
//
// Two ways to keep it: kUntilTaken, an outbox (what was taken is gone), and kAsRing, the last
// `max_ring_tokens` tokens for readers that come back. Deltas of one choice that wait together
// become one message of at most kMaxMessageTokens tokens, which keeps messages below clients' usual
// 4 MiB limit; a ring joins only neighbours, so that positions stay. A position is the number of
// output tokens before an event, over all choices. An event that was taken once never changes
// again: what a client counts is always the position of an event. Thread rule: its owner's lock.
// Tested by tests/server/event_log_test.cc.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/token_sink.h"
#include "fastgen/v1/inference.pb.h"
#include "server/proto_convert.h"

namespace fastgen {

class EventLog {
 public:
  enum class Keep { kUntilTaken, kAsRing };
  // 256 tokens with 20 candidates each are about 200 KiB.
  static constexpr int32_t kMaxMessageTokens = 256;

  // REQUIRES: max_ring_tokens >= 1 for kAsRing; else it is not used.
  EventLog(Keep keep, int32_t num_choices, int32_t max_ring_tokens);

  // `raw`: the bytes of the delta's tokens, when they were asked for.
  void Add(TokenDelta delta, const DeltaFields& fields, const std::string& raw);
  void Add(v1::Finished finished);
  // Drops what exceeds the ring's tokens, the oldest first, of the events before number `unread`:
  // what a reader has yet to get stays, however small the ring is.
  void Trim(int64_t unread);
  // Drops the oldest event, but never the only one. False when there was nothing to drop.
  bool DropOldest();
  void Clear();

  // Events are numbered; [begin, end) are kept.
  int64_t begin() const { return begin_; }
  int64_t end() const { return begin_ + static_cast<int64_t>(entries_.size()); }
  // Positions: of the first event that is kept, and after the last.
  int64_t first_position() const;
  int64_t end_position() const { return end_position_; }
  // Moves (kUntilTaken) or copies (kAsRing) an event. False when `number` is outside [begin, end).
  bool Take(int64_t number, v1::GenerateEvent* event);
  // The number and position of the first event for a reader that has `from_token` tokens.
  // OUT_OF_RANGE naming both numbers.
  struct Place {
    int64_t number = 0;
    int64_t position = 0;
  };
  absl::StatusOr<Place> Find(int64_t from_token) const;

  // Tokens of the prompt and the output in the events from `number` on.
  int64_t NumTokensFrom(int64_t number) const;
  // What the events that are kept take in memory, roughly.
  int64_t num_bytes() const { return num_bytes_; }

 private:
  struct Entry {
    v1::GenerateEvent event;
    int64_t position = 0;       // output tokens before it
    int32_t num_tokens = 0;     // output tokens in it
    int64_t weight_before = 0;  // tokens of prompt and output before it
    int32_t weight = 0;
    int64_t num_bytes = 0;
  };

  // The event that takes more of choice `index`: one that waits, or a new one.
  Entry* EntryFor(int32_t index, int32_t weight);
  Entry* Append();

  const Keep keep_;
  const int64_t max_ring_tokens_;
  std::deque<Entry> entries_;
  std::vector<int64_t> last_delta_of_;  // by choice: the number of its latest delta
  int64_t begin_ = 0;
  int64_t taken_end_ = 0;          // events before it were taken
  int64_t dropped_position_ = -1;  // of the youngest event that the ring lost
  int64_t end_position_ = 0;
  int64_t end_weight_ = 0;
  int64_t num_bytes_ = 0;
};

}  // namespace fastgen
