#include "server/grpc_listener.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "server/tls_credentials.h"
#include "server/transport/listen_address.h"

namespace fastgen {
namespace {

// A peer that does not answer a ping for 20 s is gone: its streams are cancelled and their blocks
// freed.
constexpr int kKeepaliveTimeMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
// Clients may ping that often, also without a call, as their own keepalive for long prefills.
constexpr int kMinClientPingIntervalMs = 10'000;
constexpr mode_t kSocketMode = 0660;

// gRPC's own lines go to our log: what matters of them is said by our statuses already.
void ForwardGrpcLog(gpr_log_func_args* args) {
  LogDebug(FromAbsl(absl::StrCat("grpc: ", args->message)));
}

// Process-wide switches of gRPC, before the first server is built.
void PrepareGrpcOnce() {
  static const bool prepared = [] {
    gpr_set_log_function(ForwardGrpcLog);
    grpc::EnableDefaultHealthCheckService(true);
    // Called by name, so that the linker keeps the library, whose own static initialiser would do
    // the same.
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  static_cast<void>(prepared);
}

void Tune(grpc::ServerBuilder* builder, int32_t max_request_bytes) {
  builder->SetMaxReceiveMessageSize(max_request_bytes);
  builder->SetMaxSendMessageSize(-1);
  builder->SetResourceQuota(grpc::ResourceQuota("fastgend").SetMaxThreads(4));
  builder->SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  // Two daemons on one port would share its connections at random; the second must fail instead.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinClientPingIntervalMs);
}

// A socket file is for this machine: it needs no TLS, and its mode says who may open it.
std::shared_ptr<grpc::ServerCredentials> CredentialsFor(const std::string& address,
                                                        const std::shared_ptr<TlsSource>& tls) {
  if (tls == nullptr || UnixPath(address).has_value()) return grpc::InsecureServerCredentials();
  return MakeTlsCredentials(tls);
}

}  // namespace

absl::StatusOr<GrpcListener> StartGrpcListener(const GrpcListenOptions& options,
                                               const std::vector<grpc::Service*>& services) {
  const std::vector<std::string>& listen = options.listen;
  for (const std::string& address : listen) {
    RETURN_IF_ERROR(CheckCanListen(address, options.flag));
  }
  PrepareGrpcOnce();
  grpc::ServerBuilder builder;
  Tune(&builder, options.max_request_bytes);
  GrpcListener listener;
  std::vector<int> ports(listen.size(), 0);
  for (size_t i = 0; i < listen.size(); ++i) {
    listener.credentials.push_back(CredentialsFor(listen[i], options.tls));
    builder.AddListeningPort(listen[i], listener.credentials.back(), &ports[i]);
  }
  for (grpc::Service* service : services) builder.RegisterService(service);
  listener.server = builder.BuildAndStart();
  for (size_t i = 0; i < listen.size(); ++i) {
    // The address was free a moment ago: somebody was faster, or it was given twice.
    if (ports[i] == 0) {
      return absl::UnavailableError(
          absl::StrCat(options.flag, " ", listen[i], ": the address could not be bound"));
    }
    listener.addresses.push_back(WithPort(listen[i], ports[i]));
    if (const auto path = UnixPath(listen[i])) chmod(path->c_str(), kSocketMode);
  }
  if (listener.server == nullptr) return absl::InternalError("the gRPC server did not start");
  SetHealth(listener.server.get(), false);
  return listener;
}

void SetHealth(grpc::Server* server, bool serving) {
  auto* health = server->GetHealthCheckService();
  for (const char* service : {"", "fastgen.v1.Inference"}) {
    health->SetServingStatus(service, serving);
  }
}

}  // namespace fastgen
