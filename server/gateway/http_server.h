// HttpServer: the OpenAI dialect over HTTP/1.1, translated to fastgen.v1 over a gRPC channel.
//
// Knows nothing of the engine: linked into fastgend over an in-process channel, and into fastgen-gateway for a remote
// daemon. Closing a connection mid-answer cancels its gRPC call.
// Thread rule: Start, Stop and the destructor from one thread; I/O runs on the server's own threads.
// Tested by tests/server/gateway/*_test.cc (fake gRPC service) and tests/e2e.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <grpcpp/channel.h>

#include "absl/status/statusor.h"

namespace fastgen {

struct GatewayOptions {
  std::vector<std::string> listen;  // host:port; port 0: any free one
  int num_threads = 1;
  int64_t max_body_bytes = 16 << 20;
  bool strict_model = false;
};

class HttpServer {
 public:
  // Binds and serves. UNAVAILABLE naming the address when it is taken; INVALID_ARGUMENT when it is not an address.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const GatewayOptions& options,
                                                           std::shared_ptr<grpc::Channel> channel);
  virtual ~HttpServer() = default;

  // "host:port" as bound.
  virtual const std::vector<std::string>& addresses() const = 0;
  // Closes the listeners and idle connections; answers under way go on.
  virtual void StopAccepting() = 0;
  // Closes everything and joins the threads.
  virtual void Stop() = 0;
};

}  // namespace fastgen
