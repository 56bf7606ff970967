// DaemonStubs: what the handlers need of the daemon behind the channel.
//
// Thread rule: immutable after construction; stubs may be used from any thread.
#pragma once

#include <grpcpp/client_context.h>

#include <memory>

#include "fastgen/v1/admin.grpc.pb.h"
#include "fastgen/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/gateway/exchange.h"
#include "server/gateway/live_calls.h"

namespace fastgen::gateway {

struct DaemonStubs {
  std::unique_ptr<v1::Inference::Stub> inference;
  std::unique_ptr<v1::Admin::Stub> admin;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
  std::shared_ptr<LiveCalls> live_calls;
};

// Keys and trace context of the HTTP request go on as metadata: the daemon alone decides who may do
// what.
inline void AddMetadata(const Headers& metadata, grpc::ClientContext* context) {
  for (const auto& [name, value] : metadata) context->AddMetadata(name, value);
}

}  // namespace fastgen::gateway
