#include "server/gateway/retry_policy.h"

#include <string>
#include <string_view>
#include <utility>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace fastgen::gateway {
namespace {

// How gRPC's own side says that no connection came about: nothing has been sent.
constexpr std::string_view kNeverSent[] = {
    "failed to connect to all addresses",
    "connections to all backends failing",
    "DNS resolution failed",
    "empty address list",
};

bool IsOverloaded(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return false;
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::ErrorInfo info;
    if (any.UnpackTo(&info) && info.reason() == "OVERLOADED") return true;
  }
  return false;
}

}  // namespace

RetryKind RetryKindOf(const grpc::Status& status) {
  if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
    return IsOverloaded(status) ? RetryKind::kOverloaded : RetryKind::kNever;
  }
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return RetryKind::kNever;
  // Only the daemon itself adds details.
  if (!status.error_details().empty()) return RetryKind::kRefused;
  const std::string message = status.error_message();
  for (std::string_view opening : kNeverSent) {
    if (message.compare(0, opening.size(), opening) == 0) return RetryKind::kRefused;
  }
  return RetryKind::kLost;
}

bool Attempts::Allow(RetryKind kind) {
  if (tried_.size() >= kMaxAttempts) return false;
  switch (kind) {
    case RetryKind::kNever:
      return false;
    case RetryKind::kRefused:
      return true;
    case RetryKind::kOverloaded:
      return !std::exchange(was_overloaded_, true);
    case RetryKind::kLost:
      return !std::exchange(was_lost_, true);
  }
  return false;
}

}  // namespace fastgen::gateway
