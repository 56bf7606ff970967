// The border between absl::Status and grpc::Status: the only table of it, and the google.rpc
// details that go with it.
//
// A grpc::Status carries a serialised google.rpc.Status (trailer grpc-status-details-bin) with
// BadRequest for INVALID_ARGUMENT, RetryInfo for RESOURCE_EXHAUSTED and UNAVAILABLE, and ErrorInfo
// CONTEXT_LENGTH_EXCEEDED for a request that can never fit the context, OVERLOADED for one that
// another daemon may well take now. An INVALID_ARGUMENT of the engine opens with "field: ", which becomes the violation's field. Thread rule: pure functions and
// values. Tested by tests/server/proto_convert_test.cc; fuzzed by tests/fuzz/proto_fuzzer.cc.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"

namespace fastgen {

// What is wrong with one request, field by field.
class Violations {
 public:
  // The status travels in trailers, which clients bound at 8 KiB by default: what follows the first
  // few says no more.
  static constexpr int kMaxViolations = 16;

  void Add(const std::string& field, const std::string& description);
  // INVALID_ARGUMENT with all violations; OK when there is none.
  absl::Status ToStatus() const;

 private:
  google::rpc::BadRequest bad_request_;
};

// `status` with a hint when to come again, which ToGrpcStatus sends instead of its default of one
// second.
absl::Status WithRetryAfter(absl::Status status, absl::Duration retry_after);

grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace fastgen
