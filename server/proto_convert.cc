#include "server/proto_convert.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/build_info.h"

namespace fastgen {
namespace {

constexpr char kBadRequestType[] = "type.googleapis.com/google.rpc.BadRequest";
// A client that was turned away may come back after that long.
constexpr int64_t kRetrySeconds = 1;

constexpr int kMaxMessages = 4096;

// What is wrong with one request, field by field.
class Violations {
 public:
  // The status travels in trailers, which clients bound at 8 KiB by default: what follows the first few says no more.
  static constexpr int kMaxViolations = 16;

  void Add(const std::string& field, const std::string& description) {
    if (bad_request_.field_violations_size() >= kMaxViolations) return;
    auto* violation = bad_request_.add_field_violations();
    violation->set_field(field);
    violation->set_description(description);
  }

  void NotServed(const std::string& field) { Add(field, "is not served by this version"); }

  absl::Status ToStatus() const {
    if (bad_request_.field_violations().empty()) return absl::OkStatus();
    std::string message;
    for (const auto& violation : bad_request_.field_violations()) {
      absl::StrAppend(&message, message.empty() ? "" : "; ", violation.field(), ": ",
                      violation.description());
    }
    absl::Status status = absl::InvalidArgumentError(message);
    status.SetPayload(kBadRequestType, absl::Cord(bad_request_.SerializeAsString()));
    return status;
  }

 private:
  google::rpc::BadRequest bad_request_;
};

bool IsPlainIdentifier(const std::string& id) {
  for (const char c : id) {
    if (c < '!' || c > '~') return false;
  }
  return true;
}

void CheckRequestId(const std::string& id, Violations* violations) {
  // It goes into logs and headers.
  if (!IsPlainIdentifier(id)) {
    violations->Add("request_id", "may hold only printable ASCII without spaces");
  }
}

SamplingParams ConvertSampling(const v1::Sampling& proto, Violations* violations) {
  SamplingParams sampling;
  if (proto.has_temperature()) sampling.temperature = proto.temperature();
  if (proto.has_top_p()) sampling.top_p = proto.top_p();
  if (proto.has_top_k()) sampling.top_k = proto.top_k();
  if (proto.has_min_p()) sampling.min_p = proto.min_p();
  if (proto.has_seed()) sampling.seed = proto.seed();
  // A penalty at its neutral value asks for nothing. A NaN equals nothing and is refused.
  const auto refuse_unless = [&](const char* field, float value, float neutral) {
    if (value != neutral) {
      violations->Add(field, absl::StrCat("only the neutral value ", neutral,
                                          " is served by this version, not ", value));
    }
  };
  if (proto.has_presence_penalty()) {
    refuse_unless("sampling.presence_penalty", proto.presence_penalty(), 0);
  }
  if (proto.has_frequency_penalty()) {
    refuse_unless("sampling.frequency_penalty", proto.frequency_penalty(), 0);
  }
  if (proto.has_repetition_penalty()) {
    refuse_unless("sampling.repetition_penalty", proto.repetition_penalty(), 1);
  }
  if (!proto.logit_bias().empty()) violations->NotServed("sampling.logit_bias");
  if (!proto.allowed_token_ids().empty()) violations->NotServed("sampling.allowed_token_ids");
  if (!proto.bad_words().empty()) violations->NotServed("sampling.bad_words");
  return sampling;
}

StoppingParams ConvertStopping(const v1::Stopping& proto) {
  StoppingParams stopping;
  if (proto.has_max_tokens()) stopping.max_tokens = proto.max_tokens();
  if (proto.has_min_tokens()) stopping.min_tokens = proto.min_tokens();
  stopping.stop.assign(proto.stop().begin(), proto.stop().end());
  stopping.stop_token_ids.assign(proto.stop_token_ids().begin(), proto.stop_token_ids().end());
  if (proto.has_include_stop()) stopping.include_stop = proto.include_stop();
  if (proto.has_ignore_eos()) stopping.ignore_eos = proto.ignore_eos();
  if (proto.has_skip_special_tokens()) stopping.skip_special_tokens = proto.skip_special_tokens();
  return stopping;
}

void ConvertOutput(const v1::Output& proto, ConvertedRequest* converted, Violations* violations) {
  OutputParams& output = converted->request.output;
  DeltaFields& fields = converted->fields;
  if (proto.has_text()) fields.text = proto.text();
  fields.token_ids = output.token_ids = proto.token_ids();
  if (proto.has_logprobs()) {
    output.logprobs = proto.logprobs();
    fields.logprobs = true;
  }
  if (proto.has_prompt_logprobs()) output.prompt_logprobs = proto.prompt_logprobs();
  output.echo = proto.echo();
  // An echoed prompt is output as well: its tokens come with the logprobs that output tokens come with.
  fields.prompt_logprobs = proto.has_prompt_logprobs() || (proto.echo() && proto.has_logprobs());
  if (proto.progress()) violations->NotServed("output.progress");
  if (proto.bytes()) {
    fields.raw_bytes = true;
    // A token's own bytes leave the engine with its logprob.
    if (!output.logprobs.has_value()) output.logprobs = 0;
  }
}

const char* ConstraintKind(const v1::Constraint& constraint) {
  switch (constraint.kind_case()) {
    case v1::Constraint::kJsonSchema: return "json_schema";
    case v1::Constraint::kJsonObject: return "json_object";
    case v1::Constraint::kRegex: return "regex";
    case v1::Constraint::kChoice: return "choice";
    case v1::Constraint::kGrammar: return "grammar";
    case v1::Constraint::kStructuralTag: return "structural_tag";
    case v1::Constraint::KIND_NOT_SET: break;
  }
  return "an empty constraint";
}

// Known fields that this version does not honour, and that would change the answer.
void RefuseWhatIsNotServed(const v1::GenerateRequest& proto, Violations* violations) {
  const auto refuse_unless_one = [&](const char* field, int32_t value) {
    if (value != 1) {
      violations->Add(field, absl::StrCat("only 1 is served by this version, not ", value));
    }
  };
  if (proto.has_n()) refuse_unless_one("n", proto.n());
  if (proto.has_best_of()) refuse_unless_one("best_of", proto.best_of());
  if (proto.has_constraint()) {
    violations->Add("constraint", absl::StrCat(ConstraintKind(proto.constraint()),
                                               " is not served by this version"));
  }
  if (proto.priority() != 0) violations->NotServed("priority");
  if (!proto.cache_salt().empty()) violations->NotServed("cache_salt");
  const auto& window = proto.resume_window();
  if (window.seconds() != 0 || window.nanos() != 0) violations->NotServed("resume_window");
}

ChatPrompt ConvertChat(const v1::Chat& proto, const std::string& path, Violations* violations) {
  ChatPrompt chat;
  if (proto.messages().empty()) violations->Add(absl::StrCat(path, ".messages"), "is empty");
  if (proto.messages_size() > kMaxMessages) {
    violations->Add(absl::StrCat(path, ".messages"),
                    absl::StrCat("has ", proto.messages_size(), " messages; at most ", kMaxMessages));
    return chat;
  }
  for (int i = 0; i < proto.messages_size(); ++i) {
    const v1::ChatMessage& from = proto.messages(i);
    ChatMessage message;
    if (from.role().empty()) {
      violations->Add(absl::StrCat(path, ".messages[", i, "].role"), "is empty");
    }
    message.role = from.role();
    if (from.has_content()) message.content = from.content();
    message.name = from.name();
    message.tool_call_id = from.tool_call_id();
    if (from.has_reasoning_content()) message.reasoning_content = from.reasoning_content();
    for (const v1::ToolCall& call : from.tool_calls()) {
      message.tool_calls.push_back({call.id(), call.name(), call.arguments_json()});
    }
    chat.messages.push_back(std::move(message));
  }
  chat.tools_json.assign(proto.tools_json().begin(), proto.tools_json().end());
  chat.template_kwargs_json = proto.chat_template_kwargs_json();
  if (proto.has_continue_final_message()) {
    chat.continue_final_message = proto.continue_final_message();
  }
  // Continuing a message and opening a new one exclude each other; asking for both by name is an error.
  chat.add_generation_prompt =
      proto.has_add_generation_prompt() ? proto.add_generation_prompt() : !chat.continue_final_message;
  if (chat.continue_final_message && chat.add_generation_prompt) {
    violations->Add(absl::StrCat(path, ".continue_final_message"),
                    "cannot be combined with add_generation_prompt");
  }
  return chat;
}

void ConvertPrompt(const v1::GenerateRequest& proto, GenerateRequest* request,
                   Violations* violations) {
  switch (proto.prompt_case()) {
    case v1::GenerateRequest::kText:
      request->prompt = TextPrompt{proto.text()};
      return;
    case v1::GenerateRequest::kTokenIds:
      request->prompt =
          TokenPrompt{{proto.token_ids().ids().begin(), proto.token_ids().ids().end()}};
      break;
    case v1::GenerateRequest::kChat:
      request->prompt = ConvertChat(proto.chat(), "chat", violations);
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      violations->Add("prompt", "one of text, token_ids and chat is needed");
      return;
  }
  // Ids and chats are tokenised in one way only, so asking for another cannot be honoured.
  if (proto.has_add_special_tokens()) {
    violations->Add("add_special_tokens", "applies to text prompts only");
  }
  if (proto.has_parse_special()) violations->Add("parse_special", "applies to text prompts only");
}

void ConvertLogprob(const TokenLogprob& from, v1::TokenLogprob* to) {
  to->set_token(from.token);
  to->set_logprob(from.logprob);
  to->set_rank(from.rank);
  to->set_bytes(from.bytes);
  for (const TokenLogprob::Candidate& candidate : from.top) {
    auto* top = to->add_top();
    top->set_token(candidate.token);
    top->set_logprob(candidate.logprob);
    top->set_bytes(candidate.bytes);
  }
}

void ConvertDuration(absl::Duration from, google::protobuf::Duration* to) {
  absl::Duration rest;
  to->set_seconds(absl::IDivDuration(from, absl::Seconds(1), &rest));
  to->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

v1::FinishReason ConvertReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return v1::STOP;
    case FinishReason::kLength: return v1::LENGTH;
    case FinishReason::kCancelled: return v1::CANCELLED;
    case FinishReason::kDeadline: return v1::DEADLINE;
    case FinishReason::kError: return v1::ERROR;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void CollectUnknownFields(const google::protobuf::Message& message, const std::string& path,
                          std::vector<std::string>* paths) {
  const auto add = [&](const std::string& found) {
    for (const std::string& known : *paths) {
      if (known == found) return;
    }
    if (paths->size() < kMaxIgnoredFields) paths->push_back(found);
  };
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const auto& unknown = reflection.GetUnknownFields(message);
  // A hostile message holds millions of them: strings are made once for each number only.
  std::vector<int> numbers;
  for (int i = 0; i < unknown.field_count() && numbers.size() < kMaxIgnoredFields; ++i) {
    const int number = unknown.field(i).number();
    if (std::find(numbers.begin(), numbers.end(), number) != numbers.end()) continue;
    numbers.push_back(number);
    add(absl::StrCat(path, number));
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const auto* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (field->is_map()) continue;  // an entry's own unknown fields carry nothing
    const std::string inner = absl::StrCat(path, field->name(), ".");
    if (!field->is_repeated()) {
      CollectUnknownFields(reflection.GetMessage(message, field), inner, paths);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      CollectUnknownFields(reflection.GetRepeatedMessage(message, field, i), inner, paths);
    }
  }
}

// "sampling.top_p: must be ..." -> "sampling.top_p"; "" when the message does not open with a field's name.
std::string LeadingField(const std::string& message) {
  const size_t colon = message.find(": ");
  if (colon == std::string::npos) return "";
  for (size_t i = 0; i < colon; ++i) {
    const char c = message[i];
    const bool name = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
                      c == '[' || c == ']';
    if (!name) return "";
  }
  return message.substr(0, colon);
}

void AddBadRequest(const absl::Status& status, google::rpc::Status* rich) {
  google::rpc::BadRequest bad_request;
  if (const auto payload = status.GetPayload(kBadRequestType)) {
    bad_request.ParseFromString(std::string(*payload));
  } else {
    const std::string message(status.message());
    const std::string field = LeadingField(message);
    if (field.empty()) return;
    auto* violation = bad_request.add_field_violations();
    violation->set_field(field);
    violation->set_description(message.substr(field.size() + 2));
  }
  rich->add_details()->PackFrom(bad_request);
}

}  // namespace

absl::StatusOr<ConvertedRequest> FromProto(const v1::GenerateRequest& proto) {
  Violations violations;
  ConvertedRequest converted;
  GenerateRequest& request = converted.request;
  CheckRequestId(proto.request_id(), &violations);
  request.request_id = proto.request_id();
  ConvertPrompt(proto, &request, &violations);
  request.sampling = ConvertSampling(proto.sampling(), &violations);
  request.stopping = ConvertStopping(proto.stopping());
  ConvertOutput(proto.output(), &converted, &violations);
  if (proto.has_add_special_tokens()) request.add_special_tokens = proto.add_special_tokens();
  if (proto.has_parse_special()) request.parse_special = proto.parse_special();
  RefuseWhatIsNotServed(proto, &violations);
  const absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  return converted;
}

absl::StatusOr<ChatPrompt> FromProto(const v1::Chat& proto, const std::string& path) {
  Violations violations;
  ChatPrompt chat = ConvertChat(proto, path, &violations);
  const absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  return chat;
}

std::vector<std::string> UnknownFields(const google::protobuf::Message& message) {
  std::vector<std::string> paths;
  CollectUnknownFields(message, "", &paths);
  return paths;
}

absl::Status RefuseFields(const std::vector<std::string>& paths, const std::string& why) {
  Violations violations;
  for (const std::string& path : paths) violations.Add(path, why);
  return violations.ToStatus();
}

void ToProto(const AcceptedInfo& info, const DeltaFields& fields, v1::Accepted* proto) {
  proto->set_request_id(info.request_id);
  proto->set_prompt_tokens(info.prompt_tokens);
  proto->set_cached_tokens(info.cached_tokens);
  if (fields.token_ids) {
    proto->mutable_prompt_token_ids()->Assign(info.prompt_token_ids.begin(),
                                              info.prompt_token_ids.end());
  }
}

void AppendToProto(TokenDelta delta, const DeltaFields& fields, v1::Delta* proto) {
  proto->set_num_tokens(proto->num_tokens() + NumOutputTokens(delta));
  if (fields.text) {
    if (proto->text().empty()) {
      proto->set_text(std::move(delta.text));
    } else {
      proto->mutable_text()->append(delta.text);
    }
  }
  if (fields.token_ids) {
    proto->mutable_token_ids()->Add(delta.token_ids.begin(), delta.token_ids.end());
  }
  const bool echoes = delta.num_prompt_tokens > 0;
  for (const TokenLogprob& logprob : delta.prompt_logprobs) {
    if (fields.raw_bytes && echoes) proto->mutable_raw()->append(logprob.bytes);
    if (fields.prompt_logprobs) ConvertLogprob(logprob, proto->add_prompt_logprobs());
  }
  for (const TokenLogprob& logprob : delta.logprobs) {
    if (fields.raw_bytes) proto->mutable_raw()->append(logprob.bytes);
    if (fields.logprobs) ConvertLogprob(logprob, proto->add_logprobs());
  }
}

int32_t NumOutputTokens(const TokenDelta& delta) {
  return static_cast<int32_t>(delta.token_ids.size()) - delta.num_prompt_tokens;
}

void ToProto(const FinishInfo& info, const ModelInfo& model, v1::Finished* proto) {
  proto->set_reason(ConvertReason(info.reason));
  if (!info.matched_stop.empty()) {
    proto->set_matched_stop(info.matched_stop);
  } else if (info.matched_token_id.has_value()) {
    proto->set_matched_token_id(*info.matched_token_id);
  }
  v1::Usage* usage = proto->mutable_usage();
  usage->set_prompt_tokens(info.usage.prompt_tokens);
  usage->set_cached_tokens(info.usage.cached_tokens);
  usage->set_output_tokens(info.usage.output_tokens);
  v1::Receipt* receipt = proto->mutable_receipt();
  ConvertDuration(info.receipt.queue_time, receipt->mutable_queue_time());
  ConvertDuration(info.receipt.prefill_time, receipt->mutable_prefill_time());
  ConvertDuration(info.receipt.decode_time, receipt->mutable_decode_time());
  receipt->set_num_chunks(info.receipt.num_chunks);
  receipt->set_num_steps(info.receipt.num_steps);
  receipt->set_num_preemptions(info.receipt.num_preemptions);
  receipt->set_seed(info.receipt.seed);
  receipt->set_weights_hash(model.weights_hash);
  receipt->set_build(std::string(BuildInfo()));
}

void ToProto(const ModelInfo& info, const MemoryReport& memory, v1::ModelInfo* proto) {
  proto->set_name(info.name);
  proto->set_architecture(info.architecture);
  proto->set_context_length(info.context_length);
  proto->set_vocab_size(info.vocab_size);
  proto->set_dtype(info.dtype);
  proto->set_backend(info.backend);
  proto->set_weights_hash(info.weights_hash);
  if (info.bos_id.has_value()) proto->set_bos_id(*info.bos_id);
  proto->mutable_eos_ids()->Assign(info.eos_ids.begin(), info.eos_ids.end());
  proto->set_has_chat_template(info.has_chat_template);
  proto->set_build(std::string(BuildInfo()));
  proto->set_weights_bytes(memory.weights_bytes);
  proto->set_kv_bytes(memory.kv_bytes);
  proto->set_workspace_bytes(memory.workspace_bytes);
  proto->set_num_blocks(memory.num_blocks);
  proto->set_block_size(memory.block_size);
}

grpc::Status StatusOfFinish(const FinishInfo& info) {
  switch (info.reason) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      return grpc::Status::OK;
    case FinishReason::kCancelled:
      return ToGrpcStatus(absl::CancelledError("the request was cancelled"));
    case FinishReason::kDeadline:
      return ToGrpcStatus(absl::DeadlineExceededError("the request's deadline has passed"));
    case FinishReason::kError:
      break;
  }
  return ToGrpcStatus(absl::InternalError(info.error.empty() ? "the request failed" : info.error));
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // absl::StatusCode and grpc::StatusCode number the same canonical codes alike.
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message(status.message());
  google::rpc::Status rich;
  rich.set_code(static_cast<int32_t>(code));
  rich.set_message(message);
  if (code == grpc::StatusCode::INVALID_ARGUMENT) {
    AddBadRequest(status, &rich);
  } else if (code == grpc::StatusCode::RESOURCE_EXHAUSTED || code == grpc::StatusCode::UNAVAILABLE) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetrySeconds);
    rich.add_details()->PackFrom(retry);
  }
  return grpc::Status(code, message, rich.SerializeAsString());
}

}  // namespace fastgen
