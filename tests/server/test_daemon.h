// A daemon with a fake engine behind it, and the small calls that the server's tests make.
// Thread rule: the test's main thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "base/mutex.h"
#include "fastgen/v1/inference.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/daemon_parts.h"
#include "tests/testing/fake_engine.h"

// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen::testing {

// Opens once; holds a fake load back until then.
class Latch {
 public:
  void Open() {
    MutexLock lock(&mutex_);
    open_ = true;
    opened_.SignalAll();
  }
  void Wait() {
    MutexLock lock(&mutex_);
    while (!open_) opened_.Wait(&mutex_);
  }

 private:
  Mutex mutex_;
  CondVar opened_;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
};

// Parts whose engine is `engine`, loaded at once.
inline DaemonParts PartsWith(std::unique_ptr<Engine> engine) {
  DaemonParts parts;
  parts.load_engine = [held = std::make_shared<std::unique_ptr<Engine>>(std::move(engine))](
                          const LoadProgress&) -> absl::StatusOr<std::unique_ptr<Engine>> {
    return std::move(*held);
  };
  return parts;
}

// In-process only, unless `options` names listeners.
struct TestDaemon {
  explicit TestDaemon(const DaemonOptions& options = {}) {
    auto made = std::make_unique<FakeEngine>();
    engine = made.get();
    auto started = Daemon::StartWith(options, nullptr, PartsWith(std::move(made)));
    INFO(started.status().ToString());
    REQUIRE(started.ok());
    daemon = *std::move(started);
    REQUIRE(daemon->WaitLoaded().ok());
    stub = v1::Inference::NewStub(daemon->channel());
  }

  std::unique_ptr<Daemon> daemon;
  FakeEngine* engine = nullptr;
  std::unique_ptr<v1::Inference::Stub> stub;
};

// One whole stream.
struct Stream {
  std::vector<v1::GenerateEvent> events;
  grpc::Status status;
  std::string text;
  std::optional<v1::Finished> finished;  // the latest
  std::map<int, std::string> texts;      // by choice
  std::map<int, v1::Finished> finishes;
  int num_deltas = 0;
  int num_tokens = 0;
};

inline void Take(const v1::GenerateEvent& event, Stream* stream) {
  stream->events.push_back(event);
  if (event.has_delta()) {
    stream->text += event.delta().text();
    stream->texts[event.delta().index()] += event.delta().text();
    stream->num_tokens += event.delta().num_tokens();
    ++stream->num_deltas;
  }
  if (event.has_finished()) {
    stream->finished = event.finished();
    stream->finishes[event.finished().index()] = event.finished();
  }
}

inline Stream Generate(v1::Inference::Stub* stub, const v1::GenerateRequest& request,
                       grpc::ClientContext* context) {
  Stream stream;
  auto reader = stub->Generate(context, request);
  v1::GenerateEvent event;
  while (reader->Read(&event)) Take(event, &stream);
  stream.status = reader->Finish();
  return stream;
}

inline Stream Generate(v1::Inference::Stub* stub, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  return Generate(stub, request, &context);
}

inline v1::GenerateRequest TextRequest(const std::string& text, int max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  return request;
}

// The details of a status, as a client decodes them.
inline google::rpc::Status RichStatus(const grpc::Status& status) {
  google::rpc::Status rich;
  REQUIRE(rich.ParseFromString(status.error_details()));
  return rich;
}

// "field: description" of each BadRequest violation.
inline std::vector<std::string> ViolatedFields(const grpc::Status& status) {
  std::vector<std::string> fields;
  const google::rpc::Status rich = RichStatus(status);
  for (const auto& detail : rich.details()) {
    google::rpc::BadRequest bad_request;
    if (!detail.UnpackTo(&bad_request)) continue;
    for (const auto& violation : bad_request.field_violations()) fields.push_back(violation.field());
  }
  return fields;
}

inline bool HasRetryInfo(const grpc::Status& status) {
  const google::rpc::Status rich = RichStatus(status);
  for (const auto& detail : rich.details()) {
    google::rpc::RetryInfo retry;
    if (detail.UnpackTo(&retry) && retry.retry_delay().seconds() + retry.retry_delay().nanos() > 0) {
      return true;
    }
  }
  return false;
}

// The value of a metadata key, or "".
inline std::string Metadata(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata,
                            const std::string& key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
}

}  // namespace fastgen::testing
