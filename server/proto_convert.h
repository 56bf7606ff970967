// The border between fastgen.v1 and the engine's plain types.
//
// Requests: every field is either honoured, or refused by name with a google.rpc.BadRequest violation, all violations
// of one request together. Counts and bytes are held to the engine's limits here, before anything is copied; ranges of
// values, and what needs the model (context length, vocabulary), are the engine's to check: its INVALID_ARGUMENT
// messages open with "field: " and become violations as well (server/grpc_status).
// Thread rule: pure functions, any thread.
// Tested by tests/server/proto_convert_test.cc; fuzzed by tests/fuzz/proto_fuzzer.cc.
#pragma once

#include <string>
#include <vector>

#include <google/protobuf/message.h>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "engine/token_sink.h"
#include "fastgen/v1/admin.pb.h"
#include "fastgen/v1/inference.pb.h"
#include "server/grpc_status.h"

namespace fastgen {

// Which members of its deltas a client asked for.
struct DeltaFields {
  bool text = true;  // and what is told from it: reasoning, tool calls
  bool token_ids = false;
  bool logprobs = false;
  bool prompt_logprobs = false;
  bool raw_bytes = false;
};

struct ConvertedRequest {
  GenerateRequest request;
  DeltaFields fields;
  absl::Duration resume_window;
  std::string trace_parent;  // from the call's metadata; "": none
};

// INVALID_ARGUMENT with all violations. `defaults` stand where the sampling says nothing. `request_id` is copied as it is: empty when the client gave none.
absl::StatusOr<ConvertedRequest> FromProto(const v1::GenerateRequest& proto,
                                           const SamplingDefaults& defaults = {});

// INVALID_ARGUMENT with all violations; `path` opens the fields' names ("chat").
absl::StatusOr<ChatPrompt> FromProto(const v1::Chat& proto, const std::string& path);

// Paths of the fields that this build's protos do not know, by number ("sampling.99"), at most kMaxIgnoredFields of
// them, without repetition.
inline constexpr size_t kMaxIgnoredFields = 32;
std::vector<std::string> UnknownFields(const google::protobuf::Message& message);

// INVALID_ARGUMENT with a violation for each path.
absl::Status RefuseFields(const std::vector<std::string>& paths, const std::string& why);

void ToProto(const AcceptedInfo& info, const DeltaFields& fields, v1::Accepted* proto);
// Tokens that the model made; an echoed prompt's are not among them.
int32_t NumOutputTokens(const TokenDelta& delta);
// Appends, so that deltas of one choice which wait together become one message. Delta.raw is the caller's: the bytes are
// the tokenizer's to tell.
void AppendToProto(TokenDelta delta, const DeltaFields& fields, v1::Delta* proto);
void ToProto(const FinishInfo& info, const ModelInfo& model, v1::Finished* proto);
void ToProto(const ModelInfo& info, const MemoryReport& memory, v1::ModelInfo* proto);

void ToProto(const PlanInfo& info, v1::PlanResponse* proto);
void ToProto(const RequestInfo& info, v1::RequestInfo* proto);
// All but the Prometheus text.
void ToProto(const EngineStats& stats, v1::Stats* proto);

// What a choice that ended so asks the call's status to be: OK, CANCELLED, DEADLINE_EXCEEDED or INTERNAL.
absl::Status StatusOfFinish(const FinishInfo& info);

}  // namespace fastgen
