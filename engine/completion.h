// Completion: the thread that turns finished steps into text and calls TokenSinks.
//
//   Open, PostStep, PostFinished, PostFailure -> events, in order -> RequestStream -> TokenSink
// A stop string found here goes back to the engine thread as RequestQueue::FinishAt; the choice is
// finished when the engine thread has answered, so that a finished request holds no block. Steps
// travel in StepEvents that go round: the engine thread takes a spare one, fills and posts it, and
// it is spare again once it was delivered. There are kMaxPendingSteps of them, each with room for a
// whole step: the engine thread waits for one when all are unread, and allocates none.
//
// Invariant: every opened stream gets its last call exactly once. No lock is held while a sink is
// called. Thread rule: Open, TakeStepEvent and Post*: engine thread; counters: any thread;
// streams_: the completion thread's own. Tested by tests/engine/engine_test.cc.
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
#include "engine/request_queue.h"
#include "engine/request_stream.h"
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

  struct StepEvent {
    CommitResult result;
    absl::Time begin;
    absl::Time end;
  };

  // `queue` must outlive the object. `max_num_seqs`: sequences in a step.
  Completion(RequestQueue* queue, int32_t max_num_seqs);
  // Delivers what was posted and ends the thread. REQUIRES: nothing is posted any more.
  ~Completion();

  // The request was taken from the queue; so much of its prompt is cached.
  void Open(std::unique_ptr<RequestStream> stream, int32_t cached_tokens);
  // Waits while all are pending.
  std::unique_ptr<StepEvent> TakeStepEvent();
  void PostStep(std::unique_ptr<StepEvent> event);
  void PostFinished(FinishedSequence finished, absl::Time now);
  // Ends all open streams with OnEngineError.
  void PostFailure(std::string message);

  Counters counters() const;

 private:
  struct OpenEvent {
    std::unique_ptr<RequestStream> stream;
    int32_t cached_tokens = 0;
  };
  struct FinishedEvent {
    FinishedSequence finished;
    absl::Time now;
  };
  struct FailureEvent {
    std::string message;
  };
  using Event = std::variant<OpenEvent, std::unique_ptr<StepEvent>, FinishedEvent, FailureEvent>;
  // A choice that has not ended; its request's streams share the RequestStream.
  struct OpenChoice {
    std::shared_ptr<RequestStream> stream;
    const FinishedSequence* finished = nullptr;  // set while a step that ended it is handled
  };

  void Post(Event event);
  void Run();
  void Handle(OpenEvent event);
  void Handle(std::unique_ptr<StepEvent> event);
  void Handle(FinishedEvent event);
  void Handle(FailureEvent event);
  void DeliverOutput(CommitResult::Output* output, absl::Time begin, absl::Time end);
  void FinishChoice(const FinishedSequence& finished, absl::Time now);

  RequestQueue* const queue_;
  absl::flat_hash_map<SequenceId, OpenChoice> choices_;  // completion thread only
  std::atomic<int64_t> prompt_tokens_ = 0;
  std::atomic<int64_t> output_tokens_ = 0;
  std::atomic<int64_t> finished_requests_ = 0;

  Mutex mutex_;
  CondVar has_events_;  // or closed_
  CondVar has_spare_;   // spare_events_ not empty
  std::vector<Event> events_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<StepEvent>> spare_events_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fastgen
