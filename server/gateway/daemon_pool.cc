#include "server/gateway/daemon_pool.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/gateway/fleet_metrics.h"

namespace fastgen::gateway {
namespace {

DaemonStubs MakeStubs(const std::shared_ptr<grpc::Channel>& channel,
                      std::shared_ptr<LiveCalls> live_calls) {
  return {v1::Inference::NewStub(channel), v1::Admin::NewStub(channel),
          grpc::health::v1::Health::NewStub(channel), std::move(live_calls)};
}

PickerOptions PickerOptionsOf(const FleetOptions& options) {
  PickerOptions picker;
  picker.load_bound = options.load_bound;
  return picker;
}

CallOutcome OutcomeOf(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::CANCELLED:
    // The client chose it; a daemon that hangs is noticed by its watch.
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return CallOutcome::kUntold;
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::DATA_LOSS:
      return CallOutcome::kFailure;
    default:
      return CallOutcome::kSuccess;  // it answers, whatever it says of the request
  }
}

}  // namespace

std::string FingerprintOf(const v1::ModelInfo& info) {
  std::string fingerprint = "build-";
  for (char c : absl::StrCat(info.build(), "-", info.weights_hash().substr(0, 16))) {
    const bool plain = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.';
    if (plain || fingerprint.back() != '-') fingerprint += plain ? c : '-';
  }
  return fingerprint;
}

struct DaemonPool::Member {
  Member(const std::string& name, DaemonStubs daemon_stubs)
      : address(name),
        name_hash(HashOf(name)),
        stubs(std::move(daemon_stubs)),
        breaker(CircuitOptions(), name_hash) {}

  const std::string address;
  const uint64_t name_hash;
  const DaemonStubs stubs;

  // Guarded by the pool's mutex_:
  CircuitBreaker breaker;
  bool was_asked = false;
  DaemonCheck::Health health = DaemonCheck::Health::kUnreachable;
  std::string reason = "it has not been asked yet";
  std::string model;  // "" while unknown
  std::string fingerprint;
  bool is_suspect = false;    // UNAVAILABLE since the last check
  int32_t num_in_flight = 0;  // of this gateway
  int32_t num_of_others = 0;  // requests that came to it by other ways, when it was last asked
  int64_t num_calls = 0;
  int64_t num_failures = 0;
  std::string logged;

  std::unique_ptr<DaemonWatch> watch;  // set once, before any call
};

// ---- DaemonLease

DaemonLease& DaemonLease::operator=(DaemonLease&& other) noexcept {
  End(grpc::Status::CANCELLED);
  stubs_ = std::exchange(other.stubs_, nullptr);
  pool_ = std::exchange(other.pool_, nullptr);
  daemon_ = other.daemon_;
  kind_ = other.kind_;
  answered_ = other.answered_;
  return *this;
}

void DaemonLease::NoteAnswer() {
  if (std::exchange(answered_, true) || pool_ == nullptr) return;
  pool_->NoteAnswer(*this);
}

void DaemonLease::End(const grpc::Status& status) {
  if (pool_ != nullptr) std::exchange(pool_, nullptr)->EndCall(*this, status);
}

// ---- DaemonPool

DaemonPool::DaemonPool(const std::shared_ptr<grpc::Channel>& channel)
    : only_(MakeStubs(channel, live_calls_)), picker_(PickerOptions()) {}

DaemonPool::DaemonPool(const FleetOptions& options)
    : picker_(PickerOptionsOf(options)),
      model_(options.model),
      num_unasked_(options.daemons.size()) {
  CHECK(!options.daemons.empty());
  for (const FleetOptions::Daemon& daemon : options.daemons) {
    members_.push_back(
        std::make_unique<Member>(daemon.address, MakeStubs(daemon.channel, live_calls_)));
  }
  const WatchOptions watch = {options.check_interval, options.check_timeout, options.api_key};
  // The callbacks read the list of members and the watches: they wait until all are there.
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < members_.size(); ++i) {
    members_[i]->watch = std::make_unique<DaemonWatch>(
        &members_[i]->stubs, watch, [this, i](const DaemonCheck& check) { OnCheck(i, check); });
  }
}

DaemonPool::~DaemonPool() { Stop(); }

void DaemonPool::Stop() {
  // All at once first: waiting for one does not wait for the next one's question.
  for (const auto& member : members_) member->watch->Stop();
  for (const auto& member : members_) member->watch->Join();
}

void DaemonPool::WaitForFirstChecks(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  MutexLock lock(&mutex_);
  while (num_unasked_ > 0) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) break;
    checked_.WaitFor(&mutex_, absl::ToChronoNanoseconds(left));
  }
  may_choose_model_ = true;
  ChooseModel();
  for (const auto& member : members_) LogChange(member.get());
}

void DaemonPool::OnCheck(size_t daemon, const DaemonCheck& check) {
  const absl::Time now = absl::Now();
  MutexLock lock(&mutex_);
  Member& member = *members_[daemon];
  if (!std::exchange(member.was_asked, true)) --num_unasked_;
  const bool served = member.health == DaemonCheck::Health::kServing;
  member.health = check.health;
  member.reason = check.reason;
  member.is_suspect = false;
  if (check.health == DaemonCheck::Health::kUnreachable) {
    // It may come back as another one.
    member.model.clear();
    member.fingerprint.clear();
  }
  if (check.model.has_value()) {
    member.model = check.model->name();
    member.fingerprint = FingerprintOf(*check.model);
  }
  member.num_of_others = std::max(check.num_requests.value_or(0) - member.num_in_flight, 0);
  if (!served && check.health == DaemonCheck::Health::kServing) member.breaker.AllowTrial(now);
  if (num_unasked_ == 0) may_choose_model_ = true;
  ChooseModel();
  if (may_choose_model_) LogChange(&member);
  checked_.SignalAll();
}

void DaemonPool::ChooseModel() {
  if (!may_choose_model_ || !model_.empty()) return;
  for (const auto& member : members_) {
    if (member->health != DaemonCheck::Health::kServing || member->model.empty()) continue;
    model_ = member->model;
    LogInfo(absl::StrCat("the fleet's model is ", model_, ", as ", member->address, " serves it"));
    return;
  }
}

bool DaemonPool::ServesModel(const Member& member) const {
  return model_.empty() || member.model.empty() || member.model == model_;
}

Candidate::Use DaemonPool::UseOf(const Member& member, absl::Time now) const {
  if (member.health != DaemonCheck::Health::kServing || !ServesModel(member) ||
      !member.breaker.Allows(now)) {
    return Candidate::Use::kNever;
  }
  return member.is_suspect ? Candidate::Use::kLastResort : Candidate::Use::kUsable;
}

void DaemonPool::LogChange(Member* member) {
  const DaemonReport report = ReportOn(*member, absl::Now());
  // How far loading is changes all the time.
  if (std::exchange(member->logged, report.state) == report.state) return;
  if (report.state == "serving") {
    LogInfo(
        absl::StrCat("daemon ", member->address, ": serving ",
                     member->model.empty() ? "a model that it tells to keys only" : member->model));
  } else {
    LogWarning(absl::StrCat("daemon ", member->address, " is not used: ", report.reason));
  }
}

DaemonLease DaemonPool::Lease(size_t daemon) {
  Member& member = *members_[daemon];
  DaemonLease lease;
  lease.stubs_ = &member.stubs;
  lease.pool_ = this;
  lease.daemon_ = daemon;
  ++member.num_in_flight;
  ++member.num_calls;
  return lease;
}

DaemonLease DaemonPool::Pick(const PrefixHashes& prefix, Attempts* attempts) {
  if (!is_fleet()) return Take(0);
  MutexLock lock(&mutex_);
  budget_.AddRequest();
  return PickLocked(prefix, attempts);
}

DaemonLease DaemonPool::PickAgain(RetryKind kind, const PrefixHashes& prefix, Attempts* attempts) {
  if (!is_fleet() || !attempts->Allow(kind)) return DaemonLease();
  MutexLock lock(&mutex_);
  if (!budget_.has_one()) {
    ++num_retries_denied_;
    return DaemonLease();
  }
  DaemonLease lease = PickLocked(prefix, attempts);
  if (!lease.has_daemon()) return lease;
  budget_.Take();
  ++num_retries_[static_cast<size_t>(kind)];
  return lease;
}

DaemonLease DaemonPool::PickLocked(const PrefixHashes& prefix, Attempts* attempts) {
  const absl::Time now = absl::Now();
  std::vector<Candidate> candidates;
  candidates.reserve(members_.size());
  for (size_t i = 0; i < members_.size(); ++i) {
    const Member& member = *members_[i];
    candidates.push_back({member.name_hash, member.num_in_flight + member.num_of_others,
                          attempts->HasTried(i) ? Candidate::Use::kNever : UseOf(member, now)});
  }
  const std::optional<size_t> picked = picker_.Pick(candidates, prefix);
  if (!picked.has_value()) return DaemonLease();
  attempts->Begin(*picked);
  DaemonLease lease = Lease(*picked);
  lease.kind_ = members_[*picked]->breaker.Begin();
  return lease;
}

DaemonLease DaemonPool::Take(size_t daemon) {
  if (is_fleet()) {
    MutexLock lock(&mutex_);
    return Lease(daemon);
  }
  DaemonLease lease;
  lease.stubs_ = &only_;
  return lease;
}

void DaemonPool::NoteAnswer(const DaemonLease& lease) {
  if (lease.kind_ == CallKind::kOrdinary) return;  // soon enough at its end
  MutexLock lock(&mutex_);
  members_[lease.daemon_]->breaker.End(CallKind::kTrial, CallOutcome::kSuccess, absl::Now());
}

void DaemonPool::EndCall(const DaemonLease& lease, const grpc::Status& status) {
  const absl::Time now = absl::Now();
  CallOutcome outcome = OutcomeOf(status);
  // An error of the request alone, after the daemon had taken it.
  if (lease.answered_ && outcome == CallOutcome::kFailure &&
      status.error_code() != grpc::StatusCode::UNAVAILABLE) {
    outcome = CallOutcome::kUntold;
  }
  // The trial's success has been told.
  const CallKind kind = lease.answered_ ? CallKind::kOrdinary : lease.kind_;
  MutexLock lock(&mutex_);
  Member& member = *members_[lease.daemon_];
  --member.num_in_flight;
  if (outcome == CallOutcome::kFailure) ++member.num_failures;
  const bool was_closed = member.breaker.state(now) == CircuitBreaker::State::kClosed;
  member.breaker.End(kind, outcome, now);
  if (was_closed && member.breaker.state(now) == CircuitBreaker::State::kOpen) {
    LogWarning(absl::StrCat("daemon ", member.address,
                            " keeps failing and rests: ", status.error_message().substr(0, 300)));
  }
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE && !member.is_suspect) {
    member.is_suspect = true;
    member.watch->CheckNow();
  }
}

std::vector<size_t> DaemonPool::Reachable() const {
  std::vector<size_t> reachable;
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i]->health != DaemonCheck::Health::kUnreachable) reachable.push_back(i);
  }
  return reachable;
}

grpc::Status DaemonPool::NoDaemon() {
  MutexLock lock(&mutex_);
  ++num_without_daemon_;
  return grpc::Status(grpc::StatusCode::UNAVAILABLE,
                      absl::StrCat("none of the ", members_.size(),
                                   " daemons takes requests now; GET /health says why"));
}

std::string DaemonPool::model_name() const {
  MutexLock lock(&mutex_);
  return model_;
}

std::string DaemonPool::system_fingerprint(size_t daemon) const {
  if (!is_fleet()) return "";
  MutexLock lock(&mutex_);
  return members_[daemon]->fingerprint;
}

DaemonReport DaemonPool::ReportOn(const Member& member, absl::Time now) const {
  DaemonReport report;
  report.address = member.address;
  report.reason = member.reason;
  if (!member.was_asked) {
    report.state = "not asked yet";
  } else if (member.health == DaemonCheck::Health::kUnreachable) {
    report.state = "unreachable";
  } else if (member.health == DaemonCheck::Health::kNotServing) {
    report.state = "not serving";
  } else if (!ServesModel(member)) {
    report.state = "wrong model";
    report.reason = absl::StrCat("it serves ", member.model, ", and the fleet's model is ", model_);
  } else {
    report.state = "serving";
  }
  report.circuit = member.breaker.state(now);
  if (report.state == "serving" && report.circuit == CircuitBreaker::State::kOpen) {
    report.reason = "its calls kept failing; it is tried again soon";
  }
  report.is_used = report.state == "serving" && report.circuit != CircuitBreaker::State::kOpen;
  report.num_in_flight = member.num_in_flight;
  report.num_calls = member.num_calls;
  report.num_failures = member.num_failures;
  report.num_circuit_openings = member.breaker.num_openings();
  return report;
}

std::vector<DaemonReport> DaemonPool::Report() const {
  const absl::Time now = absl::Now();
  std::vector<DaemonReport> reports;
  MutexLock lock(&mutex_);
  for (const auto& member : members_) reports.push_back(ReportOn(*member, now));
  return reports;
}

std::string DaemonPool::MetricsText() const {
  const std::vector<DaemonReport> daemons = Report();
  FleetCounts counts;
  {
    MutexLock lock(&mutex_);
    counts.num_retries_refused = num_retries_[static_cast<size_t>(RetryKind::kRefused)];
    counts.num_retries_overloaded = num_retries_[static_cast<size_t>(RetryKind::kOverloaded)];
    counts.num_retries_lost = num_retries_[static_cast<size_t>(RetryKind::kLost)];
    counts.num_retries_denied = num_retries_denied_;
    counts.num_without_daemon = num_without_daemon_;
    counts.num_spills = picker_.num_spills();
  }
  return FleetMetricsText(daemons, counts);
}

}  // namespace fastgen::gateway
