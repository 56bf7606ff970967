#include "server/inference_service.h"

#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "server/generate_reactor.h"
#include "server/proto_convert.h"
#include "server/trace_parent.h"

namespace fastgen {
namespace {

constexpr char kIgnoredHeader[] = "x-fastgen-ignored";
constexpr int kMaxCancelIds = 4096;
// Longer than any context, and still answered in a moment.
constexpr int kMaxDetokenizeIds = 256 << 10;

constexpr ScopeSet kTextScopes = {Scope::kTokenize, Scope::kInfer};
constexpr ScopeSet kAnyScope = {};

// What the engine says of a request, with the id that its client gave it.
std::string InClientsWords(absl::string_view text, const std::string& engine_id) {
  const std::string client_id(AccessControl::SplitEngineId(engine_id).request_id);
  return absl::StrReplaceAll(text, {{engine_id, client_id}});
}

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

// When the client gives up.
absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  return deadline == std::chrono::system_clock::time_point::max() ? absl::InfiniteFuture()
                                                                  : absl::FromChrono(deadline);
}

std::string DrawIdPrefix() {
  std::random_device device;
  const uint64_t bits = static_cast<uint64_t>(device()) << 32 | device();
  return absl::StrCat("gen-", absl::Hex(bits, absl::kZeroPad16), "-");
}

}  // namespace

InferenceService::InferenceService(EngineGate* gate, const AccessControl* access,
                                   const ServiceOptions& options, Metrics* metrics)
    : gate_(gate),
      access_(access),
      options_(options),
      metrics_(metrics),
      id_prefix_(DrawIdPrefix()) {}

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

absl::StatusOr<ConvertedRequest> InferenceService::Convert(grpc::CallbackServerContext* context,
                                                           const Caller& caller,
                                                           const Engine& engine,
                                                           const v1::GenerateRequest& request) {
  ASSIGN_OR_RETURN(ConvertedRequest converted, FromProto(request, engine.model_info().sampling_defaults));
  const std::string& served = engine.model_info().name;
  if (options_.strict_model && !request.model().empty() && request.model() != served) {
    return absl::NotFoundError(absl::StrCat("model: \"", request.model().substr(0, 200),
                                            "\" is not served here; this server has \"", served,
                                            "\""));
  }
  converted.request.deadline = DeadlineOf(*context);
  converted.trace_parent = TraceParentOf(*context);
  if (converted.request.request_id.empty()) converted.request.request_id = DrawRequestId();
  ASSIGN_OR_RETURN(converted.request.request_id,
                   AccessControl::EngineId(caller, converted.request.request_id));
  return converted;
}

absl::Status InferenceService::Submit(Engine* engine, ConvertedRequest converted,
                                      const std::shared_ptr<EventStream>& stream) {
  if (stream->has_window()) {
    RETURN_IF_ERROR(live_streams_.Add(stream));
  } else {
    live_streams_.RemoveEnded(stream->request_id());
  }
  const absl::Status status = engine->Submit(std::move(converted.request), stream);
  if (status.ok()) return status;
  if (stream->has_window()) live_streams_.Remove(stream.get());
  // An engine that failed without a live stream is noticed here.
  const absl::Status health = engine->health();
  if (!health.ok()) gate_->ReportEngineFailure(health);
  if (absl::IsAlreadyExists(status)) {
    return absl::AlreadyExistsError(InClientsWords(status.message(), stream->request_id()));
  }
  return absl::IsResourceExhausted(status) ? WithRetryAfter(status, engine->RetryAfter()) : status;
}

absl::StatusOr<grpc::ServerWriteReactor<v1::GenerateEvent>*> InferenceService::StartGenerate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest& request) {
  ASSIGN_OR_RETURN(const Caller caller, access_->Check(*context, {Scope::kInfer}));
  ASSIGN_OR_RETURN(Engine * engine, gate_->ForNewWork());
  RETURN_IF_ERROR(CheckUnknownFields(context, request));
  ASSIGN_OR_RETURN(ConvertedRequest converted, Convert(context, caller, *engine, request));
  if (context->deadline() <= std::chrono::system_clock::now()) {
    return absl::DeadlineExceededError("the deadline had passed before the request was read");
  }
  const AccessControl::Owned owned = AccessControl::SplitEngineId(converted.request.request_id);
  ASSIGN_OR_RETURN(std::unique_ptr<Permit> permit,
                   access_->Admit(caller, std::string(owned.request_id)));
  auto stream = std::make_shared<EventStream>(gate_, engine, &live_streams_, converted,
                                                options_.stream, metrics_);
  stream->SetPermit(std::move(permit));
  const auto reactor = GenerateReactor::Make(context, gate_, stream);
  stream->SetReader(reactor);
  if (converted.request.constraint.kind != Constraint::Kind::kNone) {
    CompileAndSubmit(engine, std::move(converted), stream, reactor);
    return reactor.get();
  }
  // From here on the completion thread may call; gRPC keeps what is started before it knows the reactor.
  const absl::Status status = Submit(engine, std::move(converted), stream);
  if (status.ok()) return reactor.get();
  stream->Refuse(reactor.get(), status);
  reactor->Abandon();
  return status;
}

void InferenceService::CompileAndSubmit(Engine* engine, ConvertedRequest converted,
                                        const std::shared_ptr<EventStream>& stream,
                                        const std::shared_ptr<GenerateReactor>& reactor) {
  auto waiting = std::make_shared<ConvertedRequest>(std::move(converted));
  engine->CompileConstraint(
      waiting->request,
      [this, engine, waiting, stream,
       reactor](absl::StatusOr<std::shared_ptr<const Grammar>> grammar) {
        absl::Status status = grammar.status();
        if (absl::IsResourceExhausted(status)) status = WithRetryAfter(status, absl::Seconds(1));
        if (status.ok()) {
          waiting->request.grammar = *std::move(grammar);
          status = Submit(engine, std::move(*waiting), stream);
        }
        if (status.ok()) {
          // Who went away before there was anything to cancel.
          if (stream->is_abandoned()) engine->Cancel(stream->request_id(), stream.get());
          return;
        }
        stream->Refuse(reactor.get(), status);
        reactor->End({ToGrpcStatus(status), ""});
      });
}

grpc::ServerWriteReactor<v1::GenerateEvent>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const auto reactor = StartGenerate(context, *request);
  if (!reactor.ok()) {
    metrics_->ObserveRefusal(reactor.status().code());
    return new RefusedStream(reactor.status());
  }
  return *reactor;
}

absl::StatusOr<grpc::ServerWriteReactor<v1::GenerateEvent>*> InferenceService::StartAttach(
    grpc::CallbackServerContext* context, const v1::AttachRequest& request) {
  ASSIGN_OR_RETURN(const Caller caller, access_->Check(*context, {Scope::kInfer}));
  // Also while draining: what is live is finished for its readers.
  RETURN_IF_ERROR(gate_->Loaded().status());
  RETURN_IF_ERROR(CheckUnknownFields(context, request));
  if (request.from_token() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("from_token: ", request.from_token(), " is negative"));
  }
  const auto stream = live_streams_.Find(AccessControl::OwnId(caller, request.request_id()));
  if (stream == nullptr) {
    return absl::NotFoundError(absl::StrCat(
        "request_id: \"", request.request_id().substr(0, 256),
        "\" is not that of a request whose resume window is open"));
  }
  const auto reactor = GenerateReactor::Make(context, gate_, stream);
  const absl::Status status = stream->Attach(reactor, request.from_token());
  if (!status.ok()) {
    reactor->Abandon();
    return status;
  }
  reactor->Pump();
  return reactor.get();
}

grpc::ServerWriteReactor<v1::GenerateEvent>* InferenceService::Attach(
    grpc::CallbackServerContext* context, const v1::AttachRequest* request) {
  const auto reactor = StartAttach(context, *request);
  if (!reactor.ok()) return new RefusedStream(reactor.status());
  return *reactor;
}

grpc::ServerUnaryReactor* InferenceService::Cancel(grpc::CallbackServerContext* context,
                                                   const v1::CancelRequest* request,
                                                   v1::CancelResponse* response) {
  const auto caller = access_->Check(*context, {Scope::kInfer, Scope::kAdmin});
  if (!caller.ok()) return FinishUnary(context, caller.status());
  const auto engine = gate_->Loaded();
  if (!engine.ok()) return FinishUnary(context, engine.status());
  const absl::Status known = CheckUnknownFields(context, *request);
  if (!known.ok()) return FinishUnary(context, known);
  if (request->request_ids_size() > kMaxCancelIds) {
    return FinishUnary(context, absl::InvalidArgumentError(absl::StrCat(
                                    "request_ids: ", request->request_ids_size(), " ids; at most ", kMaxCancelIds)));
  }
  for (const std::string& id : request->request_ids()) {
    bool cancelled = false;
    for (const std::string& engine_id : access_->EngineIds(*caller, id)) {
      if ((*engine)->Cancel(engine_id)) {
        cancelled = true;
      } else {
        // What it left behind for a reader that comes back goes as well.
        live_streams_.RemoveEnded(engine_id);
      }
    }
    cancelled ? response->add_cancelled(id) : response->add_not_found(id);
  }
  return FinishUnary(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::Plan(grpc::CallbackServerContext* context,
                                                 const v1::PlanRequest* request,
                                                 v1::PlanResponse* response) {
  const auto caller = access_->Check(*context, kTextScopes);
  if (!caller.ok()) return FinishUnary(context, caller.status());
  const auto engine = gate_->ForNewWork();
  if (!engine.ok()) return FinishUnary(context, engine.status());
  const absl::Status known = CheckUnknownFields(context, *request);
  if (!known.ok()) return FinishUnary(context, known);
  auto converted = Convert(context, *caller, **engine, request->request());
  if (!converted.ok()) return FinishUnary(context, converted.status());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const std::string engine_id = converted->request.request_id;
  (*engine)->Plan(std::move(converted->request),
                  [reactor, response, engine_id](absl::StatusOr<PlanInfo> plan) {
                    if (plan.ok()) {
                      plan->reason = InClientsWords(plan->reason, engine_id);
                      ToProto(*plan, response);
                    }
                    reactor->Finish(ToGrpcStatus(plan.status()));
                  });
  return reactor;
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
  if (auto* refused = access_->Refuse(context, kTextScopes)) return refused;
  absl::Status status = CheckUnknownFields(context, *request);
  if (status.ok()) status = DoTokenize(*request, response);
  return FinishUnary(context, status);
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  if (auto* refused = access_->Refuse(context, kTextScopes)) return refused;
  const auto engine = gate_->ForNewWork();
  if (!engine.ok()) return FinishUnary(context, engine.status());
  const absl::Status known = CheckUnknownFields(context, *request);
  if (!known.ok()) return FinishUnary(context, known);
  if (request->ids_size() > kMaxDetokenizeIds) {
    return FinishUnary(context, absl::InvalidArgumentError(absl::StrCat(
                                    "ids: ", request->ids_size(), " ids exceed the limit of ", kMaxDetokenizeIds)));
  }
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
  if (auto* refused = access_->Refuse(context, kTextScopes)) return refused;
  absl::Status status = CheckUnknownFields(context, *request);
  if (status.ok()) status = DoRenderChat(*request, response);
  return FinishUnary(context, status);
}

grpc::ServerUnaryReactor* InferenceService::GetModelInfo(grpc::CallbackServerContext* context,
                                                         const v1::GetModelInfoRequest* request,
                                                         v1::ModelInfo* response) {
  // How far loading is may be known to all: it is what /health says.
  const auto engine = gate_->Loaded();
  if (!engine.ok()) return FinishUnary(context, engine.status());
  if (auto* refused = access_->Refuse(context, kAnyScope)) return refused;
  const absl::Status known = CheckUnknownFields(context, *request);
  if (!known.ok()) return FinishUnary(context, known);
  ToProto((*engine)->model_info(), (*engine)->memory_report(), response);
  return FinishUnary(context, absl::OkStatus());
}

}  // namespace fastgen
