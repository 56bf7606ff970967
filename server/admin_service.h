// AdminService: fastgen.v1.Admin: what an operator asks and orders. What the engine answers between two steps
// (ListRequests, Pause, FlushPrefixCache) finishes its call from the engine's thread. Profiling, sleep and new weights
// answer UNIMPLEMENTED with their name.
// Thread rule: gRPC's callback threads, concurrently.
// Tested by tests/server/inference_service_test.cc.
#pragma once

#include <functional>
#include <utility>

#include "fastgen/v1/admin.grpc.pb.h"
#include "server/access_control.h"
#include "server/engine_gate.h"
#include "server/metrics.h"

namespace fastgen {

class AdminService final : public v1::Admin::CallbackService {
 public:
  // `start_drain` is called from gRPC's threads, any number of times, and must not block.
  AdminService(EngineGate* gate, const AccessControl* access, const Metrics* metrics,
               std::function<void()> start_drain)
      : gate_(gate), access_(access), metrics_(metrics), start_drain_(std::move(start_drain)) {}

  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* context,
                                     const v1::GetStatsRequest* request,
                                     v1::Stats* response) override;
  grpc::ServerUnaryReactor* GetMetrics(grpc::CallbackServerContext* context,
                                       const v1::GetMetricsRequest* request,
                                       v1::Metrics* response) override;
  grpc::ServerUnaryReactor* ListRequests(grpc::CallbackServerContext* context,
                                         const v1::ListRequestsRequest* request,
                                         v1::ListRequestsResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;
  grpc::ServerUnaryReactor* StartProfile(grpc::CallbackServerContext* context,
                                         const v1::StartProfileRequest* request,
                                         v1::StartProfileResponse* response) override;
  grpc::ServerUnaryReactor* StopProfile(grpc::CallbackServerContext* context,
                                        const v1::StopProfileRequest* request,
                                        v1::StopProfileResponse* response) override;
  grpc::ServerUnaryReactor* FlushPrefixCache(grpc::CallbackServerContext* context,
                                             const v1::FlushPrefixCacheRequest* request,
                                             v1::FlushPrefixCacheResponse* response) override;
  grpc::ServerUnaryReactor* Pause(grpc::CallbackServerContext* context,
                                  const v1::PauseRequest* request,
                                  v1::PauseResponse* response) override;
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context,
                                   const v1::ResumeRequest* request,
                                   v1::ResumeResponse* response) override;
  grpc::ServerUnaryReactor* Sleep(grpc::CallbackServerContext* context,
                                  const v1::SleepRequest* request,
                                  v1::SleepResponse* response) override;
  grpc::ServerUnaryReactor* WakeUp(grpc::CallbackServerContext* context,
                                   const v1::WakeUpRequest* request,
                                   v1::WakeUpResponse* response) override;
  grpc::ServerUnaryReactor* UpdateWeights(grpc::CallbackServerContext* context,
                                          const v1::UpdateWeightsRequest* request,
                                          v1::UpdateWeightsResponse* response) override;

 private:
  EngineGate* const gate_;
  const AccessControl* const access_;
  const Metrics* const metrics_;
  const std::function<void()> start_drain_;
};

}  // namespace fastgen
