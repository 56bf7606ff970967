// MaskFiller: follows the constrained sequences, by slot, and computes their next masks beside the
// forward pass.
//
// A token that is sampled at the end of one step decides the mask at the end of the next; in
// between the device is busy. So the executor hands the token over at once (Push), a worker thread
// feeds the matcher and fills the mask, and the executor takes it just before it samples (Wait).
// What the worker has not begun by then the executor does itself. Errors of a matcher stay with its
// slot until the next Start. Nobody says when a sequence ends: its constraint, which this does not
// keep alive, goes with it, and at the next Start of any slot the worker frees its matcher. The
// first constraint starts the thread; without one there is none. Thread rule: one thread, the
// executor's; the worker is the object's own. Tested by tests/engine/model/mask_filler_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "engine/token_constraint.h"

namespace fastgen {

class MaskFiller {
 public:
  MaskFiller(int32_t num_slots, int64_t vocab);
  ~MaskFiller();

  // A sequence that samples under `constraint` begins in `slot`; `output` is what it has sampled so
  // far.
  void Start(int32_t slot, std::shared_ptr<const TokenConstraint> constraint,
             absl::Span<const int32_t> output);
  // It has sampled `token`. REQUIRES: a Wait since the last Start or Push.
  void Push(int32_t slot, int32_t token);
  // The bits of the tokens that may come next, once they are known; the span holds until the next
  // Start or Push.
  absl::Status Wait(int32_t slot, absl::Span<uint32_t>* mask);

 private:
  enum class State { kIdle, kQueued, kRunning };
  struct Slot {
    bool is_listed = false;      // in queue_; guarded by mutex_
    State state = State::kIdle;  // guarded by mutex_; the rest belongs to whoever made it kRunning,
                                 // or, when kIdle, to the executor
    bool is_new = false;         // the matcher, if there is one, is of the sequence before
    std::weak_ptr<const TokenConstraint> constraint;
    std::unique_ptr<TokenMatcher> matcher;
    std::vector<int32_t> tokens;  // to be accepted
    std::vector<uint32_t> mask;
    absl::Status status;
  };

  void Run();
  void Enqueue(int32_t slot);
  void EnqueueLocked(int32_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Has the worker free what sequences that are gone have left.
  void FreeEnded();
  // Sleeps, or works, until the slot is idle.
  void Settle(Slot* slot);
  static void Work(Slot* slot);

  const size_t num_words_;
  std::vector<Slot> slots_;
  Mutex mutex_;
  CondVar has_work_;                                    // queue_ is not empty, or stopping_
  CondVar has_done_;                                    // a slot went from kRunning to kIdle
  std::vector<int32_t> queue_ ABSL_GUARDED_BY(mutex_);  // each once; some may no longer be kQueued
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fastgen
