// InferenceService: fastgen.v1.Inference over gRPC's callback API. Each method is one short function: ask the gate for
// the engine, convert, call, convert back.
//
// Order of refusals: model not ready (UNAVAILABLE), unknown fields under strict_fields and fields that are not served
// (INVALID_ARGUMENT), another model under strict_model (NOT_FOUND), a deadline that has passed (DEADLINE_EXCEEDED),
// then whatever the engine refuses. Unknown fields that are let through are named in the initial metadata
// x-fastgen-ignored.
// Thread rule: gRPC's callback threads, concurrently.
// Tested by tests/server/inference_service_test.cc and tests/server/generate_test.cc.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "fastgen/v1/inference.grpc.pb.h"
#include "server/engine_gate.h"

namespace fastgen {

struct ServiceOptions {
  bool strict_model = false;
  bool strict_fields = false;
  int32_t max_outbox_tokens = 4096;
};

class InferenceService final : public v1::Inference::CallbackService {
 public:
  InferenceService(EngineGate* gate, const ServiceOptions& options);

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

 private:
  // Refuses or announces the fields of `request` that nobody knows.
  absl::Status CheckUnknownFields(grpc::CallbackServerContext* context,
                                  const google::protobuf::Message& request) const;
  absl::StatusOr<grpc::ServerWriteReactor<v1::GenerateEvent>*> StartGenerate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest& request);
  absl::Status DoTokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse* response) const;
  absl::Status DoRenderChat(const v1::RenderChatRequest& request,
                            v1::RenderChatResponse* response) const;
  std::string DrawRequestId();

  EngineGate* const gate_;
  const ServiceOptions options_;
  const std::string id_prefix_;  // differs between runs of the daemon, so that logs of two runs can be told apart
  std::atomic<uint64_t> num_ids_drawn_ = 0;
};

}  // namespace fastgen
