// RequestQueue: what the outside tells the engine thread, and which requests are live.
//
// Commands (add, cancel, finish at) are taken in the order in which they were given, so a cancel
// never overtakes the request that it ends. A request is live from Push until just before its
// sink's last call: its id cannot be used again until then. It occupies one of `max_queued` places
// until its first step.
//
// Invariant: num_undelivered >= number of live ids; both are zero when the engine is idle.
// Thread rule: any thread, but Take, Wait and Started: engine thread; Retire and Delivered:
// completion thread. `on_accept` runs under the lock; no TokenSink is ever called under it. Tested
// by tests/engine/request_queue_test.cc and tests/engine/engine_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "engine/request.h"
#include "engine/schedule/sequence.h"

namespace fastgen {

struct AddCommand {
  NewSequence sequence;
};
struct CancelCommand {
  SequenceId id = 0;
};
struct FinishAtCommand {
  SequenceId id = 0;
  int32_t num_output_tokens = 0;
};
using EngineCommand = std::variant<AddCommand, CancelCommand, FinishAtCommand>;

class RequestQueue {
 public:
  explicit RequestQueue(int32_t max_queued);

  // OK while new requests are taken; else UNAVAILABLE (draining, failed).
  absl::Status CheckAccepting() const;

  // Queues `sequence` under `request_id` and calls `on_accept` before the engine thread can see it.
  // UNAVAILABLE, ALREADY_EXISTS or RESOURCE_EXHAUSTED without any effect.
  absl::Status Push(std::string_view request_id, NewSequence sequence,
                    absl::FunctionRef<void()> on_accept);
  // False when no such request is live.
  bool Cancel(std::string_view request_id);
  void CancelAll();
  void FinishAt(SequenceId id, int32_t num_output_tokens);

  void StartDrain();
  // From now on everything is refused with UNAVAILABLE and `message`.
  void Fail(std::string_view message);
  // OK, or what Fail was given.
  absl::Status health() const;
  // False when something is still undelivered after `timeout`.
  bool WaitIdle(absl::Duration timeout);
  // Lets Wait return false once there are no commands.
  void Close();

  // Moves all commands to `commands`, which is empty before.
  void Take(std::vector<EngineCommand>* commands);
  // Sleeps until there are commands (true), or Close was called and there are none (false).
  bool Wait();
  // `num_sequences` had their first step or ended without one: their places are free.
  void Started(int32_t num_sequences);

  // The request's last sink call is about to be made: its id may be used again.
  void Retire(std::string_view request_id);
  // The sink's last call has returned and the sink has been let go.
  void Delivered();

  int32_t num_queued() const;

 private:
  absl::Status CheckAcceptingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int32_t max_queued_;
  mutable Mutex mutex_;
  CondVar has_commands_;  // or closed_
  CondVar idle_;          // num_undelivered_ == 0
  std::vector<EngineCommand> commands_ ABSL_GUARDED_BY(mutex_);
  struct Live {
    SequenceId id = 0;
    bool cancelled = false;  // one command is enough, however often it is asked for
  };
  absl::flat_hash_map<std::string, Live> live_ ABSL_GUARDED_BY(mutex_);
  int32_t num_queued_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_undelivered_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fastgen
