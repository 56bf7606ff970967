// InferenceService: fastgen.v1.Inference over gRPC's callback API. Each method is one short function: ask the gate for
// the engine, convert, call, convert back. What the engine answers later (Plan) finishes its call from the engine's
// thread.
//
// Order of refusals: no key or one without the scope (UNAUTHENTICATED, PERMISSION_DENIED), model not ready (UNAVAILABLE),
// unknown fields under strict_fields and fields that are not served
// (INVALID_ARGUMENT), another model under strict_model (NOT_FOUND), a deadline that has passed (DEADLINE_EXCEEDED),
// what the key
// may have running (RESOURCE_EXHAUSTED), then whatever the engine refuses. Unknown fields that are let through are named in the initial metadata
// x-fastgen-ignored.
// Thread rule: gRPC's callback threads, concurrently.
// Tested by tests/server/inference_service_test.cc and tests/server/generate_test.cc.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "fastgen/v1/inference.grpc.pb.h"
#include "server/access_control.h"
#include "server/engine_gate.h"
#include "server/event_stream.h"
#include "server/generate_reactor.h"
#include "server/live_streams.h"
#include "server/metrics.h"
#include "server/proto_convert.h"

namespace fastgen {

struct ServiceOptions {
  bool strict_model = false;
  bool strict_fields = false;
  StreamLimits stream;
};

class InferenceService final : public v1::Inference::CallbackService {
 public:
  // The pointers outlive the service.
  InferenceService(EngineGate* gate, const AccessControl* access, const ServiceOptions& options,
                   Metrics* metrics);

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::GenerateEvent>* Attach(grpc::CallbackServerContext* context,
                                                      const v1::AttachRequest* request) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context,
                                   const v1::CancelRequest* request,
                                   v1::CancelResponse* response) override;
  grpc::ServerUnaryReactor* Plan(grpc::CallbackServerContext* context,
                                 const v1::PlanRequest* request,
                                 v1::PlanResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* RenderChat(grpc::CallbackServerContext* context,
                                       const v1::RenderChatRequest* request,
                                       v1::RenderChatResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::ModelInfo* response) override;

  // Windows of requests without a reader close, and those without one end.
  void StartDrain() { live_streams_.StartDrain(); }

 private:
  // Refuses or announces the fields of `request` that nobody knows.
  absl::Status CheckUnknownFields(grpc::CallbackServerContext* context,
                                  const google::protobuf::Message& request) const;
  // Everything that Generate and Plan refuse before the engine is asked.
  absl::StatusOr<ConvertedRequest> Convert(grpc::CallbackServerContext* context,
                                           const Caller& caller, const Engine& engine,
                                           const v1::GenerateRequest& request);
  absl::StatusOr<grpc::ServerWriteReactor<v1::GenerateEvent>*> StartGenerate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest& request);
  absl::StatusOr<grpc::ServerWriteReactor<v1::GenerateEvent>*> StartAttach(
      grpc::CallbackServerContext* context, const v1::AttachRequest& request);
  absl::Status Submit(Engine* engine, ConvertedRequest converted,
                      const std::shared_ptr<EventStream>& stream);
  // The same, once the request's constraint is compiled: the call ends with what is refused then.
  void CompileAndSubmit(Engine* engine, ConvertedRequest converted,
                        const std::shared_ptr<EventStream>& stream,
                        const std::shared_ptr<GenerateReactor>& reactor);
  absl::Status DoTokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse* response) const;
  absl::Status DoRenderChat(const v1::RenderChatRequest& request,
                            v1::RenderChatResponse* response) const;
  std::string DrawRequestId();

  EngineGate* const gate_;
  const AccessControl* const access_;
  const ServiceOptions options_;
  Metrics* const metrics_;
  const std::string id_prefix_;  // differs between runs of the daemon, so that logs of two runs can be told apart
  std::atomic<uint64_t> num_ids_drawn_ = 0;
  LiveStreams live_streams_;
};

}  // namespace fastgen
