// Daemon's working parts; Daemon::Start, which names the real engine and gateway, is in in_process.cc.
#include <pthread.h>

#include <thread>
#include <utility>

#include <grpcpp/server.h>
#include <grpcpp/support/channel_arguments.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "server/access_control.h"
#include "server/admin_service.h"
#include "server/daemon_parts.h"
#include "server/engine_gate.h"
#include "server/grpc_listener.h"
#include "server/grpc_status.h"
#include "server/in_process.h"
#include "server/inference_service.h"
#include "server/metrics.h"
#include "server/transport/listen_address.h"

namespace fastgen {
namespace {

// How long Stop waits for cancelled streams to hand over their last event before it cuts them off.
constexpr absl::Duration kStopGrace = absl::Seconds(1);

ServiceOptions ServiceOptionsOf(const DaemonOptions& options) {
  ServiceOptions service;
  service.strict_model = options.strict_model;
  service.strict_fields = options.strict_fields;
  service.stream.max_outbox_tokens = options.max_outbox_tokens;
  service.stream.resume_ring_tokens = options.resume_ring_tokens;
  return service;
}

absl::Status CheckRange(const char* flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " ", value, ": must be between ", low, " and ", high));
}

// A wrong address is not refused here: binding it says why.
absl::Status CheckExposure(const DaemonOptions& options) {
  if (options.allow_public_without_keys || !options.api_keys_path.empty() ||
      !options.tls.client_ca.empty()) {
    return absl::OkStatus();
  }
  for (const auto* listen : {&options.grpc_listen, &options.http_listen, &options.admin_listen}) {
    for (const std::string& address : *listen) {
      if (!IsPublicAddress(address)) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "other machines reach ", address, " and nothing tells callers apart: give --api-keys or "
          "--tls-client-ca, listen on 127.0.0.1, or say --allow-public-without-keys"));
    }
  }
  return absl::OkStatus();
}

GatewayOptions GatewayOptionsOf(const DaemonOptions& options) {
  GatewayOptions gateway;
  gateway.listen = options.http_listen;
  gateway.tls = options.tls;
  gateway.cors_origins = options.cors_origins;
  gateway.max_body_bytes = options.max_request_bytes;
  gateway.max_head_bytes = options.max_head_bytes;
  gateway.max_connections = options.max_connections;
  gateway.transfer_timeout = options.transfer_timeout;
  gateway.idle_timeout = options.idle_timeout;
  gateway.strict_model = options.strict_model;
  gateway.strict_fields = options.strict_fields;
  return gateway;
}

}  // namespace

// Members are destroyed from the last to the first, after the engine: the listeners before the services, the gate last.
struct Daemon::State {
  State(const DaemonOptions& daemon_options, DaemonParts daemon_parts)
      : options(daemon_options),
        parts(std::move(daemon_parts)),
        gate([this] { OnEngineFailure(); }),
        access(options.api_keys_path, &clock),
        inference(&gate, &access, ServiceOptionsOf(options), &metrics),
        admin(&gate, &access, &metrics, [this] { DrainByCall(); }) {}
  // The engine's last calls reach streams, services and the owner: it ends before any of them.
  ~State() { gate.Close(); }

  absl::Status ReloadKeys();
  absl::Status Listen();
  absl::Status ListenForGrpc();
  void Load(const LoadProgress& progress);
  void OnEngineFailure();
  void StartDrain();
  // Admin.Drain: the owner is told, as by a signal.
  void DrainByCall();
  void CloseGateway();
  // Makes grpc.health agree with the gate. The lock keeps two changes from overtaking each other.
  void UpdateHealth();
  void NotifyOwner() {
    if (options.on_change) options.on_change();
  }

  const DaemonOptions options;
  const DaemonParts parts;
  Metrics metrics;
  EngineGate gate;
  const RealClock clock;
  AccessControl access;
  InferenceService inference;
  AdminService admin;
  // Without --admin-listen one server has both services. With it each has a server of its own, and the gateway's
  // channel leads to a third, which listens nowhere and has both.
  std::vector<GrpcListener> listeners;
  std::vector<std::string> grpc_addresses;
  std::vector<std::string> admin_addresses;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<HttpServer> gateway;
  std::vector<std::string> http_addresses;
  std::thread loader;
  bool stopped = false;            // owner's thread only
  bool gateway_accepting = false;  // owner's thread only

  Mutex health_mutex;
  Mutex load_mutex;
  CondVar load_ended;
  std::optional<absl::Status> load_status ABSL_GUARDED_BY(load_mutex);
};

absl::Status Daemon::State::ReloadKeys() {
  const absl::Status status = access.Load();
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("--api-keys ", status.message()));
}

absl::Status Daemon::State::ListenForGrpc() {
  GrpcListenOptions main, admin_only;
  main.max_request_bytes = admin_only.max_request_bytes = options.max_request_bytes;
  if (options.tls.given()) {
    ASSIGN_OR_RETURN(main.tls, TlsSource::Open(options.tls));
  }
  admin_only.tls = main.tls;
  admin_only.listen = options.admin_listen;
  admin_only.flag = "--admin-listen";
  const bool split = !options.admin_listen.empty();
  if (split) {
    ASSIGN_OR_RETURN(GrpcListener hidden, StartGrpcListener(main, {&inference, &admin}));
    listeners.push_back(std::move(hidden));
    ASSIGN_OR_RETURN(GrpcListener for_admin, StartGrpcListener(admin_only, {&admin}));
    admin_addresses = for_admin.addresses;
    listeners.push_back(std::move(for_admin));
  }
  main.listen = options.grpc_listen;
  const std::vector<grpc::Service*> services =
      split ? std::vector<grpc::Service*>{&inference} : std::vector<grpc::Service*>{&inference, &admin};
  ASSIGN_OR_RETURN(GrpcListener listener, StartGrpcListener(main, services));
  grpc_addresses = listener.addresses;
  listeners.push_back(std::move(listener));
  return absl::OkStatus();
}

absl::Status Daemon::State::Listen() {
  RETURN_IF_ERROR(CheckExposure(options));
  RETURN_IF_ERROR(ListenForGrpc());
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  channel = listeners[0].server->InProcessChannel(arguments);
  if (options.http_listen.empty()) return absl::OkStatus();
  GatewayOptions gateway_options = GatewayOptionsOf(options);
  if (!options.api_keys_path.empty()) {
    gateway_options.check_key = [this](const AccessControl::Headers& headers) {
      return ToGrpcStatus(access.CheckKey(headers));
    };
  }
  ASSIGN_OR_RETURN(gateway, parts.start_gateway(gateway_options, channel));
  http_addresses = gateway->addresses();
  gateway_accepting = true;
  return absl::OkStatus();
}

void Daemon::State::Load(const LoadProgress& progress) {
  pthread_setname_np(pthread_self(), "load");
  auto engine = parts.load_engine([&](int64_t done_bytes, int64_t total_bytes) {
    gate.SetLoadProgress(done_bytes, total_bytes);
    if (progress) progress(done_bytes, total_bytes);
  });
  const absl::Status status = engine.status();
  if (engine.ok()) {
    gate.Open(*std::move(engine));
  } else {
    gate.FailLoading(status);
  }
  UpdateHealth();
  {
    MutexLock lock(&load_mutex);
    load_status = status;
    load_ended.SignalAll();
  }
  NotifyOwner();
}

void Daemon::State::OnEngineFailure() {
  LogError(FromAbsl(gate.health().message()));
  UpdateHealth();
  NotifyOwner();
}

void Daemon::State::StartDrain() {
  gate.StartDrain();
  inference.StartDrain();
  UpdateHealth();
}

void Daemon::State::DrainByCall() {
  StartDrain();
  if (options.on_drain) options.on_drain();
}

void Daemon::State::CloseGateway() {
  if (std::exchange(gateway_accepting, false)) gateway->StopAccepting();
}

void Daemon::State::UpdateHealth() {
  MutexLock lock(&health_mutex);
  const bool serving = gate.phase() == EngineGate::Phase::kServing;
  for (const GrpcListener& listener : listeners) SetHealth(listener.server.get(), serving);
}

Daemon::Daemon(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::StartWith(const DaemonOptions& options,
                                                          const LoadProgress& progress,
                                                          DaemonParts parts) {
  RETURN_IF_ERROR(CheckRange("--max-request-bytes", options.max_request_bytes, 1024, 1 << 30));
  RETURN_IF_ERROR(CheckRange("--max-outbox-tokens", options.max_outbox_tokens, 1, 1 << 24));
  RETURN_IF_ERROR(CheckRange("--resume-ring-tokens", options.resume_ring_tokens, 1, 1 << 24));
  std::unique_ptr<Daemon> daemon(new Daemon(std::make_unique<State>(options, std::move(parts))));
  State* state = daemon->state_.get();
  RETURN_IF_ERROR(state->ReloadKeys());
  RETURN_IF_ERROR(state->Listen());
  state->loader = std::thread([state, progress] { state->Load(progress); });
  return daemon;
}

Daemon::~Daemon() { Stop(); }

absl::Status Daemon::WaitLoaded() {
  MutexLock lock(&state_->load_mutex);
  while (!state_->load_status.has_value()) state_->load_ended.Wait(&state_->load_mutex);
  return *state_->load_status;
}

std::shared_ptr<grpc::Channel> Daemon::channel() { return state_->channel; }

const Engine& Daemon::engine() const {
  const auto engine = state_->gate.Loaded();
  CHECK(engine.ok()) << "engine() before WaitLoaded returned OK";
  return **engine;
}

const std::vector<std::string>& Daemon::grpc_addresses() const {
  return state_->grpc_addresses;
}

const std::vector<std::string>& Daemon::admin_addresses() const { return state_->admin_addresses; }

const std::vector<std::string>& Daemon::http_addresses() const { return state_->http_addresses; }

absl::Status Daemon::health() const { return state_->gate.health(); }

absl::Status Daemon::ReloadKeys() { return state_->ReloadKeys(); }

void Daemon::StartDrain() { state_->StartDrain(); }

bool Daemon::WaitDrained(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  const auto left = [&] {
    return timeout == absl::InfiniteDuration()
               ? timeout
               : std::max(deadline - absl::Now(), absl::ZeroDuration());
  };
  const auto engine = state_->gate.Loaded();
  if (engine.ok() && !(*engine)->WaitIdle(timeout)) return false;
  if (!state_->gate.WaitNoStreams(left())) return false;
  if (state_->gateway == nullptr || state_->stopped) return true;
  // The answers are complete as gRPC messages; HTTP may still be sending them.
  state_->CloseGateway();
  return state_->gateway->WaitIdle(left());
}

void Daemon::Stop() {
  if (std::exchange(state_->stopped, true)) return;
  if (!state_->listeners.empty()) StartDrain();
  if (state_->gateway != nullptr) state_->CloseGateway();
  const auto engine = state_->gate.Loaded();
  if (engine.ok()) (*engine)->CancelAll();
  // Shutdown cuts off in-process streams whatever its deadline, so their end is awaited first.
  state_->gate.WaitNoStreams(kStopGrace);
  // The gateway goes first: a call that starts on the in-process channel of a stopped server crashes in gRPC 1.51.
  if (state_->gateway != nullptr) {
    state_->gateway->WaitIdle(kStopGrace);
    state_->gateway->Stop();
  }
  for (const GrpcListener& listener : state_->listeners) {
    listener.server->Shutdown(absl::ToChronoTime(absl::Now() + kStopGrace));
  }
  if (state_->loader.joinable()) state_->loader.join();
}

}  // namespace fastgen
