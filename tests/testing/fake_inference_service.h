// FakeDaemon: fastgen.v1 answered from scripts, for tests of whatever speaks to the daemon over
// gRPC.
//
// Each Generate call asks `on_generate` for its script: events, the status at the end, and what
// happens in between. Requests, their metadata and cancellations are recorded. It listens nowhere:
// channel() is in-process.
// Thread rule: set the hooks before the first call; the records may be read from any thread.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "fastgen/v1/admin.grpc.pb.h"
#include "fastgen/v1/inference.grpc.pb.h"

namespace fastgen::testing {

struct GenerateScript {
  std::vector<v1::GenerateEvent> events;
  grpc::Status status;
  absl::Duration pause;      // before each event
  bool repeat_last = false;  // the last event again and again, until the call is cancelled
  bool hold_open = false;    // after the events, wait for the call to be cancelled
};

v1::GenerateEvent AcceptedEvent(int prompt_tokens, int cached_tokens = 0,
                                std::vector<int32_t> ids = {});
v1::GenerateEvent DeltaEvent(const std::string& text, std::vector<int32_t> ids = {}, int index = 0);
v1::GenerateEvent FinishedEvent(v1::FinishReason reason, int prompt_tokens, int output_tokens,
                                int index = 0);
// The token's own logprob and one candidate better than it.
v1::TokenLogprob LogprobOf(const std::string& bytes, float logprob);
// Accepted, one delta a piece, finished STOP.
GenerateScript AnswerScript(const std::vector<std::string>& pieces);
// INVALID_ARGUMENT with a field violation, as the daemon refuses a field.
grpc::Status FieldViolation(const std::string& field, const std::string& message);
// `code` with a RetryInfo.
grpc::Status RetryLater(grpc::StatusCode code, const std::string& message, int seconds);

// RESOURCE_EXHAUSTED with the reason OVERLOADED, as the daemon refuses when its queue is full.
grpc::Status Overloaded(const std::string& message);

class FakeDaemon {
 public:
  enum class Health { kOff, kServing, kNotServing };

  explicit FakeDaemon(Health health = Health::kServing);
  ~FakeDaemon();

  std::shared_ptr<grpc::Channel> channel();
  void SetServing(bool serving);

  std::function<GenerateScript(const v1::GenerateRequest&)> on_generate;
  // Absent: Attach answers NOT_FOUND.
  std::function<GenerateScript(const v1::AttachRequest&)> on_attach;
  // Not OK: what every unary call answers.
  grpc::Status unary_status;
  std::string prometheus_text;
  std::string model_name = "tiny/model";
  std::string weights_hash = "0123456789abcdef0123";
  std::atomic<int32_t> num_running = 0;  // as GetStats tells it

  std::vector<v1::GenerateRequest> requests() const;
  std::multimap<std::string, std::string> last_metadata() const;
  std::vector<std::string> cancelled_ids() const;  // through the Cancel method
  int num_cancelled() const;                       // Generate calls that ended by cancellation
  int num_live() const;
  int64_t num_events_written() const;
  // False when `n` calls have not been cancelled within `timeout`.
  bool WaitForCancelled(int n, absl::Duration timeout) const;

 private:
  class Inference;
  class Admin;
  class Stream;

  mutable Mutex mutex_;
  mutable CondVar changed_;
  std::vector<v1::GenerateRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::multimap<std::string, std::string> metadata_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> cancelled_ids_ ABSL_GUARDED_BY(mutex_);
  int num_cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_live_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_events_written_ ABSL_GUARDED_BY(mutex_) = 0;

  std::unique_ptr<Inference> inference_;
  std::unique_ptr<Admin> admin_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace fastgen::testing
