#include "server/grpc_status.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/status.pb.h"

namespace fastgen {
namespace {

constexpr char kBadRequestType[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr char kRetryInfoType[] = "type.googleapis.com/google.rpc.RetryInfo";
// A client that was turned away may come back after that long.
constexpr absl::Duration kDefaultRetryAfter = absl::Seconds(1);
// A hint below would invite a busy loop, one above would never be followed.
constexpr absl::Duration kMinRetryAfter = absl::Milliseconds(100);
constexpr absl::Duration kMaxRetryAfter = absl::Hours(1);

// "sampling.top_p: must be ..." -> "sampling.top_p"; "" when the message does not open with a
// field's name.
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

// In the words of engine/schedule/admission.cc: the prompt, or prompt and max_tokens together,
// exceed what the context or the KV cache holds. Clients that shorten their conversation and try
// again look for the reason, not for words.
void AddContextOverflow(const absl::Status& status, google::rpc::Status* rich) {
  const bool overflows = absl::StrContains(status.message(), "of the context (max_model_len)") ||
                         absl::StrContains(status.message(), "that the KV cache can hold (");
  if (!overflows) return;
  google::rpc::ErrorInfo info;
  info.set_reason("CONTEXT_LENGTH_EXCEEDED");
  info.set_domain("fastgen");
  rich->add_details()->PackFrom(info);
}

// In the words of engine/request_queue.cc and engine/grammar_cache.cc: this daemon has too much to
// do, so that another one may well take the request. The limits of a key are no such reason.
void AddOverload(const absl::Status& status, google::rpc::Status* rich) {
  const absl::string_view message = status.message();
  const bool overloaded = absl::StartsWith(message, "the queue is full: ") ||
                          absl::StartsWith(message, "the engine is full: ") ||
                          absl::StrContains(message, " others wait to be compiled; ") ||
                          absl::StrContains(message, " s for others to be compiled");
  if (status.code() != absl::StatusCode::kResourceExhausted || !overloaded) return;
  google::rpc::ErrorInfo info;
  info.set_reason("OVERLOADED");
  info.set_domain("fastgen");
  rich->add_details()->PackFrom(info);
}

google::rpc::RetryInfo RetryInfoOf(absl::Duration retry_after) {
  retry_after = std::clamp(retry_after, kMinRetryAfter, kMaxRetryAfter);
  absl::Duration rest;
  google::rpc::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(absl::IDivDuration(retry_after, absl::Seconds(1), &rest));
  info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return info;
}

void AddRetryInfo(const absl::Status& status, google::rpc::Status* rich) {
  google::rpc::RetryInfo info = RetryInfoOf(kDefaultRetryAfter);
  if (const auto payload = status.GetPayload(kRetryInfoType)) {
    info.ParseFromString(std::string(*payload));
  }
  rich->add_details()->PackFrom(info);
}

}  // namespace

void Violations::Add(const std::string& field, const std::string& description) {
  if (bad_request_.field_violations_size() >= kMaxViolations) return;
  auto* violation = bad_request_.add_field_violations();
  violation->set_field(field);
  violation->set_description(description);
}

absl::Status Violations::ToStatus() const {
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

absl::Status WithRetryAfter(absl::Status status, absl::Duration retry_after) {
  status.SetPayload(kRetryInfoType, absl::Cord(RetryInfoOf(retry_after).SerializeAsString()));
  return status;
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
    AddContextOverflow(status, &rich);
  } else if (code == grpc::StatusCode::RESOURCE_EXHAUSTED ||
             code == grpc::StatusCode::UNAVAILABLE) {
    AddRetryInfo(status, &rich);
    AddOverload(status, &rich);
  }
  return grpc::Status(code, message, rich.SerializeAsString());
}

}  // namespace fastgen
