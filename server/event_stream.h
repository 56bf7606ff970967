// EventStream: one request's events between the engine, which makes them, and the call that reads
// them.
//
// The completion thread puts events into the log and returns; the reader (a GenerateReactor) takes
// them out as fast as its client reads. A reader that falls max_outbox_tokens behind is let go with
// RESOURCE_EXHAUSTED. A request without a resume window ends with its reader. With one it goes on
// without a reader for as long as the window, its log is a ring, and Attach gives it a new reader;
// LiveStreams keeps it and tells it when the window has closed. Invariants: 1. at most one reader,
// and only that one takes events; 2. the end comes after all events, and not before the last choice
// has finished; 3. the engine is told to cancel only what it still works on, and by identity.
// Lifetime: shared by the engine (until its last call), the reader (until its call is done) and
// LiveStreams. Thread rule: sink calls from the completion thread, everything else from any; the
// reader's lock may be held when Take is called, and no lock of this object is held when the
// reader, the engine or LiveStreams is called. Tested by tests/server/generate_test.cc and
// tests/server/attach_test.cc.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "engine/engine.h"
#include "engine/token_sink.h"
#include "fastgen/v1/inference.pb.h"
#include "server/engine_gate.h"
#include "server/event_log.h"
#include "server/key_account.h"
#include "server/metrics.h"
#include "server/proto_convert.h"

namespace fastgen {

class GenerateReactor;
class LiveStreams;

// How a call ends.
struct StreamEnd {
  grpc::Status status;
  std::string usage;  // for the trailers of an error; empty when the request was never accepted
};

struct StreamLimits {
  int32_t max_outbox_tokens = 4096;
  int32_t resume_ring_tokens = 16384;
};

class EventStream final : public TokenSink, public std::enable_shared_from_this<EventStream> {
 public:
  using Clock = std::chrono::steady_clock;

  // REQUIRES: the request has an id. The pointers outlive the stream.
  EventStream(EngineGate* gate, Engine* engine, LiveStreams* live_streams,
              const ConvertedRequest& converted, const StreamLimits& limits,
              Metrics* metrics = nullptr);
  ~EventStream() override;

  void OnAccepted(const AcceptedInfo& info) override;
  void OnProgress(int32_t processed, int32_t total) override;
  void OnDelta(TokenDelta delta) override;
  void OnFinished(FinishInfo info) override;
  void OnEngineError(const std::string& message) override;

  const std::string& request_id() const { return request_id_; }
  std::string client_request_id() const;  // without the key's name
  bool has_window() const { return window_ > absl::ZeroDuration(); }

  // The first reader, before the request is submitted.
  void SetReader(std::shared_ptr<GenerateReactor> reader);
  // What the request's key allows it, likewise; none where there are no keys. It ends when the engine is done.
  void SetPermit(std::unique_ptr<Permit> permit);
  // Another reader, from that position on; the one before ends ABORTED. NOT_FOUND, OUT_OF_RANGE.
  absl::Status Attach(std::shared_ptr<GenerateReactor> reader, int64_t from_token);
  // `reader` takes no more. Without a window the request is cancelled. Idempotent.
  void Detach(const GenerateReactor* reader);
  // The request was refused: there will be no event, and a reader that attached meanwhile ends with
  // `status`. The first reader's call is answered by its owner.
  void Refuse(const GenerateReactor* first, const absl::Status& status);

  // Nobody will read what comes.
  bool is_abandoned();

  enum class Next { kNothing, kEvent, kEnd };
  // What `reader` sends next.
  Next Take(const GenerateReactor* reader, v1::GenerateEvent* event, StreamEnd* end);

  // For LiveStreams, which may hold its lock: when the window closes if nothing happens; whether
  // the engine is done.
  Clock::time_point expiry();
  bool ended();
  // The window has closed: a request without a reader is cancelled.
  void CloseWindow();

 private:
  void Wake(const std::shared_ptr<GenerateReactor>& reader);
  // Lets a reader go that is too far behind.
  void BoundLog();
  // Keeps the ring within its tokens and all rings within their memory.
  void BoundRing();
  bool IsBehind() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the request may live on without a reader.
  bool MayWait() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Nobody will read: true when the engine is to be told.
  bool Abandon() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string UsageTrailer() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The engine is done. The permit's place is free before the reader hears of the end; what is left of the permit goes
  // without the lock, as it writes to the log.
  std::unique_ptr<Permit> EndPermit(absl::StatusCode status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  EngineGate* const gate_;
  Engine* const engine_;
  LiveStreams* const live_streams_;
  const std::string request_id_;
  const DeltaFields fields_;
  const StreamLimits limits_;
  const absl::Duration window_;
  const std::string trace_parent_;
  const bool scores_prompt_;

  Mutex mutex_;
  // The reader and what it has got.
  std::shared_ptr<GenerateReactor> reader_ ABSL_GUARDED_BY(mutex_);
  int64_t next_event_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t from_position_ ABSL_GUARDED_BY(mutex_) = 0;
  bool accepted_sent_ ABSL_GUARDED_BY(mutex_) = false;
  bool progress_sent_ ABSL_GUARDED_BY(mutex_) = true;
  // What there is to get.
  std::optional<v1::Accepted> accepted_ ABSL_GUARDED_BY(mutex_);
  v1::Progress progress_ ABSL_GUARDED_BY(mutex_);  // the latest
  EventLog log_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Status> end_status_ ABSL_GUARDED_BY(mutex_);  // set: no more events will come
  // How far the request is.
  RequestObservation observation_ ABSL_GUARDED_BY(mutex_);
  std::vector<int32_t> output_tokens_ ABSL_GUARDED_BY(mutex_);  // by choice
  std::unique_ptr<Permit> permit_ ABSL_GUARDED_BY(mutex_);
  int num_open_ ABSL_GUARDED_BY(mutex_);                        // choices that have not finished
  bool any_ok_ ABSL_GUARDED_BY(mutex_) = false;                 // a choice ended by stop or length
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);                // why the others did not
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;                  // the engine made its last call
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;  // nobody will read: events are discarded
  bool window_closed_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point window_start_
      ABSL_GUARDED_BY(mutex_);  // of the end, or of the time without a reader
  int64_t num_bytes_counted_ ABSL_GUARDED_BY(mutex_) = 0;  // in LiveStreams' budget
};

}  // namespace fastgen
