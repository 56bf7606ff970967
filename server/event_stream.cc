#include "server/event_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/access_control.h"
#include "server/generate_reactor.h"
#include "server/live_streams.h"

namespace fastgen {
namespace {

// Scores of a prompt come in a burst that no reader keeps up with: so many tokens of it may wait
// beyond the limit.
constexpr int64_t kMaxPromptBurst = 64 << 10;
// What a stream costs beside its events.
constexpr int64_t kStreamBytes = 2048;

EventLog::Keep KeepFor(absl::Duration window) {
  return window > absl::ZeroDuration() ? EventLog::Keep::kAsRing : EventLog::Keep::kUntilTaken;
}

// Of several choices that failed, what the client asked for itself tells most, a failure of one
// alone least.
int RankOf(const absl::Status& status) {
  if (absl::IsCancelled(status)) return 3;
  if (absl::IsDeadlineExceeded(status)) return 2;
  return status.ok() ? 0 : 1;
}

}  // namespace

EventStream::EventStream(EngineGate* gate, Engine* engine, LiveStreams* live_streams,
                         const ConvertedRequest& converted, const StreamLimits& limits,
                         Metrics* metrics)
    : gate_(gate),
      engine_(engine),
      live_streams_(live_streams),
      request_id_(converted.request.request_id),
      fields_(converted.fields),
      limits_(limits),
      window_(converted.resume_window),
      trace_parent_(converted.trace_parent),
      scores_prompt_(converted.request.output.echo ||
                     converted.request.output.prompt_logprobs.has_value()),
      log_(KeepFor(window_), converted.request.n, limits.resume_ring_tokens),
      observation_(metrics, converted.request.n),
      output_tokens_(static_cast<size_t>(converted.request.n), 0),
      num_open_(converted.request.n) {}

EventStream::~EventStream() {
  MutexLock lock(&mutex_);
  if (num_bytes_counted_ > 0) live_streams_->AddBytes(-num_bytes_counted_);
}

void EventStream::SetReader(std::shared_ptr<GenerateReactor> reader) {
  MutexLock lock(&mutex_);
  reader_ = std::move(reader);
}

void EventStream::SetPermit(std::unique_ptr<Permit> permit) {
  MutexLock lock(&mutex_);
  permit_ = std::move(permit);
}

std::unique_ptr<Permit> EventStream::EndPermit(absl::StatusCode status) {
  if (permit_ != nullptr) permit_->End(status);
  return std::move(permit_);
}

// ---- the engine's side

void EventStream::OnAccepted(const AcceptedInfo& info) {
  std::shared_ptr<GenerateReactor> reader;
  {
    MutexLock lock(&mutex_);
    ToProto(info, fields_, &accepted_.emplace());
    accepted_->set_request_id(client_request_id());
    if (permit_ != nullptr) permit_->UsePrompt(info.prompt_tokens);
    reader = reader_;
  }
  Wake(reader);
}

void EventStream::OnProgress(int32_t processed, int32_t total) {
  std::shared_ptr<GenerateReactor> reader;
  {
    MutexLock lock(&mutex_);
    // One that waits is overtaken by the next: only the latest says where the prompt is.
    progress_.set_processed(processed);
    progress_.set_total(total);
    progress_sent_ = false;
    reader = reader_;
  }
  Wake(reader);
}

void EventStream::OnDelta(TokenDelta delta) {
  std::string raw;
  if (fields_.raw_bytes) {
    const auto pieces = engine_->TokenBytes(delta.token_ids);
    if (pieces.ok()) {
      for (const std::string& piece : *pieces) raw += piece;
    }
  }
  std::shared_ptr<GenerateReactor> reader;
  {
    MutexLock lock(&mutex_);
    const int32_t num_tokens = NumOutputTokens(delta);
    output_tokens_.at(static_cast<size_t>(delta.index)) += num_tokens;
    observation_.OnTokens(delta.index, num_tokens);
    if (permit_ != nullptr) permit_->UseOutput(num_tokens);
    if (abandoned_) return;
    log_.Add(std::move(delta), fields_, raw);
    reader = reader_;
  }
  Wake(reader);
  BoundLog();
}

void EventStream::OnFinished(FinishInfo info) {
  std::shared_ptr<GenerateReactor> reader;
  std::unique_ptr<Permit> permit;
  bool ended = false;
  {
    MutexLock lock(&mutex_);
    const int32_t before = std::exchange(output_tokens_.at(static_cast<size_t>(info.index)),
                                         info.usage.output_tokens);
    observation_.OnFinished(info);
    if (permit_ != nullptr) permit_->UseOutput(info.usage.output_tokens - before);
    absl::Status status = StatusOfFinish(info);
    any_ok_ = any_ok_ || status.ok();
    if (RankOf(status) > RankOf(failure_)) failure_ = std::move(status);
    if (!abandoned_) {
      v1::Finished finished;
      ToProto(info, engine_->model_info(), &finished);
      finished.mutable_receipt()->set_trace_parent(trace_parent_);
      log_.Add(std::move(finished));
    }
    ended = --num_open_ == 0;
    if (ended) {
      ended_ = true;
      end_status_ = any_ok_ ? grpc::Status::OK : ToGrpcStatus(failure_);
      window_start_ = Clock::now();
      permit = EndPermit(any_ok_ ? absl::StatusCode::kOk : failure_.code());
    }
    reader = reader_;
  }
  Wake(reader);
  BoundLog();
  if (ended && has_window()) live_streams_->Refresh(this);
}

void EventStream::OnEngineError(const std::string& message) {
  const absl::Status status = absl::UnavailableError(message);
  std::shared_ptr<GenerateReactor> reader;
  std::unique_ptr<Permit> permit;
  {
    MutexLock lock(&mutex_);
    observation_.OnEngineError();
    ended_ = true;
    end_status_ = ToGrpcStatus(status);
    window_start_ = Clock::now();
    permit = EndPermit(status.code());
    reader = reader_;
  }
  Wake(reader);
  if (has_window()) live_streams_->Refresh(this);
  gate_->ReportEngineFailure(status);
}

// ---- the reader's side

void EventStream::Wake(const std::shared_ptr<GenerateReactor>& reader) {
  if (reader != nullptr) reader->Pump();
}

EventStream::Next EventStream::Take(const GenerateReactor* reader, v1::GenerateEvent* event,
                                    StreamEnd* end) {
  MutexLock lock(&mutex_);
  if (reader_.get() != reader) return Next::kNothing;
  event->Clear();
  if (!accepted_sent_ && accepted_.has_value()) {
    accepted_sent_ = true;
    *event->mutable_accepted() = *accepted_;
    if (from_position_ > 0) {
      event->mutable_accepted()->set_from_token(static_cast<int32_t>(from_position_));
    }
    return Next::kEvent;
  }
  if (!progress_sent_) {
    progress_sent_ = true;
    *event->mutable_progress() = progress_;
    return Next::kEvent;
  }
  if (log_.Take(next_event_, event)) {
    ++next_event_;
    return Next::kEvent;
  }
  if (next_event_ < log_.begin() || !end_status_.has_value()) return Next::kNothing;
  *end = {*end_status_, UsageTrailer()};
  return Next::kEnd;
}

bool EventStream::IsBehind() const {
  if (reader_ == nullptr) return false;
  if (next_event_ < log_.begin()) return true;
  int64_t limit = limits_.max_outbox_tokens;
  if (scores_prompt_ && accepted_.has_value()) {
    limit += std::min<int64_t>(
        int64_t{accepted_->prompt_tokens()} * static_cast<int64_t>(output_tokens_.size()),
        std::max<int64_t>(kMaxPromptBurst, accepted_->prompt_tokens()));
  }
  return log_.NumTokensFrom(next_event_) > limit;
}

// After Wake: a reader that can take more has done so.
void EventStream::BoundLog() {
  if (has_window()) BoundRing();
  std::shared_ptr<GenerateReactor> behind;
  StreamEnd end;
  bool cancel = false;
  {
    MutexLock lock(&mutex_);
    if (!IsBehind()) return;
    end.status = ToGrpcStatus(absl::ResourceExhaustedError(
        absl::StrCat("the reader fell ", log_.NumTokensFrom(next_event_),
                     " tokens behind; at most ", limits_.max_outbox_tokens, " are kept for it")));
    end.usage = UsageTrailer();
    behind.swap(reader_);
    if (!ended_) {
      window_start_ = Clock::now();
      if (!MayWait()) cancel = Abandon();
    }
  }
  behind->End(std::move(end));
  if (cancel) engine_->Cancel(request_id_, this);
  if (has_window()) live_streams_->Refresh(this);
}

void EventStream::BoundRing() {
  int64_t change = 0;
  {
    MutexLock lock(&mutex_);
    if (abandoned_) return;
    log_.Trim(reader_ != nullptr ? next_event_ : log_.end());
    const int64_t num_prompt_ids = accepted_.has_value() ? accepted_->prompt_token_ids_size() : 0;
    const int64_t num_bytes = kStreamBytes + 4 * num_prompt_ids + log_.num_bytes();
    change = num_bytes - std::exchange(num_bytes_counted_, num_bytes);
  }
  live_streams_->AddBytes(change);
  if (live_streams_->MakeRoom()) return;
  // Every ring is that of a live request: this one, which just grew, gives up its oldest events.
  MutexLock lock(&mutex_);
  log_.DropOldest();
}

bool EventStream::MayWait() const {
  return has_window() && !window_closed_ && !live_streams_->draining();
}

bool EventStream::Abandon() {
  abandoned_ = true;
  log_.Clear();
  live_streams_->AddBytes(-std::exchange(num_bytes_counted_, 0));
  return !ended_;
}

absl::Status EventStream::Attach(std::shared_ptr<GenerateReactor> reader, int64_t from_token) {
  std::shared_ptr<GenerateReactor> before;
  StreamEnd end;
  {
    MutexLock lock(&mutex_);
    if (abandoned_ || window_closed_) {
      return absl::NotFoundError(
          absl::StrCat("request_id: the resume window of ", client_request_id(), " has closed"));
    }
    // What the reader took since the last event came is the ring's to lose.
    log_.Trim(reader_ != nullptr ? next_event_ : log_.end());
    ASSIGN_OR_RETURN(const EventLog::Place place, log_.Find(from_token));
    before = std::exchange(reader_, std::move(reader));
    next_event_ = place.number;
    from_position_ = place.position;
    accepted_sent_ = false;
    // Where the prompt is matters to nobody who has seen what followed it.
    progress_sent_ = progress_.total() == 0 || log_.end() > 0;
    end.status = ToGrpcStatus(absl::AbortedError("another reader has attached to this request"));
    end.usage = UsageTrailer();
  }
  if (before != nullptr) before->End(std::move(end));
  live_streams_->Refresh(this);
  return absl::OkStatus();
}

void EventStream::Detach(const GenerateReactor* reader) {
  std::shared_ptr<GenerateReactor> gone;
  bool cancel = false;
  {
    MutexLock lock(&mutex_);
    if (reader_.get() != reader || reader == nullptr) return;
    gone.swap(reader_);
    if (!ended_) {
      window_start_ = Clock::now();
      if (!MayWait()) cancel = Abandon();
    }
  }
  if (cancel) engine_->Cancel(request_id_, this);
  if (has_window()) {
    BoundRing();
    live_streams_->Refresh(this);
  }
}

void EventStream::Refuse(const GenerateReactor* first, const absl::Status& status) {
  std::shared_ptr<GenerateReactor> reader;
  std::unique_ptr<Permit> permit;
  {
    MutexLock lock(&mutex_);
    reader.swap(reader_);
    ended_ = abandoned_ = true;
    permit = EndPermit(status.code());
  }
  if (reader != nullptr && reader.get() != first) reader->End({ToGrpcStatus(status), ""});
}

bool EventStream::is_abandoned() {
  MutexLock lock(&mutex_);
  return abandoned_;
}

std::string EventStream::client_request_id() const {
  return std::string(AccessControl::SplitEngineId(request_id_).request_id);
}

// ---- the window

EventStream::Clock::time_point EventStream::expiry() {
  MutexLock lock(&mutex_);
  if (reader_ != nullptr && !ended_) return Clock::time_point::max();
  return window_start_ +
         std::chrono::duration_cast<Clock::duration>(absl::ToChronoNanoseconds(window_));
}

bool EventStream::ended() {
  MutexLock lock(&mutex_);
  return ended_;
}

void EventStream::CloseWindow() {
  bool cancel = false;
  {
    MutexLock lock(&mutex_);
    window_closed_ = true;
    if (reader_ == nullptr) cancel = Abandon();
  }
  if (cancel) engine_->Cancel(request_id_, this);
}

std::string EventStream::UsageTrailer() const {
  if (!accepted_.has_value()) return "";
  int64_t num_output = 0;
  for (const int32_t num_tokens : output_tokens_) num_output += num_tokens;
  return absl::StrCat("prompt=", accepted_->prompt_tokens(), ",output=", num_output);
}

}  // namespace fastgen
