// GrpcTarget: fastgen.v1.Inference/Generate at an address.
//
// All requests share one channel and gRPC's own threads (callback API). Text is asked for, and
// neither ids nor logprobs: what an HTTP client gets. Thread rule: Target's. Tested by
// tests/e2e/test_fgbench.py.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "base/mutex.h"
#include "clients/fgbench/target.h"
#include "fastgen/v1/inference.grpc.pb.h"

namespace fastgen {

class GrpcTarget final : public Target {
 public:
  // `address`: host:port or unix:/path.
  GrpcTarget(const std::string& address, const RequestShape& shape);
  ~GrpcTarget() override;

  absl::StatusOr<std::string> Probe() override;
  void Start(const std::string& prompt, Done done) override;
  void CancelAll() override;

 private:
  class Call;

  void Prepare(grpc::ClientContext* context) const;
  void Remove(const std::shared_ptr<Call>& call);

  const std::string address_;
  const RequestShape shape_;
  std::unique_ptr<v1::Inference::Stub> stub_;

  Mutex mutex_;
  CondVar call_ended_;
  std::set<std::shared_ptr<Call>> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fastgen
