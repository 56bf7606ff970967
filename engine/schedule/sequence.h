// Sequence: one choice of one request inside the scheduler: its tokens, how far they are computed,
// its blocks, when it stops.
//
// Tokens are the prompt, then the output. Steps may be in flight, so there are two lengths and two
// fronts:
//   tokens.size()   tokens whose ids are known here        num_committed  positions whose KV a
//   retired step wrote length()        those and the num_pending sampled by   num_computed
//   positions whose KV is written once all
//                   steps in flight                                       planned steps have run
// The newest token has no KV until the next step feeds it: a decode row is the state num_computed
// == length() - 1. Preemption by recompute sets num_computed to 0 and keeps the tokens: prefill
// then covers prompt and output alike. Preemption by swap keeps num_computed, and the KV in host
// blocks.
//
// Invariants: num_committed <= num_computed <= length(); only a running sequence holds device
// blocks; the first num_indexed blocks of its table are in the prefix index. Thread rule: engine
// thread only. Tested by tests/engine/schedule/scheduler_test.cc.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/schedule/step_plan.h"

namespace fastgen {

// Conditions that end a sequence by its ids alone (stop strings are found on the completion side).
struct StopCondition {
  int32_t max_output_tokens = 0;  // 0: score the prompt only, sample nothing
  int32_t min_output_tokens = 0;  // an output token of a lower index is never a stop id
  std::vector<int32_t>
      stop_token_ids;  // eos included unless ignored; any order (Scheduler::Add sorts them)
};

inline constexpr int64_t kNoDeadline = std::numeric_limits<int64_t>::max();

struct NewSequence {
  SequenceId id = 0;
  std::vector<int32_t> prompt;
  StopCondition stop;
  SequenceSampling sampling;
  int32_t priority = 0;  // lower runs earlier
  // Microseconds on the clock that Scheduler::Expire is given.
  int64_t arrival_us = 0;
  int64_t deadline_us = kNoDeadline;
  std::string cache_salt;
  int32_t num_cached_tokens =
      0;  // what Lookup said, if it was asked: they do not count as waiting work
  // The output may be cut by FinishAt (stop strings): output blocks enter the prefix index only
  // once that has happened.
  bool may_be_cut = false;
  // Another choice of the same prompt, added before and possibly ended since: this one starts when
  // that one's prompt is computed, and shares its blocks. 0: none.
  SequenceId leader = 0;
};

// How a sequence ended. output_tokens counts what the client gets (a stop token included).
struct FinishedSequence {
  SequenceId id = 0;
  FinishReason reason = FinishReason::kStop;
  std::optional<int32_t> matched_token_id;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;  // of the prompt, at the first admission
  int32_t output_tokens = 0;
  int32_t num_chunks = 0;  // steps that fed prompt or recomputed tokens
  int32_t num_steps = 0;   // steps of any kind
  int32_t num_preemptions = 0;
  int32_t num_page_ins = 0;  // blocks
  bool is_nan = false;       // reason kError: a row of logits held a NaN
  absl::Status failure;      // reason kError: or this, SequenceResult's
};

// The order of service: earlier arrival first within a class, and a class more is worth `ageing_us`
// of waiting. Smaller is admitted earlier and preempted later. It never changes, so nothing has to
// be re-sorted as time passes.
struct ServiceOrder {
  int64_t virtual_arrival_us = 0;  // arrival_us + priority * ageing_us
  uint64_t arrival = 0;            // 1, 2, 3, ... in the order of Add

  friend bool operator<(const ServiceOrder& a, const ServiceOrder& b) {
    if (a.virtual_arrival_us != b.virtual_arrival_us) {
      return a.virtual_arrival_us < b.virtual_arrival_us;
    }
    return a.arrival < b.arrival;
  }
};

// The scheduler's own record of a live sequence.
struct Sequence {
  enum class Phase {
    kHeld,     // waits for its leader's prompt
    kWaiting,  // in the queue: new, or preempted
    kRunning,
  };

  SequenceId id = 0;
  ServiceOrder order;  // kept across preemptions
  int32_t priority = 0;
  Phase phase = Phase::kWaiting;
  StopCondition stop;
  SequenceSampling sampling;
  int64_t deadline_us = kNoDeadline;
  std::string cache_salt;
  bool may_be_cut = false;
  SequenceId leader = 0;
  std::vector<SequenceId> held_followers;

  std::vector<int32_t> tokens;  // prompt, then output
  int32_t num_prompt = 0;
  int32_t num_pending = 0;
  int32_t num_computed = 0;
  int32_t num_committed = 0;
  int32_t prefill_end = 0;    // length at the last admission: rows that begin below it are chunks
  bool is_prefilled = false;  // its prompt was computed once; survives preemption
  int32_t num_scored = 0;     // prompt tokens whose scores were reported; survives preemption
  uint64_t row_in_step = 0;   // the last step that has a row of it, or is being planned with one
  uint64_t preempted_in_step = 0;  // while that was planned, last
  int32_t last_row = -1;           // the row
  uint32_t epoch = 0;  // counts recomputes: rows of an earlier epoch extend KV that is gone
  int32_t slot = -1;   // while running
  bool history_started = false;  // since the last admission

  std::vector<int32_t> block_table;
  int32_t num_indexed = 0;
  bool is_cacheable = true;
  // Host tier: chunks [0, num_host_chunks) of this sequence are there or on the way; the last of
  // them is host_parent.
  int32_t num_host_chunks = 0;
  int32_t host_parent = -1;
  uint64_t host_parent_hash = 0;
  bool fills_host = true;
  std::vector<int32_t> swap_chunks;  // while swapped out: hold the KV of [0, num_computed)

  // What it lacked when it was last looked up for admission; not looked up again before that step
  // unless so many are available.
  int32_t blocked_num_blocks = 0;
  uint64_t blocked_until_step = 0;
  int32_t num_found = 0;       // NewSequence::num_cached_tokens
  int32_t waiting_tokens = 0;  // what it adds to the count of those that wait, while it does
  int32_t cached_tokens = 0;
  int32_t num_chunks = 0;
  int32_t num_steps = 0;
  int32_t num_preemptions = 0;
  int32_t num_page_ins = 0;

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_output() const { return num_tokens() - num_prompt; }
  int32_t length() const { return num_tokens() + num_pending; }
  int32_t num_remaining() const { return length() - num_computed; }
};

}  // namespace fastgen
