// DaemonParts: where a Daemon gets its engine and its gateway from.
//
// Daemon::Start (server/in_process.cc) names the real ones; tests put a fake engine here and need neither a model nor
// HTTP.
// Thread rule: load_engine runs on the daemon's loading thread, start_gateway on the thread that calls Start.
#pragma once

#include <functional>
#include <memory>

#include <grpcpp/channel.h>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "server/gateway/http_server.h"
#include "server/in_process.h"

namespace fastgen {

struct DaemonParts {
  std::function<absl::StatusOr<std::unique_ptr<Engine>>(const LoadProgress&)> load_engine;
  // Called only when DaemonOptions::http_listen is not empty.
  std::function<absl::StatusOr<std::unique_ptr<HttpServer>>(const GatewayOptions&,
                                                            std::shared_ptr<grpc::Channel>)>
      start_gateway;
};

}  // namespace fastgen
