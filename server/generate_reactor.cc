#include "server/generate_reactor.h"

#include <grpcpp/server_context.h>

#include <utility>

namespace fastgen {
namespace {

constexpr char kUsageTrailer[] = "x-fastgen-usage";

}  // namespace

GenerateReactor::GenerateReactor(grpc::CallbackServerContext* context, EngineGate* gate,
                                 std::shared_ptr<EventStream> stream)
    : context_(context), stream_(std::move(stream)) {
  MutexLock lock(&mutex_);
  open_stream_.emplace(gate);
}

std::shared_ptr<GenerateReactor> GenerateReactor::Make(grpc::CallbackServerContext* context,
                                                       EngineGate* gate,
                                                       std::shared_ptr<EventStream> stream) {
  std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(context, gate, std::move(stream)));
  MutexLock lock(&reactor->mutex_);
  reactor->self_ = reactor;
  return reactor;
}

void GenerateReactor::Abandon() {
  std::shared_ptr<GenerateReactor> self;
  MutexLock lock(&mutex_);
  closed_ = true;
  open_stream_.reset();
  self.swap(self_);
}

void GenerateReactor::End(StreamEnd end) {
  {
    MutexLock lock(&mutex_);
    if (!end_.has_value()) end_ = std::move(end);
    // A drain does not wait for a reader that does not read.
    open_stream_.reset();
  }
  Pump();
}

void GenerateReactor::OnWriteDone(bool ok) {
  {
    MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) gone_ = true;
  }
  Pump();
}

void GenerateReactor::OnCancel() {
  {
    MutexLock lock(&mutex_);
    if (!end_.has_value()) end_ = StreamEnd{grpc::Status::CANCELLED, ""};
  }
  stream_->Detach(this);
  Pump();
}

void GenerateReactor::OnDone() {
  stream_->Detach(this);
  std::shared_ptr<GenerateReactor> self;
  MutexLock lock(&mutex_);
  open_stream_.reset();
  self.swap(self_);
}

void GenerateReactor::Pump() {
  bool has_event = false;
  std::optional<grpc::Status> status;
  {
    MutexLock lock(&mutex_);
    if (writing_ || closed_) return;
    if (!end_.has_value() && !gone_) {
      StreamEnd end;
      const EventStream::Next next = stream_->Take(this, &event_, &end);
      has_event = next == EventStream::Next::kEvent;
      if (next == EventStream::Next::kEnd) end_ = std::move(end);
    }
    // Finish waits for the last write: over gRPC's in-process transport a message that is sent
    // together with the status (StartWriteAndFinish) is lost when its reader has not asked for it
    // yet.
    if (has_event) {
      writing_ = true;
    } else if (end_.has_value()) {
      closed_ = true;
      status = end_->status;
      if (!status->ok() && !end_->usage.empty()) {
        context_->AddTrailingMetadata(kUsageTrailer, end_->usage);
      }
    }
  }
  // Outside the lock: the flags set above make this thread the only one that may start an
  // operation.
  if (has_event) {
    StartWrite(&event_);
  } else if (status.has_value()) {
    Finish(*status);
  }
}

}  // namespace fastgen
