// Streams one answer to standard output, and stops it when the user presses Ctrl-C.
// Thread rule: Run from one thread; Interrupt from any other.
// Tested by tests/clients/answer_test.cc and tests/e2e/test_fgchat.py.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <grpcpp/client_context.h>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "fastgen/v1/inference.grpc.pb.h"

namespace fastgen {

struct Answer {
  std::string text;
  int num_tokens = 0;
  absl::Duration duration;   // from the first token to the last; the whole call when there is only one
  bool interrupted = false;
};

// "--- [33 tokens, 26.554toks/s]"
std::string DescribeSpeed(const Answer& answer);

// Shows the daemon who calls; an empty key is none. REQUIRES: printable ASCII, as gRPC ends the process on other bytes.
void AddApiKey(const std::string& api_key, grpc::ClientContext* context);

class AnswerStream {
 public:
  explicit AnswerStream(fastgen::v1::Inference::StubInterface* stub, std::string api_key = "")
      : stub_(stub), api_key_(std::move(api_key)) {}

  // Calls `show` with each piece of text as it arrives. The status is the daemon's, in words; what arrived before an
  // interruption is an answer, not an error.
  absl::StatusOr<Answer> Run(const fastgen::v1::GenerateRequest& request,
                             const std::function<void(std::string_view)>& show);

  // Ends the answer under way, if there is one.
  void Interrupt();

 private:
  fastgen::v1::Inference::StubInterface* const stub_;
  const std::string api_key_;
  Mutex mutex_;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool interrupted_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace fastgen
