#include "server/admin_service.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "server/proto_convert.h"

namespace fastgen {
namespace {

constexpr ScopeSet kAdminScope = {Scope::kAdmin};
// What /metrics shows.
constexpr ScopeSet kStatsScopes = {Scope::kMetrics, Scope::kAdmin};

grpc::ServerUnaryReactor* NotServed(grpc::CallbackServerContext* context, const char* method) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(absl::UnimplementedError(
      absl::StrCat("Admin/", method, " is not served by this version"))));
  return reactor;
}

grpc::ServerUnaryReactor* Refused(grpc::ServerUnaryReactor* reactor, const absl::Status& status) {
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::GetStats(grpc::CallbackServerContext* context,
                                                 const v1::GetStatsRequest* request,
                                                 v1::Stats* response) {
  if (auto* refused = access_->Refuse(context, kStatsScopes)) return refused;
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto engine = gate_->Loaded();
  if (engine.ok()) {
    ToProto((*engine)->stats(), response);
    response->set_prometheus_text(metrics_->Render(*engine));
  }
  reactor->Finish(ToGrpcStatus(engine.status()));
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::GetMetrics(grpc::CallbackServerContext* context,
                                                   const v1::GetMetricsRequest* request,
                                                   v1::Metrics* response) {
  if (auto* refused = access_->Refuse(context, kStatsScopes)) return refused;
  const auto engine = gate_->Loaded();
  response->set_prometheus_text(metrics_->Render(engine.ok() ? *engine : nullptr));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::ListRequests(
    grpc::CallbackServerContext* context, const v1::ListRequestsRequest* request,
    v1::ListRequestsResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto engine = gate_->Loaded();
  if (!engine.ok()) return Refused(reactor, engine.status());
  (*engine)->ListRequests([reactor, response](std::vector<RequestInfo> requests) {
    for (const RequestInfo& info : requests) {
      v1::RequestInfo* const request = response->add_requests();
      ToProto(info, request);
      const AccessControl::Owned owned = AccessControl::SplitEngineId(info.request_id);
      request->set_request_id(std::string(owned.request_id));
      request->set_key_name(std::string(owned.key_name));
    }
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::Drain(
    grpc::CallbackServerContext* context, const v1::DrainRequest* request,
    v1::DrainResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  start_drain_();
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::StartProfile(
    grpc::CallbackServerContext* context, const v1::StartProfileRequest* request,
    v1::StartProfileResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  return NotServed(context, "StartProfile");
}

grpc::ServerUnaryReactor* AdminService::StopProfile(
    grpc::CallbackServerContext* context, const v1::StopProfileRequest* request,
    v1::StopProfileResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  return NotServed(context, "StopProfile");
}

grpc::ServerUnaryReactor* AdminService::FlushPrefixCache(
    grpc::CallbackServerContext* context, const v1::FlushPrefixCacheRequest* request,
    v1::FlushPrefixCacheResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto engine = gate_->Loaded();
  if (!engine.ok()) return Refused(reactor, engine.status());
  (*engine)->FlushPrefixCache([reactor, response](int32_t num_blocks) {
    response->set_num_blocks(num_blocks);
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::Pause(
    grpc::CallbackServerContext* context, const v1::PauseRequest* request,
    v1::PauseResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto engine = gate_->Loaded();
  if (!engine.ok()) return Refused(reactor, engine.status());
  (*engine)->Pause([reactor] { reactor->Finish(grpc::Status::OK); });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::Resume(
    grpc::CallbackServerContext* context, const v1::ResumeRequest* request,
    v1::ResumeResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto engine = gate_->Loaded();
  if (!engine.ok()) return Refused(reactor, engine.status());
  (*engine)->Resume();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::Sleep(
    grpc::CallbackServerContext* context, const v1::SleepRequest* request,
    v1::SleepResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  return NotServed(context, "Sleep");
}

grpc::ServerUnaryReactor* AdminService::WakeUp(
    grpc::CallbackServerContext* context, const v1::WakeUpRequest* request,
    v1::WakeUpResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  return NotServed(context, "WakeUp");
}

grpc::ServerUnaryReactor* AdminService::UpdateWeights(
    grpc::CallbackServerContext* context, const v1::UpdateWeightsRequest* request,
    v1::UpdateWeightsResponse* response) {
  if (auto* refused = access_->Refuse(context, kAdminScope)) return refused;
  return NotServed(context, "UpdateWeights");
}

}  // namespace fastgen
