#include "server/admin_service.h"

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/proto_convert.h"

namespace fastgen {
namespace {

grpc::ServerUnaryReactor* NotServed(grpc::CallbackServerContext* context, const char* method) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(absl::UnimplementedError(
      absl::StrCat("Admin/", method, " is not served by this version"))));
  return reactor;
}

// The gauges and counters under the names that vLLM's dashboards know, with our prefix.
std::string PrometheusText(const EngineStats& stats, const std::string& model_name) {
  std::string label;
  for (const char c : model_name) {
    if (c == '\\' || c == '"') label += '\\';
    label += c == '\n' ? ' ' : c;
  }
  std::string text;
  const auto add = [&](const char* name, const char* type, double value) {
    absl::StrAppend(&text, "# TYPE fastgen:", name, " ", type, "\nfastgen:", name,
                    "{model_name=\"", label, "\"} ", value, "\n");
  };
  const int32_t used_blocks = stats.num_blocks - stats.num_free_blocks;
  add("num_requests_running", "gauge", stats.num_running);
  add("num_requests_waiting", "gauge", stats.num_waiting);
  add("kv_cache_usage_perc", "gauge",
      stats.num_blocks == 0 ? 0 : static_cast<double>(used_blocks) / stats.num_blocks);
  add("num_preemptions_total", "counter", static_cast<double>(stats.num_preemptions));
  add("prompt_tokens_total", "counter", static_cast<double>(stats.prompt_tokens));
  add("generation_tokens_total", "counter", static_cast<double>(stats.output_tokens));
  return text;
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::GetStats(grpc::CallbackServerContext* context,
                                                 const v1::GetStatsRequest* request,
                                                 v1::Stats* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto engine = gate_->Loaded();
  if (engine.ok()) {
    const EngineStats stats = (*engine)->stats();
    response->set_num_running(stats.num_running);
    response->set_num_waiting(stats.num_waiting);
    response->set_num_free_blocks(stats.num_free_blocks);
    response->set_num_blocks(stats.num_blocks);
    response->set_num_preemptions(stats.num_preemptions);
    response->set_num_steps(stats.num_steps);
    response->set_prompt_tokens(stats.prompt_tokens);
    response->set_output_tokens(stats.output_tokens);
    response->set_finished_requests(stats.finished_requests);
    response->set_prometheus_text(PrometheusText(stats, (*engine)->model_info().name));
  }
  reactor->Finish(ToGrpcStatus(engine.status()));
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::ListRequests(
    grpc::CallbackServerContext* context, const v1::ListRequestsRequest* request,
    v1::ListRequestsResponse* response) {
  return NotServed(context, "ListRequests");
}

grpc::ServerUnaryReactor* AdminService::Drain(
    grpc::CallbackServerContext* context, const v1::DrainRequest* request,
    v1::DrainResponse* response) {
  return NotServed(context, "Drain");
}

grpc::ServerUnaryReactor* AdminService::StartProfile(
    grpc::CallbackServerContext* context, const v1::StartProfileRequest* request,
    v1::StartProfileResponse* response) {
  return NotServed(context, "StartProfile");
}

grpc::ServerUnaryReactor* AdminService::StopProfile(
    grpc::CallbackServerContext* context, const v1::StopProfileRequest* request,
    v1::StopProfileResponse* response) {
  return NotServed(context, "StopProfile");
}

grpc::ServerUnaryReactor* AdminService::FlushPrefixCache(
    grpc::CallbackServerContext* context, const v1::FlushPrefixCacheRequest* request,
    v1::FlushPrefixCacheResponse* response) {
  return NotServed(context, "FlushPrefixCache");
}

grpc::ServerUnaryReactor* AdminService::Pause(
    grpc::CallbackServerContext* context, const v1::PauseRequest* request,
    v1::PauseResponse* response) {
  return NotServed(context, "Pause");
}

grpc::ServerUnaryReactor* AdminService::Resume(
    grpc::CallbackServerContext* context, const v1::ResumeRequest* request,
    v1::ResumeResponse* response) {
  return NotServed(context, "Resume");
}

grpc::ServerUnaryReactor* AdminService::Sleep(
    grpc::CallbackServerContext* context, const v1::SleepRequest* request,
    v1::SleepResponse* response) {
  return NotServed(context, "Sleep");
}

grpc::ServerUnaryReactor* AdminService::WakeUp(
    grpc::CallbackServerContext* context, const v1::WakeUpRequest* request,
    v1::WakeUpResponse* response) {
  return NotServed(context, "WakeUp");
}

grpc::ServerUnaryReactor* AdminService::UpdateWeights(
    grpc::CallbackServerContext* context, const v1::UpdateWeightsRequest* request,
    v1::UpdateWeightsResponse* response) {
  return NotServed(context, "UpdateWeights");
}

}  // namespace fastgen
