#include "server/gateway/plain_routes.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/errors.h"
#include "server/gateway/fleet_routes.h"
#include "server/gateway/json_fields.h"
#include "server/gateway/json_text.h"
#include "server/gateway/openapi.h"
#include "server/gateway/unary_exchange.h"

namespace fastgen::gateway {
namespace {

using Writer = std::shared_ptr<ResponseWriter>;
namespace health = grpc::health::v1;

constexpr size_t kMaxCancels = 4096;

std::string ModelJson(const Router& router, const v1::ModelInfo& info) {
  std::string json = "{\"id\":";
  AppendJsonString(info.name(), &json);
  absl::StrAppend(&json, ",\"object\":\"model\",\"created\":", router.start_time_s(),
                  ",\"owned_by\":\"fastgen\",\"root\":");
  AppendJsonString(info.name(), &json);
  absl::StrAppend(&json, ",\"parent\":null,\"max_model_len\":", info.context_length(),
                  ",\"permission\":[]}");
  return json;
}

void AnswerUnhealthy(const Writer& writer, std::string reason) {
  RespondError(
      writer,
      {.status = 503, .message = std::move(reason), .code = "unavailable", .retry_after_s = 1});
}

// Why the daemon is not serving, or that it is when it has no health service.
std::shared_ptr<Exchange> HealthFromModelInfo(Router& router, const HttpRequest& request,
                                              const Writer& writer, std::string reason_if_ok) {
  using Info = UnaryExchange<v1::GetModelInfoRequest, v1::ModelInfo>;
  return Info::Start(
      writer, router.daemons(), request.metadata, {},
      [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
         Info::Done done) {
        daemon.inference->async()->GetModelInfo(context, in, out, std::move(done));
      },
      [writer, reason_if_ok](const grpc::Status& status, const v1::ModelInfo&) {
        // Whoever asks for health needs no key, and a daemon that asks for one has its model.
        if (!status.ok() && status.error_code() != grpc::StatusCode::UNAUTHENTICATED) {
          AnswerUnhealthy(writer, ErrorFromGrpc(status).message);
        } else if (!reason_if_ok.empty()) {
          AnswerUnhealthy(writer, reason_if_ok);
        } else {
          RespondJson(writer, "{\"status\":\"ok\"}");
        }
      });
}

void AppendStrings(const google::protobuf::RepeatedPtrField<std::string>& strings,
                   std::string* json) {
  json->push_back('[');
  for (int i = 0; i < strings.size(); ++i) {
    if (i > 0) json->push_back(',');
    AppendJsonString(strings[i], json);
  }
  json->push_back(']');
}

void ReadCancel(JsonFields* fields, v1::CancelRequest* call) {
  if (auto id = fields->String("request_id")) call->add_request_ids(*std::move(id));
  if (const auto* ids = fields->Array("request_ids", kMaxCancels)) {
    for (const boost::json::value& id : *ids) {
      if (!id.is_string()) {
        fields->Fail("request_ids", "request_ids must hold strings", "invalid_type");
        return;
      }
      call->add_request_ids(std::string(id.get_string().data(), id.get_string().size()));
    }
  }
  if (call->request_ids().empty())
    fields->Fail("request_id", "request_id or request_ids is missing", "missing");
}

}  // namespace

void RespondJson(const Writer& writer, std::string json, const std::vector<std::string>& ignored) {
  HttpResponse response;
  response.headers = IgnoredHeaders(ignored);
  response.body = std::move(json);
  writer->Respond(std::move(response));
}

std::shared_ptr<Exchange> RespondError(const Writer& writer, const ApiError& error) {
  writer->Respond(ErrorResponse(error));
  return nullptr;
}

void RespondCancelled(const Writer& writer, const v1::CancelResponse& response,
                      const std::vector<std::string>& ignored) {
  std::string json = "{\"cancelled\":";
  AppendStrings(response.cancelled(), &json);
  json += ",\"not_found\":";
  AppendStrings(response.not_found(), &json);
  json += '}';
  RespondJson(writer, std::move(json), ignored);
}

bool FinishReading(const Router& router, JsonFields& fields, std::vector<std::string>* ignored) {
  fields.AppendUnknown(ignored);
  if (fields.ok()) *fields.error() = router.CheckIgnored(*ignored);
  return fields.ok();
}

std::shared_ptr<Exchange> FetchModelInfo(Router& router, const HttpRequest& request, Writer writer,
                                         std::function<void(const v1::ModelInfo&)> next) {
  using Info = UnaryExchange<v1::GetModelInfoRequest, v1::ModelInfo>;
  return Info::Start(
      writer, router.daemons(), request.metadata, {},
      [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
         Info::Done done) {
        daemon.inference->async()->GetModelInfo(context, in, out, std::move(done));
      },
      [&router, writer, next = std::move(next), shape = ErrorShapeOf(request.path),
       id = request.request_id](const grpc::Status& status, const v1::ModelInfo& info) {
        if (!status.ok()) {
          writer->Respond(ErrorResponse(ErrorFromGrpc(status), shape, id));
          return;
        }
        router.set_model(info);
        next(info);
      });
}

std::shared_ptr<Exchange> ListModels(Router& router, const HttpRequest& request,
                                     std::string_view tail, Writer writer) {
  return FetchModelInfo(router, request, writer, [&router, writer](const v1::ModelInfo& info) {
    RespondJson(writer,
                absl::StrCat("{\"object\":\"list\",\"data\":[", ModelJson(router, info), "]}"));
  });
}

std::shared_ptr<Exchange> GetModel(Router& router, const HttpRequest& request,
                                   std::string_view tail, Writer writer) {
  return FetchModelInfo(
      router, request, writer,
      [&router, writer, asked = std::string(tail)](const v1::ModelInfo& info) {
        if (asked == info.name()) {
          RespondJson(writer, ModelJson(router, info));
          return;
        }
        RespondError(writer, {.status = 404,
                              .message = absl::StrCat("the model '", asked.substr(0, 256),
                                                      "' does not exist; this server has '",
                                                      info.name(), "'"),
                              .param = "model",
                              .code = "model_not_found"});
      });
}

std::shared_ptr<Exchange> GetHealth(Router& router, const HttpRequest& request,
                                    std::string_view tail, Writer writer) {
  if (router.daemons().is_fleet()) return GetFleetHealth(router, writer);
  using Check = UnaryExchange<health::HealthCheckRequest, health::HealthCheckResponse>;
  return Check::Start(
      writer, router.daemons(), request.metadata, {},
      [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
         Check::Done done) { daemon.health->async()->Check(context, in, out, std::move(done)); },
      [&router, writer, request](const grpc::Status& status,
                                 const health::HealthCheckResponse& response) {
        if (status.ok() && response.status() == health::HealthCheckResponse::SERVING) {
          RespondJson(writer, "{\"status\":\"ok\"}");
        } else if (status.ok()) {
          writer->HandOver(HealthFromModelInfo(
              router, request, writer, "not serving: the daemon is loading, draining or stalled"));
        } else if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
          writer->HandOver(HealthFromModelInfo(router, request, writer, ""));
        } else {
          AnswerUnhealthy(writer,
                          absl::StrCat("the daemon cannot be reached: ", status.error_message()));
        }
      });
}

std::shared_ptr<Exchange> GetVersion(Router& router, const HttpRequest& request,
                                     std::string_view tail, Writer writer) {
  RespondJson(writer, "{\"version\":\"" FASTGEN_VERSION "\"}");
  return nullptr;
}

std::shared_ptr<Exchange> GetOpenApi(Router& router, const HttpRequest& request,
                                     std::string_view tail, Writer writer) {
  RespondJson(writer, std::string(OpenApiJson()));
  return nullptr;
}

std::shared_ptr<Exchange> GetMetrics(Router& router, const HttpRequest& request,
                                     std::string_view tail, Writer writer) {
  if (router.daemons().is_fleet()) return GetFleetMetrics(router, writer);
  using Metrics = UnaryExchange<v1::GetMetricsRequest, v1::Metrics>;
  return Metrics::Start(
      writer, router.daemons(), request.metadata, {},
      [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
         Metrics::Done done) {
        daemon.admin->async()->GetMetrics(context, in, out, std::move(done));
      },
      [writer](const grpc::Status& status, const v1::Metrics& metrics) {
        if (!status.ok()) {
          RespondError(writer, ErrorFromGrpc(status));
        } else {
          HttpResponse response;
          response.content_type = "text/plain; version=0.0.4; charset=utf-8";
          response.body = metrics.prometheus_text();
          writer->Respond(std::move(response));
        }
      });
}

std::shared_ptr<Exchange> PostCancel(Router& router, const HttpRequest& request,
                                     std::string_view tail, Writer writer) {
  using Cancel = UnaryExchange<v1::CancelRequest, v1::CancelResponse>;
  std::optional<ApiError> error;
  const auto object = ParseJsonObject(request.body, &error);
  if (!object.has_value()) return RespondError(writer, *error);
  JsonFields fields(*object, "", &error);
  v1::CancelRequest call;
  ReadCancel(&fields, &call);
  std::vector<std::string> ignored;
  if (!FinishReading(router, fields, &ignored)) return RespondError(writer, *error);
  if (router.daemons().is_fleet()) {
    return CancelEverywhere(router, request, writer, std::move(call), std::move(ignored));
  }
  return Cancel::Start(
      writer, router.daemons(), request.metadata, std::move(call),
      [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
         Cancel::Done done) {
        daemon.inference->async()->Cancel(context, in, out, std::move(done));
      },
      [writer, ignored = std::move(ignored)](const grpc::Status& status,
                                             const v1::CancelResponse& response) {
        if (!status.ok()) {
          RespondError(writer, ErrorFromGrpc(status));
          return;
        }
        RespondCancelled(writer, response, ignored);
      });
}

}  // namespace fastgen::gateway
