#include "server/inference_service.h"

#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "server/generate_reactor.h"
#include "server/proto_convert.h"

namespace fastgen {
namespace {

constexpr char kIgnoredHeader[] = "x-fastgen-ignored";
constexpr int kMaxCancelIds = 4096;

// A stream that ends before its first event.
class RefusedStream final : public grpc::ServerWriteReactor<v1::GenerateEvent> {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

grpc::ServerUnaryReactor* FinishUnary(grpc::CallbackServerContext* context,
                                      const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

std::string DrawIdPrefix() {
  std::random_device device;
  const uint64_t bits = static_cast<uint64_t>(device()) << 32 | device();
  return absl::StrCat("gen-", absl::Hex(bits, absl::kZeroPad16), "-");
}

}  // namespace

InferenceService::InferenceService(EngineGate* gate, const ServiceOptions& options)
    : gate_(gate), options_(options), id_prefix_(DrawIdPrefix()) {}

std::string InferenceService::DrawRequestId() {
  return absl::StrCat(id_prefix_, num_ids_drawn_.fetch_add(1, std::memory_order_relaxed) + 1);
}

absl::Status InferenceService::CheckUnknownFields(grpc::CallbackServerContext* context,
                                                  const google::protobuf::Message& request) const {
  const std::vector<std::string> unknown = UnknownFields(request);
  if (unknown.empty()) return absl::OkStatus();
  if (options_.strict_fields) {
    return RefuseFields(unknown, "is not a field that this version knows (--strict)");
  }
  context->AddInitialMetadata(kIgnoredHeader, absl::StrJoin(unknown, ","));
  return absl::OkStatus();
}

absl::StatusOr<grpc::ServerWriteReactor<v1::GenerateEvent>*> InferenceService::StartGenerate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest& request) {
  ASSIGN_OR_RETURN(Engine * engine, gate_->ForNewWork());
  RETURN_IF_ERROR(CheckUnknownFields(context, request));
  ASSIGN_OR_RETURN(ConvertedRequest converted, FromProto(request));
  const std::string& served = engine->model_info().name;
  if (options_.strict_model && !request.model().empty() && request.model() != served) {
    return absl::NotFoundError(absl::StrCat("model: \"", request.model().substr(0, 200),
                                            "\" is not served here; this server has \"", served,
                                            "\""));
  }
  if (context->deadline() <= std::chrono::system_clock::now()) {
    return absl::DeadlineExceededError("the deadline had passed before the request was read");
  }
  if (converted.request.request_id.empty()) converted.request.request_id = DrawRequestId();
  ASSIGN_OR_RETURN(GenerateReactor * reactor,
                   GenerateReactor::Start(context, gate_, engine, std::move(converted),
                                          options_.max_outbox_tokens));
  return reactor;
}

grpc::ServerWriteReactor<v1::GenerateEvent>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const auto reactor = StartGenerate(context, *request);
  if (!reactor.ok()) return new RefusedStream(reactor.status());
  return *reactor;
}

grpc::ServerWriteReactor<v1::GenerateEvent>* InferenceService::Attach(
    grpc::CallbackServerContext* context, const v1::AttachRequest* request) {
  return new RefusedStream(absl::UnimplementedError(
      "Attach is not served by this version: a stream that broke cannot be taken up again"));
}

grpc::ServerUnaryReactor* InferenceService::Cancel(grpc::CallbackServerContext* context,
                                                   const v1::CancelRequest* request,
                                                   v1::CancelResponse* response) {
  const auto engine = gate_->Loaded();
  if (!engine.ok()) return FinishUnary(context, engine.status());
  const absl::Status known = CheckUnknownFields(context, *request);
  if (!known.ok()) return FinishUnary(context, known);
  if (request->request_ids_size() > kMaxCancelIds) {
    return FinishUnary(context, absl::InvalidArgumentError(absl::StrCat(
                                    "request_ids: ", request->request_ids_size(), " ids; at most ", kMaxCancelIds)));
  }
  for (const std::string& id : request->request_ids()) {
    if ((*engine)->Cancel(id)) {
      response->add_cancelled(id);
    } else {
      response->add_not_found(id);
    }
  }
  return FinishUnary(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::Plan(grpc::CallbackServerContext* context,
                                                 const v1::PlanRequest* request,
                                                 v1::PlanResponse* response) {
  return FinishUnary(context, absl::UnimplementedError(
                                  "Plan is not served by this version: send the request itself"));
}

absl::Status InferenceService::DoTokenize(const v1::TokenizeRequest& request,
                                          v1::TokenizeResponse* response) const {
  ASSIGN_OR_RETURN(Engine * engine, gate_->ForNewWork());
  EncodeOptions options;
  if (request.has_add_special_tokens()) options.add_special_tokens = request.add_special_tokens();
  if (request.has_parse_special()) options.parse_special = request.parse_special();
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, engine->Tokenize(request.text(), options));
  response->mutable_ids()->Assign(ids.begin(), ids.end());
  response->set_max_model_len(engine->model_info().context_length);
  if (!request.with_bytes()) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::vector<std::string> token_bytes, engine->TokenBytes(ids));
  for (std::string& bytes : token_bytes) response->add_token_bytes(std::move(bytes));
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  absl::Status status = CheckUnknownFields(context, *request);
  if (status.ok()) status = DoTokenize(*request, response);
  return FinishUnary(context, status);
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  const auto engine = gate_->ForNewWork();
  if (!engine.ok()) return FinishUnary(context, engine.status());
  const absl::Status known = CheckUnknownFields(context, *request);
  if (!known.ok()) return FinishUnary(context, known);
  auto text = (*engine)->Detokenize({request->ids().data(), static_cast<size_t>(request->ids_size())},
                                    request->skip_special_tokens());
  if (text.ok()) response->set_text(*std::move(text));
  return FinishUnary(context, text.status());
}

absl::Status InferenceService::DoRenderChat(const v1::RenderChatRequest& request,
                                            v1::RenderChatResponse* response) const {
  ASSIGN_OR_RETURN(Engine * engine, gate_->ForNewWork());
  ASSIGN_OR_RETURN(const ChatPrompt chat, FromProto(request.chat(), "chat"));
  ASSIGN_OR_RETURN(Engine::Rendered rendered, engine->RenderChat(chat));
  response->set_text(std::move(rendered.text));
  response->mutable_ids()->Assign(rendered.ids.begin(), rendered.ids.end());
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* InferenceService::RenderChat(grpc::CallbackServerContext* context,
                                                       const v1::RenderChatRequest* request,
                                                       v1::RenderChatResponse* response) {
  absl::Status status = CheckUnknownFields(context, *request);
  if (status.ok()) status = DoRenderChat(*request, response);
  return FinishUnary(context, status);
}

grpc::ServerUnaryReactor* InferenceService::GetModelInfo(grpc::CallbackServerContext* context,
                                                         const v1::GetModelInfoRequest* request,
                                                         v1::ModelInfo* response) {
  const auto engine = gate_->Loaded();
  if (!engine.ok()) return FinishUnary(context, engine.status());
  const absl::Status known = CheckUnknownFields(context, *request);
  if (!known.ok()) return FinishUnary(context, known);
  ToProto((*engine)->model_info(), (*engine)->memory_report(), response);
  return FinishUnary(context, absl::OkStatus());
}

}  // namespace fastgen
