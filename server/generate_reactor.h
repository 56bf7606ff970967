// GenerateReactor: one Generate call: the engine's TokenSink on one side, gRPC's write reactor on the other.
//
// The completion thread puts events into the outbox and returns; gRPC's threads take them out. One write is in flight
// at a time, and all deltas that are ready when it completes go out as one message (up to kMaxTokensPerMessage, which
// keeps messages below clients' usual 4 MiB limit). While a write is in flight the outbox holds at most
// max_outbox_tokens: a reader that falls further behind loses its request (RESOURCE_EXHAUSTED).
// Invariants: 1. at most one operation is in flight, and whoever set writing_ or closed_ under the lock starts it;
// 2. nothing is started after Finish; 3. the status is sent after all events, except to a reader that is gone.
// Lifetime: gRPC's share (self_) ends with OnDone, the engine's with its last call on the sink; whichever is last
// deletes. Sink calls after OnDone find closed_ set and touch nothing of gRPC.
// Thread rule: sink calls from the completion thread, reactions from gRPC's threads, both guarded by mutex_.
// Tested by tests/server/generate_test.cc.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include <grpcpp/support/server_callback.h>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "engine/engine.h"
#include "engine/token_sink.h"
#include "fastgen/v1/inference.pb.h"
#include "server/engine_gate.h"
#include "server/proto_convert.h"

namespace fastgen {

class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateEvent>,
                              public TokenSink {
 public:
  // Submits the request; on OK the reactor is gRPC's, otherwise the status is the call's answer. REQUIRES: the request
  // has an id.
  static absl::StatusOr<GenerateReactor*> Start(grpc::CallbackServerContext* context,
                                                EngineGate* gate, Engine* engine,
                                                ConvertedRequest converted,
                                                int32_t max_outbox_tokens);

  void OnAccepted(const AcceptedInfo& info) override;
  void OnDelta(TokenDelta delta) override;
  void OnFinished(FinishInfo info) override;
  void OnEngineError(const std::string& message) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateReactor(grpc::CallbackServerContext* context, EngineGate* gate, Engine* engine,
                  const ConvertedRequest& converted, int32_t max_outbox_tokens);

  // Starts the next operation, when one is due and none is in flight.
  void Pump();
  // Moves the next event to event_; false when the outbox is empty.
  bool TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool OutboxEmpty() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropOutbox() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The partial usage, for the trailers of a stream that ends with an error.
  std::string UsageTrailer() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::CallbackServerContext* const context_;  // valid until OnDone
  EngineGate* const gate_;
  Engine* const engine_;
  const std::string request_id_;
  const DeltaFields fields_;
  const int32_t max_outbox_tokens_;

  v1::GenerateEvent event_;  // being written; belongs to whoever set writing_

  Mutex mutex_;
  std::shared_ptr<GenerateReactor> self_ ABSL_GUARDED_BY(mutex_);
  std::optional<EngineGate::Stream> stream_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::Accepted> accepted_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::Delta> deltas_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::Finished> finished_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Status> end_status_ ABSL_GUARDED_BY(mutex_);  // set: no more events will come
  int32_t outbox_tokens_ ABSL_GUARDED_BY(mutex_) = 0;  // in deltas_
  bool was_accepted_ ABSL_GUARDED_BY(mutex_) = false;
  Usage usage_ ABSL_GUARDED_BY(mutex_);                // so far
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool dropped_ ABSL_GUARDED_BY(mutex_) = false;       // the reader is gone or too slow: events are discarded
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;         // the engine made its last call
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;        // Finish was started
};

}  // namespace fastgen
