// Builds the gRPC server of a daemon: services, health, reflection, addresses, limits.
//
// Tuned for few cores: the callback API brings its own small set of threads (at least two, at most
// one for every two cores), so the synchronous side, which serves reflection only, is held to one
// poller.
// Thread rule: the owner's thread.
// Tested by tests/server/in_process_test.cc.
#pragma once

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/transport/tls_source.h"

namespace fastgen {

struct GrpcListener {
  std::vector<std::shared_ptr<grpc::ServerCredentials>> credentials;  // outlive the server
  std::unique_ptr<grpc::Server> server;
  std::vector<std::string> addresses;  // as bound
};

struct GrpcListenOptions {
  std::vector<std::string> listen;     // may be empty: reached by in-process channels only
  std::string flag = "--grpc-listen";  // opens the messages about an address
  std::shared_ptr<TlsSource> tls;      // of all TCP addresses; null: they are plain
  int32_t max_request_bytes = 0;
};

// `services` must outlive the server; one service may be on several. UNAVAILABLE naming the address
// that cannot be taken. Health answers NOT_SERVING until told otherwise. Socket files get mode
// 0660.
absl::StatusOr<GrpcListener> StartGrpcListener(const GrpcListenOptions& options,
                                               const std::vector<grpc::Service*>& services);

// What grpc.health.v1 answers for "" and for every service named here.
void SetHealth(grpc::Server* server, bool serving);

}  // namespace fastgen
