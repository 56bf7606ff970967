// HttpServer: the OpenAI dialect over HTTP/1.1, translated to fastgen.v1 over a gRPC channel.
//
// Knows nothing of the engine: linked into fastgend over an in-process channel, and into
// fastgen-gateway for a remote daemon. Closing a connection mid-answer cancels its gRPC call.
// Thread rule: Start, Stop and the destructor from one thread; I/O runs on the server's own
// threads.
// Tested by tests/server/gateway/*_test.cc (fake gRPC service) and tests/e2e.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/gateway/fleet_options.h"
#include "server/transport/tls_source.h"

namespace fastgen {

struct GatewayOptions {
  std::vector<std::string> listen;        // host:port or unix:/path; port 0: any free one
  TlsFiles tls;                           // of all TCP addresses; without them they are plain
  std::vector<std::string> cors_origins;  // "*" for all; empty: CORS is off
  int num_threads = 1;
  int64_t max_body_bytes = 16 << 20;
  bool strict_model = false;
  bool strict_fields = false;  // unknown fields are refused, not only named in X-Fastgen-Ignored

  // Whether the key in these headers is known, asked before a request is looked at; absent: the
  // daemon refuses the call that a request leads to.
  std::function<grpc::Status(const std::vector<std::pair<std::string, std::string>>&)> check_key;

  int max_connections = 8192;  // one more is answered 503 and closed
  int64_t max_head_bytes = 64 << 10;
  // A request must arrive within this, plus one second for each 64 KiB of it; an answer must leave
  // alike.
  absl::Duration transfer_timeout = absl::Seconds(30);
  absl::Duration handshake_timeout = absl::Seconds(10);  // of TLS
  absl::Duration idle_timeout = absl::Seconds(75);       // between two requests of one connection
  absl::Duration keep_alive_interval =
      absl::Seconds(15);  // of silence in a stream, then a comment line
};

class HttpServer {
 public:
  // Binds and serves. UNAVAILABLE naming the address when it is taken; INVALID_ARGUMENT when it is
  // not an address, or a file of `tls` is not what it should be. Raises the process's limit on open
  // files to what max_connections needs, as far as it may.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const GatewayOptions& options,
                                                           std::shared_ptr<grpc::Channel> channel);
  // The same before several daemons (server/gateway/daemon_pool.h), none of which need be up. Waits
  // until each has answered or failed to, at most one check_timeout.
  static absl::StatusOr<std::unique_ptr<HttpServer>> StartFleet(const GatewayOptions& options,
                                                                const FleetOptions& fleet);
  virtual ~HttpServer() = default;

  // "host:port" or "unix:/path" as bound.
  virtual const std::vector<std::string>& addresses() const = 0;
  // Closes the listeners and idle connections; answers under way go on.
  virtual void StopAccepting() = 0;
  // After StopAccepting: true once every connection is closed, false after `timeout`.
  virtual bool WaitIdle(absl::Duration timeout) = 0;
  // Closes everything and joins the threads.
  virtual void Stop() = 0;
};

}  // namespace fastgen
