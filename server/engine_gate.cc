#include "server/engine_gate.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"

namespace fastgen {

EngineGate::EngineGate(std::function<void()> on_failure) : on_failure_(std::move(on_failure)) {}

absl::StatusOr<Engine*> EngineGate::ForNewWork() const {
  MutexLock lock(&mutex_);
  switch (phase_) {
    case Phase::kServing:
      return engine_.get();
    case Phase::kDraining:
      return absl::UnavailableError("draining: this server takes no new requests");
    case Phase::kFailed:
      return failure_;
    case Phase::kLoading:
      break;
  }
  return LoadingError();
}

absl::Status EngineGate::LoadingError() const {
  if (total_bytes_ <= 0) return absl::UnavailableError("loading the model");
  const int64_t percent = static_cast<int64_t>(100.0 * static_cast<double>(loaded_bytes_) /
                                               static_cast<double>(total_bytes_));
  // From the second report on: the first one's bytes came in a time that nobody measured.
  const double seconds = absl::ToDoubleSeconds(absl::Now() - first_progress_);
  const int64_t read_since = loaded_bytes_ - first_loaded_bytes_;
  std::string rate;
  if (seconds > 0 && read_since > 0) {
    rate = absl::StrCat(", ", static_cast<int64_t>(static_cast<double>(read_since) / seconds) >> 20,
                        " MiB/s");
  }
  return absl::UnavailableError(absl::StrCat("loading the model: ", percent, " % of ",
                                             total_bytes_ >> 20, " MiB read", rate));
}

absl::StatusOr<Engine*> EngineGate::Loaded() const {
  MutexLock lock(&mutex_);
  if (engine_ != nullptr) return engine_.get();
  if (phase_ == Phase::kFailed) return failure_;
  if (closed_) return absl::UnavailableError("this server has ended");
  return LoadingError();
}

EngineGate::Phase EngineGate::phase() const {
  MutexLock lock(&mutex_);
  return phase_;
}

absl::Status EngineGate::health() const {
  MutexLock lock(&mutex_);
  return failure_;
}

void EngineGate::SetLoadProgress(int64_t done_bytes, int64_t total_bytes) {
  MutexLock lock(&mutex_);
  if (total_bytes_ != total_bytes) {
    first_progress_ = absl::Now();
    first_loaded_bytes_ = done_bytes;
  }
  loaded_bytes_ = done_bytes;
  total_bytes_ = total_bytes;
}

void EngineGate::Open(std::unique_ptr<Engine> engine) {
  MutexLock lock(&mutex_);
  CHECK(engine_ == nullptr && engine != nullptr) << "the gate takes one engine, once";
  engine_ = std::move(engine);
  if (phase_ == Phase::kLoading) phase_ = Phase::kServing;
  if (phase_ == Phase::kDraining) engine_->StartDrain();
}

void EngineGate::FailLoading(absl::Status status) {
  MutexLock lock(&mutex_);
  phase_ = Phase::kFailed;
  failure_ = absl::UnavailableError(
      absl::StrCat("the model could not be loaded: ", status.message()));
}

void EngineGate::ReportEngineFailure(absl::Status status) {
  {
    MutexLock lock(&mutex_);
    if (phase_ == Phase::kFailed) return;
    phase_ = Phase::kFailed;
    failure_ = absl::UnavailableError(absl::StrCat("the engine failed: ", status.message()));
    // While closing, those who would be told are going away themselves.
    if (closed_) return;
  }
  if (on_failure_) on_failure_();
}

void EngineGate::StartDrain() {
  MutexLock lock(&mutex_);
  if (phase_ == Phase::kDraining || phase_ == Phase::kFailed) return;
  phase_ = Phase::kDraining;
  if (engine_ == nullptr) return;
  engine_->StartDrain();
  // What is live is to finish, which it never would in a paused engine.
  engine_->Resume();
}

void EngineGate::Close() {
  std::unique_ptr<Engine> engine;
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    if (phase_ != Phase::kFailed) phase_ = Phase::kDraining;
    engine.swap(engine_);
  }
  // Outside the lock: the engine's last calls ask the gate.
  engine.reset();
}

EngineGate::Stream::Stream(EngineGate* gate) : gate_(gate) {
  MutexLock lock(&gate_->mutex_);
  ++gate_->num_streams_;
}

EngineGate::Stream::~Stream() {
  MutexLock lock(&gate_->mutex_);
  --gate_->num_streams_;
  gate_->streams_changed_.SignalAll();
}

bool EngineGate::WaitNoStreams(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  MutexLock lock(&mutex_);
  while (num_streams_ > 0) {
    if (timeout == absl::InfiniteDuration()) {
      streams_changed_.Wait(&mutex_);
      continue;
    }
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    streams_changed_.WaitFor(&mutex_, absl::ToChronoNanoseconds(left));
  }
  return true;
}

}  // namespace fastgen
