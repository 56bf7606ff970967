#include "server/generate_reactor.h"

#include <utility>

#include <grpcpp/server_context.h>

#include "absl/strings/str_cat.h"

namespace fastgen {
namespace {

// 256 tokens with 20 candidates each are about 200 KiB.
constexpr int32_t kMaxTokensPerMessage = 256;
constexpr char kUsageTrailer[] = "x-fastgen-usage";

}  // namespace

absl::StatusOr<GenerateReactor*> GenerateReactor::Start(grpc::CallbackServerContext* context,
                                                        EngineGate* gate, Engine* engine,
                                                        ConvertedRequest converted,
                                                        int32_t max_outbox_tokens) {
  std::shared_ptr<GenerateReactor> reactor(
      new GenerateReactor(context, gate, engine, converted, max_outbox_tokens));
  {
    MutexLock lock(&reactor->mutex_);
    reactor->self_ = reactor;
    reactor->stream_.emplace(gate);
  }
  // From here on the completion thread may call; gRPC keeps what is started before it knows the reactor.
  const absl::Status status = engine->Submit(std::move(converted.request), reactor);
  if (!status.ok()) {
    {
      MutexLock lock(&reactor->mutex_);
      reactor->stream_.reset();
      reactor->self_.reset();
    }
    // An engine that failed without a live stream is noticed here.
    const absl::Status health = engine->health();
    if (!health.ok()) gate->ReportEngineFailure(health);
    return status;
  }
  return reactor.get();
}

GenerateReactor::GenerateReactor(grpc::CallbackServerContext* context, EngineGate* gate,
                                 Engine* engine, const ConvertedRequest& converted,
                                 int32_t max_outbox_tokens)
    : context_(context),
      gate_(gate),
      engine_(engine),
      request_id_(converted.request.request_id),
      fields_(converted.fields),
      max_outbox_tokens_(max_outbox_tokens) {}

void GenerateReactor::OnAccepted(const AcceptedInfo& info) {
  {
    MutexLock lock(&mutex_);
    was_accepted_ = true;
    usage_.prompt_tokens = info.prompt_tokens;
    usage_.cached_tokens = info.cached_tokens;
    if (dropped_) return;
    ToProto(info, fields_, &accepted_.emplace());
  }
  Pump();
}

void GenerateReactor::OnDelta(TokenDelta delta) {
  bool fell_behind = false;
  {
    MutexLock lock(&mutex_);
    const int32_t num_tokens = NumOutputTokens(delta);
    usage_.output_tokens += num_tokens;
    if (dropped_) return;
    const bool joins_last =
        !deltas_.empty() && deltas_.back().num_tokens() + num_tokens <= kMaxTokensPerMessage;
    if (!joins_last) deltas_.emplace_back();
    AppendToProto(std::move(delta), fields_, &deltas_.back());
    outbox_tokens_ += num_tokens;
    fell_behind = writing_ && outbox_tokens_ > max_outbox_tokens_;
    if (fell_behind) {
      dropped_ = true;
      end_status_ = ToGrpcStatus(absl::ResourceExhaustedError(
          absl::StrCat("the reader fell ", outbox_tokens_, " tokens behind; at most ",
                       max_outbox_tokens_, " are kept for it")));
      DropOutbox();
      // A drain does not wait for a reader that does not read.
      stream_.reset();
    }
  }
  if (fell_behind) {
    engine_->Cancel(request_id_);
  } else {
    Pump();
  }
}

void GenerateReactor::OnFinished(FinishInfo info) {
  {
    MutexLock lock(&mutex_);
    ended_ = true;
    usage_ = info.usage;
    if (!dropped_) {
      ToProto(info, engine_->model_info(), &finished_.emplace());
      end_status_ = StatusOfFinish(info);
    }
  }
  Pump();
}

void GenerateReactor::OnEngineError(const std::string& message) {
  const absl::Status status = absl::UnavailableError(message);
  {
    MutexLock lock(&mutex_);
    ended_ = true;
    if (!dropped_) end_status_ = ToGrpcStatus(status);
  }
  Pump();
  gate_->ReportEngineFailure(status);
}

void GenerateReactor::OnWriteDone(bool ok) {
  {
    MutexLock lock(&mutex_);
    writing_ = false;
    // A failed write means that the connection is gone: OnCancel follows and ends the call.
    if (!ok) {
      dropped_ = true;
      DropOutbox();
    }
  }
  Pump();
}

void GenerateReactor::OnCancel() {
  bool cancel_work = false;
  {
    MutexLock lock(&mutex_);
    dropped_ = true;
    DropOutbox();
    if (!end_status_.has_value()) end_status_ = grpc::Status::CANCELLED;
    // After the engine's last call the id may already be another request's.
    cancel_work = !ended_;
  }
  if (cancel_work) engine_->Cancel(request_id_);
  Pump();
}

void GenerateReactor::OnDone() {
  std::shared_ptr<GenerateReactor> self;
  MutexLock lock(&mutex_);
  stream_.reset();
  self.swap(self_);
}

bool GenerateReactor::OutboxEmpty() const {
  return !accepted_.has_value() && deltas_.empty() && !finished_.has_value();
}

void GenerateReactor::DropOutbox() {
  accepted_.reset();
  deltas_.clear();
  finished_.reset();
  outbox_tokens_ = 0;
}

bool GenerateReactor::TakeNext() {
  if (OutboxEmpty()) return false;
  event_.Clear();
  if (accepted_.has_value()) {
    *event_.mutable_accepted() = *std::move(accepted_);
    accepted_.reset();
  } else if (!deltas_.empty()) {
    outbox_tokens_ -= deltas_.front().num_tokens();
    *event_.mutable_delta() = std::move(deltas_.front());
    deltas_.pop_front();
  } else {
    *event_.mutable_finished() = *std::move(finished_);
    finished_.reset();
  }
  return true;
}

std::string GenerateReactor::UsageTrailer() const {
  return absl::StrCat("prompt=", usage_.prompt_tokens, ",output=", usage_.output_tokens);
}

void GenerateReactor::Pump() {
  bool has_event = false;
  std::optional<grpc::Status> status;
  {
    MutexLock lock(&mutex_);
    if (writing_ || closed_) return;
    has_event = TakeNext();
    // Finish waits for the last write: over gRPC's in-process transport a message that is sent together with the
    // status (StartWriteAndFinish) is lost when its reader has not asked for it yet.
    if (has_event) {
      writing_ = true;
    } else if (end_status_.has_value()) {
      status = *end_status_;
      closed_ = true;
      if (!status->ok() && was_accepted_) {
        context_->AddTrailingMetadata(kUsageTrailer, UsageTrailer());
      }
    }
  }
  // Outside the lock: the flags set above make this thread the only one that may start an operation.
  if (has_event) {
    StartWrite(&event_);
  } else if (status.has_value()) {
    Finish(*status);
  }
}

}  // namespace fastgen
