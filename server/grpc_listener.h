// Builds the gRPC server of a daemon: services, health, reflection, addresses, limits.
//
// Tuned for few cores: the callback API brings its own small set of threads (at least two, at most one for every two
// cores), so the synchronous side, which serves reflection only, is held to one poller.
// Thread rule: the owner's thread.
// Tested by tests/server/in_process_test.cc.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <grpcpp/server.h>

#include "absl/status/statusor.h"

namespace fastgen {

struct GrpcListener {
  std::unique_ptr<grpc::Server> server;
  std::vector<std::string> addresses;  // as bound
};

// `services` must outlive the server. UNAVAILABLE naming the address that cannot be taken. Health answers NOT_SERVING
// until told otherwise.
absl::StatusOr<GrpcListener> StartGrpcListener(const std::vector<std::string>& listen,
                                               const std::vector<grpc::Service*>& services,
                                               int32_t max_request_bytes);

// What grpc.health.v1 answers for "" and for every service named here.
void SetHealth(grpc::Server* server, bool serving);

}  // namespace fastgen
