// GenerateReactor: gRPC's side of one Generate or Attach call: takes events from its EventStream
// and writes them.
//
// One write is in flight at a time; what becomes ready meanwhile waits in the stream, where it is
// joined. Invariants: 1. at most one operation is in flight, and whoever set writing_ or closed_
// under the lock starts it;
// 2. nothing is started after Finish; 3. the status is sent after all events, except to a reader
// that is gone or that was ended early (End). Lifetime: gRPC's share (self_) ends with OnDone. The
// stream holds its reader and the reader its stream until the reader detaches. Thread rule: any
// thread; mutex_ may be held when the stream's lock is taken, never the other way round. Tested by
// tests/server/generate_test.cc.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>

#include "base/mutex.h"
#include "fastgen/v1/inference.pb.h"
#include "server/engine_gate.h"
#include "server/event_stream.h"

namespace fastgen {

class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateEvent> {
 public:
  // A reactor that lives until OnDone, or until Abandon.
  static std::shared_ptr<GenerateReactor> Make(grpc::CallbackServerContext* context,
                                               EngineGate* gate,
                                               std::shared_ptr<EventStream> stream);

  // Starts the next operation, when one is due and none is in flight.
  void Pump();
  // Ends the call after the write in flight, whatever else the stream has. Only the first end
  // counts.
  void End(StreamEnd end);
  // The call is answered otherwise: gRPC never hears of this reactor.
  void Abandon();

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateReactor(grpc::CallbackServerContext* context, EngineGate* gate,
                  std::shared_ptr<EventStream> stream);

  grpc::CallbackServerContext* const context_;  // valid until OnDone
  const std::shared_ptr<EventStream> stream_;

  v1::GenerateEvent event_;  // being written; belongs to whoever set writing_

  Mutex mutex_;
  std::shared_ptr<GenerateReactor> self_ ABSL_GUARDED_BY(mutex_);
  std::optional<EngineGate::Stream> open_stream_ ABSL_GUARDED_BY(mutex_);
  std::optional<StreamEnd> end_ ABSL_GUARDED_BY(mutex_);  // set: no more events are taken
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;             // a write failed: OnCancel follows
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was started
};

}  // namespace fastgen
