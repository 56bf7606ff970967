// RequestQueue: what the outside tells the engine thread, which requests are live, and how much
// waits.
//
// Commands are taken in the order in which they were given, so a cancel never overtakes the request
// that it ends. A request is live from Push until just before its sink's last call: its id cannot
// be used again until then. From Push until its first step it waits: it takes one of
// max_queued_requests places and its prompt's tokens of max_queued_tokens. A prompt longer than
// that limit is taken when nothing waits. The engine thread publishes its figures here, in one
// piece with what it has taken: whoever asks sees each request exactly once, in the queue or in the
// scheduler.
//
// Invariant: num_undelivered >= number of live ids; both are zero when the engine is idle.
// Thread rule: any thread, but Take, Wait, IsOver, Started, Answered and Publish: engine thread;
// Retire and Delivered: completion thread. No TokenSink and no `done` is called under the lock.
// Tested by tests/engine/request_queue_test.cc and tests/engine/engine_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "engine/engine_command.h"
#include "engine/request.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/step_cost.h"

namespace fastgen {

struct QueueLimits {
  int32_t max_requests = 1024;
  int64_t max_tokens = 4 << 20;  // prompt tokens, once for every choice: each has its copy
  // Live choices of all requests, running and preempted ones too.
  int32_t max_sequences = std::numeric_limits<int32_t>::max();
};

// A request that waits.
struct QueuePlace {
  int32_t num_prompt_tokens = 0;
  int32_t priority = 0;  // [-kMaxPriority, kMaxPriority]
  int32_t num_choices = 1;

  int64_t num_tokens() const { return int64_t{num_prompt_tokens} * num_choices; }
};

inline constexpr int32_t kMaxPriority = 100;

// The engine thread's figures, as of its last step or command.
struct EngineSnapshot {
  SchedulerStats scheduler;
  StepCost step_cost;
  int64_t num_steps = 0;
  int64_t last_step_us = 0;  // when one ended last, on the engine's clock
  // Tokens whose KV is in either tier, held or cached: no prompt has more of them cached.
  int64_t num_kv_tokens = 0;
  bool paused = false;
};

class RequestQueue {
 public:
  // Queries asked and not answered, beyond which no plan is taken: anybody may ask for plans. What
  // operators order is never turned away.
  static constexpr int32_t kMaxQueries = 64;

  explicit RequestQueue(const QueueLimits& limits);

  // OK while new requests are taken; else UNAVAILABLE (draining, failed).
  absl::Status CheckAccepting() const;
  // What Push would say now.
  absl::Status CheckPush(std::string_view request_id, const QueuePlace& place) const;

  // Queues a request. UNAVAILABLE, ALREADY_EXISTS or RESOURCE_EXHAUSTED without any effect but that
  // `command` is gone. `sink` is the request's, for Cancel to compare.
  absl::Status Push(std::string_view request_id, const TokenSink* sink, const QueuePlace& place,
                    AddCommand command);
  // False when no such request is live, or it does not feed `only`.
  bool Cancel(std::string_view request_id, const TokenSink* only);
  void CancelAll();
  void FinishAt(SequenceId id, int32_t num_output_tokens);
  void Resume();

  // Hands a query to the engine thread. When it does not, `query` is untouched and the caller
  // answers it.
  enum class Asked { kTaken, kEnding, kTooMany };
  Asked Ask(EngineCommand&& query);

  void StartDrain();
  bool draining() const;
  // From now on everything is refused with UNAVAILABLE and `message`.
  void Fail(std::string_view message);
  // OK, or what Fail was given.
  absl::Status health() const;
  // False when something is still undelivered after `timeout`.
  bool WaitIdle(absl::Duration timeout);
  // Ends the engine thread once everything has ended.
  void Close();

  // Moves all commands to `commands`, which is empty before.
  void Take(std::vector<EngineCommand>* commands);
  // Sleeps until there are commands, Wake or Close was called since the last Wait, or `timeout` has
  // passed.
  void Wait(absl::Duration timeout);
  void Wake();
  // True when Close was called and there are no commands.
  bool IsOver() const;
  // A request had its first step or ended without one: its place is free.
  void Started(const QueuePlace& place);
  void Answered();
  // What was taken before is part of `snapshot`.
  void Publish(const EngineSnapshot& snapshot);

  // The request's last sink call is about to be made: its id may be used again.
  void Retire(std::string_view request_id);
  // The sink's last call has returned and the sink has been let go.
  void Delivered();

  // The last snapshot; num_waiting and num_waiting_tokens count what the engine thread has yet to
  // take as well.
  EngineSnapshot snapshot() const;
  // Prompt tokens that wait in classes up to `priority`.
  int64_t NumTokensAhead(int32_t priority) const;

 private:
  struct Untaken {
    int32_t num_sequences = 0;
    int64_t num_tokens = 0;
  };
  struct Live {
    SequenceId leader = 0;
    const TokenSink* sink = nullptr;
    int32_t num_choices = 1;
    bool cancelled = false;  // one command is enough, however often it is asked for
  };

  absl::Status CheckAcceptingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckPushLocked(std::string_view request_id, const QueuePlace& place) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  template <typename Command>
  void Append(Command command) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const QueueLimits limits_;
  mutable Mutex mutex_;
  CondVar changed_;  // commands_ not empty, or woken_
  CondVar idle_;     // num_undelivered_ == 0
  std::vector<EngineCommand> commands_ ABSL_GUARDED_BY(mutex_);
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<std::string, Live> live_ ABSL_GUARDED_BY(mutex_);
  int32_t num_queued_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_queued_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_sequences_ ABSL_GUARDED_BY(mutex_) = 0;  // of live_
  // By priority + kMaxPriority; they sum up to num_queued_tokens_.
  std::array<int64_t, 2 * kMaxPriority + 1> tokens_by_class_ ABSL_GUARDED_BY(mutex_) = {};
  Untaken untaken_ ABSL_GUARDED_BY(mutex_);      // still in commands_
  Untaken unpublished_ ABSL_GUARDED_BY(mutex_);  // taken since the last Publish
  int32_t num_queries_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_undelivered_ ABSL_GUARDED_BY(mutex_) = 0;
  EngineSnapshot snapshot_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fastgen
