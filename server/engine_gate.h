// EngineGate: what stands between the calls and the engine: loading, serving, draining or failed.
//
// A call asks the gate for the engine and gets either it or the status to answer with. The gate owns the engine until
// Close, which comes after the gRPC server has been shut down, so an Engine* that a call got stays good until that call
// is done. It also counts the streams that are open, so that a drain knows when the last byte has been handed over.
// Phases only go forward: loading -> serving -> draining, and any -> failed.
// Thread rule: any thread.
// Tested by tests/server/in_process_test.cc.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "engine/engine.h"

namespace fastgen {

class EngineGate {
 public:
  enum class Phase { kLoading, kServing, kDraining, kFailed };

  // `on_failure` is called once, from any thread, when the engine failed after it was loaded.
  explicit EngineGate(std::function<void()> on_failure);

  // The engine for new work; UNAVAILABLE saying why not.
  absl::StatusOr<Engine*> ForNewWork() const;
  // The engine for questions and cancels: also while draining and after a failure.
  absl::StatusOr<Engine*> Loaded() const;

  Phase phase() const;
  // OK unless the phase is kFailed.
  absl::Status health() const;

  // Bytes of weights read, for the answer to calls that come too early.
  void SetLoadProgress(int64_t done_bytes, int64_t total_bytes);
  // Loading is done. A drain that was asked for meanwhile goes on to the engine.
  void Open(std::unique_ptr<Engine> engine);
  // Loading failed.
  void FailLoading(absl::Status status);
  // The engine failed. Only the first call counts.
  void ReportEngineFailure(absl::Status status);
  // No new work from now on; a paused engine goes on with what is live.
  void StartDrain();
  // Ends the engine, and with it its last calls to sinks and to this gate, while all that they touch is still there.
  // Nobody may use the engine any more: the gRPC server has been shut down.
  void Close();

  // One open stream; the destructor counts it out.
  class Stream {
   public:
    explicit Stream(EngineGate* gate);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

   private:
    EngineGate* const gate_;
  };
  // True once no stream is open; false after `timeout`.
  bool WaitNoStreams(absl::Duration timeout);

 private:
  // UNAVAILABLE, with what has been read and how fast.
  absl::Status LoadingError() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<void()> on_failure_;
  mutable Mutex mutex_;
  CondVar streams_changed_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kLoading;
  std::unique_ptr<Engine> engine_ ABSL_GUARDED_BY(mutex_);  // set once, until Close
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  int64_t loaded_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t total_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time first_progress_ ABSL_GUARDED_BY(mutex_);
  int64_t first_loaded_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_streams_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace fastgen
