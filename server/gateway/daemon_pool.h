// DaemonPool: the daemons behind a gateway, one or several, and which of them a call goes to.
//
// One (the daemon in whose process the gateway runs, or a single --connect) is a stub and nothing
// else: no watch, no lock, no second try. A fleet keeps for each daemon what its DaemonWatch last
// saw, its CircuitBreaker and the calls in flight; DaemonPicker chooses.
// A call takes a DaemonLease for as long as it lasts and tells it how the daemon did.
// A daemon is used while it serves the fleet's model and its breaker allows. UNAVAILABLE makes it a
// last resort until the next question, which is then due at once.
// Lock order: mutex_ before a watch's own; under it nothing is called that waits.
// Thread rule: any thread; no lock is taken per token.
// Tested by tests/server/gateway/fleet_test.cc.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/gateway/circuit_breaker.h"
#include "server/gateway/daemon.h"
#include "server/gateway/daemon_picker.h"
#include "server/gateway/daemon_watch.h"
#include "server/gateway/fleet_options.h"
#include "server/gateway/retry_policy.h"

namespace fastgen::gateway {

class DaemonPool;

// One call's place at a daemon; counts it out when it goes.
class DaemonLease {
 public:
  DaemonLease() = default;
  DaemonLease(DaemonLease&& other) noexcept { *this = std::move(other); }
  DaemonLease& operator=(DaemonLease&& other) noexcept;
  ~DaemonLease() { End(grpc::Status::CANCELLED); }

  bool has_daemon() const { return stubs_ != nullptr; }
  const DaemonStubs& stubs() const { return *stubs_; }
  size_t daemon() const { return daemon_; }

  // The daemon has answered something. Idempotent.
  void NoteAnswer();
  // The call has ended. Only the first one counts.
  void End(const grpc::Status& status);

 private:
  friend class DaemonPool;
  const DaemonStubs* stubs_ = nullptr;
  DaemonPool* pool_ = nullptr;  // of a fleet, until End
  size_t daemon_ = 0;
  CallKind kind_ = CallKind::kOrdinary;
  bool answered_ = false;
};

// What is known of a daemon, as it is shown.
struct DaemonReport {
  std::string address;
  std::string state;   // "serving", "not serving", "unreachable", "wrong model", "not asked yet"
  std::string reason;  // "" while it is used
  CircuitBreaker::State circuit = CircuitBreaker::State::kClosed;
  bool is_used = false;
  int32_t num_in_flight = 0;
  int64_t num_calls = 0;
  int64_t num_failures = 0;
  int64_t num_circuit_openings = 0;
};

class DaemonPool {
 public:
  explicit DaemonPool(const std::shared_ptr<grpc::Channel>& channel);
  // REQUIRES: at least one daemon.
  explicit DaemonPool(const FleetOptions& options);
  ~DaemonPool();

  bool is_fleet() const { return !members_.empty(); }
  // Of a fleet: until every daemon has been asked once, or `timeout` is over.
  void WaitForFirstChecks(absl::Duration timeout);
  // Ends the watch. Afterwards the pool answers as it last did.
  void Stop();
  // Waits until no call's callback can run any more.
  void WaitForCalls() { live_calls_->WaitForNone(); }

  // A daemon for a call that has been tried as `attempts` says; without a daemon where there is
  // none. The attempt is entered there.
  DaemonLease Pick(const PrefixHashes& prefix, Attempts* attempts);
  // That daemon, however it is: nobody else has what the call is about.
  DaemonLease Take(size_t daemon);
  // Another daemon for a call that failed so; without one when it may not be tried again, or
  // nowhere. Takes from the budget.
  DaemonLease PickAgain(RetryKind kind, const PrefixHashes& prefix, Attempts* attempts);
  // Of a fleet: the daemons that answer, whether they take requests or not.
  std::vector<size_t> Reachable() const;
  // What to answer when Pick found none: UNAVAILABLE with the reasons.
  grpc::Status NoDaemon();

  // Of a fleet: "" until it is known.
  std::string model_name() const;
  // Of a fleet's daemon: names build and weights; "" while unknown.
  std::string system_fingerprint(size_t daemon) const;
  std::vector<DaemonReport> Report() const;
  // In Prometheus' text format.
  std::string MetricsText() const;

 private:
  friend class DaemonLease;
  struct Member;

  void OnCheck(size_t daemon, const DaemonCheck& check);
  void ChooseModel() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool ServesModel(const Member& member) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Candidate::Use UseOf(const Member& member, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  DaemonReport ReportOn(const Member& member, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LogChange(Member* member) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  DaemonLease PickLocked(const PrefixHashes& prefix, Attempts* attempts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  DaemonLease Lease(size_t daemon) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteAnswer(const DaemonLease& lease);
  void EndCall(const DaemonLease& lease, const grpc::Status& status);

  const std::shared_ptr<LiveCalls> live_calls_ = std::make_shared<LiveCalls>();
  DaemonStubs only_;  // unless it is a fleet

  mutable Mutex mutex_;
  CondVar checked_;
  std::vector<std::unique_ptr<Member>> members_;  // the list never changes
  DaemonPicker picker_ ABSL_GUARDED_BY(mutex_);
  RetryBudget budget_ ABSL_GUARDED_BY(mutex_);
  std::string model_ ABSL_GUARDED_BY(mutex_);
  bool may_choose_model_ ABSL_GUARDED_BY(mutex_) = false;
  size_t num_unasked_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_retries_[4] ABSL_GUARDED_BY(mutex_) = {};  // by RetryKind
  int64_t num_retries_denied_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_without_daemon_ ABSL_GUARDED_BY(mutex_) = 0;
};

// OpenAI's system_fingerprint: equal for answers of the same build and weights.
std::string FingerprintOf(const v1::ModelInfo& info);

}  // namespace fastgen::gateway
