// Completion: the thread that turns finished steps into text and calls TokenSinks.
//
//   Open, PostStep, PostFinished, PostFailure -> events, in order -> OutputStream -> TokenSink
// A stop string found here goes back to the engine thread as RequestQueue::FinishAt; the stream is
// finished when the engine thread has answered, so that a finished request holds no block. The
// engine thread waits in PostStep while kMaxPendingSteps are unread: memory stays bounded.
//
// Invariant: every opened stream gets its last call exactly once. No lock is held while a sink is
// called. Thread rule: Open: any thread; Post*: engine thread; streams_: the completion thread's
// own. Tested by tests/engine/engine_test.cc.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "engine/output_stream.h"
#include "engine/request_queue.h"
#include "engine/schedule/scheduler.h"

namespace fastgen {

class Completion {
 public:
  static constexpr int kMaxPendingSteps = 64;

  struct Counters {
    int64_t prompt_tokens = 0;
    int64_t output_tokens = 0;
    int64_t finished_requests = 0;
  };

  // `queue` must outlive the object.
  explicit Completion(RequestQueue* queue);
  // Delivers what was posted and ends the thread. REQUIRES: nothing is posted any more.
  ~Completion();

  void Open(SequenceId id, std::unique_ptr<OutputStream> stream);
  void PostStep(CommitResult result, absl::Time begin, absl::Time end);
  void PostFinished(FinishedSequence finished, absl::Time now);
  // Ends all open streams with OnEngineError.
  void PostFailure(std::string message);

  Counters counters() const;

 private:
  struct OpenEvent {
    SequenceId id = 0;
    std::unique_ptr<OutputStream> stream;
  };
  struct StepEvent {
    CommitResult result;
    absl::Time begin;
    absl::Time end;
  };
  struct FinishedEvent {
    FinishedSequence finished;
    absl::Time now;
  };
  struct FailureEvent {
    std::string message;
  };
  using Event = std::variant<OpenEvent, StepEvent, FinishedEvent, FailureEvent>;
  struct OpenStream {
    std::unique_ptr<OutputStream> stream;
    const FinishedSequence* finished = nullptr;  // set while a step that ended it is handled
  };

  void Post(Event event);
  void Run();
  void Handle(OpenEvent event);
  void Handle(StepEvent event);
  void Handle(FinishedEvent event);
  void Handle(FailureEvent event);
  void DeliverOutput(CommitResult::Output output, absl::Time begin, absl::Time end);
  void FinishStream(const FinishedSequence& finished, absl::Time now);

  RequestQueue* const queue_;
  absl::flat_hash_map<SequenceId, OpenStream> streams_;  // completion thread only
  std::atomic<int64_t> prompt_tokens_ = 0;
  std::atomic<int64_t> output_tokens_ = 0;
  std::atomic<int64_t> finished_requests_ = 0;

  Mutex mutex_;
  CondVar has_events_;  // or closed_
  CondVar has_room_;    // num_pending_steps_ < kMaxPendingSteps
  std::vector<Event> events_ ABSL_GUARDED_BY(mutex_);
  int num_pending_steps_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fastgen
