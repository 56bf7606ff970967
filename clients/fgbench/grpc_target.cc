#include "clients/fgbench/grpc_target.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"

namespace fastgen {
namespace {

constexpr std::chrono::seconds kProbeTimeout{10};

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  // A connection of its own: another target at the same address must not share it.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // Through a proxy, the proxy would be measured.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

std::string Describe(const grpc::Status& status) {
  if (!status.error_message().empty()) return status.error_message();
  return absl::StrCat("gRPC status ", status.error_code());
}

}  // namespace

// One request; keeps itself until its last call.
class GrpcTarget::Call final : public grpc::ClientReadReactor<v1::GenerateEvent>,
                               public std::enable_shared_from_this<GrpcTarget::Call> {
 public:
  Call(GrpcTarget* target, Done done) : target_(target), done_(std::move(done)) {}

  void Run(const std::string& prompt) {
    const RequestShape& shape = target_->shape_;
    request_.set_text(prompt);
    request_.mutable_sampling()->set_temperature(static_cast<float>(shape.temperature));
    request_.mutable_stopping()->set_max_tokens(shape.output_tokens);
    request_.mutable_stopping()->set_ignore_eos(true);
    target_->Prepare(&context_);
    context_.set_deadline(std::chrono::system_clock::now() + shape.timeout);
    result_.arrivals.reserve(static_cast<size_t>(shape.output_tokens));
    result_.begin = BenchClock::now();
    target_->stub_->async()->Generate(&context_, &request_, this);
    StartRead(&event_);
    StartCall();
  }

  void Cancel() {
    cancelled_ = true;
    context_.TryCancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (event_.has_delta()) {
      if (!event_.delta().text().empty()) result_.arrivals.push_back(BenchClock::now());
    } else if (event_.has_finished()) {
      result_.prompt_tokens = event_.finished().usage().prompt_tokens();
      result_.output_tokens = event_.finished().usage().output_tokens();
    }
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    result_.end = BenchClock::now();
    result_.cancelled = cancelled_ && !status.ok();
    if (!status.ok()) result_.error = Describe(status);
    done_(std::move(result_));
    // The last reference may go with it.
    target_->Remove(shared_from_this());
  }

 private:
  GrpcTarget* const target_;
  const Done done_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateEvent event_;
  RequestResult result_;
  std::atomic<bool> cancelled_ = false;
};

GrpcTarget::GrpcTarget(const std::string& address, const RequestShape& shape)
    : address_(address), shape_(shape), stub_(v1::Inference::NewStub(Connect(address))) {}

GrpcTarget::~GrpcTarget() {
  CancelAll();
  MutexLock lock(&mutex_);
  while (!calls_.empty()) call_ended_.Wait(&mutex_);
}

void GrpcTarget::Prepare(grpc::ClientContext* context) const {
  if (!shape_.api_key.empty()) {
    context->AddMetadata("authorization", absl::StrCat("Bearer ", shape_.api_key));
  }
}

absl::StatusOr<std::string> GrpcTarget::Probe() {
  grpc::ClientContext context;
  Prepare(&context);
  context.set_deadline(std::chrono::system_clock::now() + kProbeTimeout);
  v1::ModelInfo info;
  const grpc::Status status = stub_->GetModelInfo(&context, {}, &info);
  if (status.ok()) return info.name();
  return absl::UnavailableError(absl::StrCat("grpc ", address_, ": ", Describe(status)));
}

void GrpcTarget::Start(const std::string& prompt, Done done) {
  const auto call = std::make_shared<Call>(this, std::move(done));
  {
    MutexLock lock(&mutex_);
    calls_.insert(call);
  }
  call->Run(prompt);
}

void GrpcTarget::CancelAll() {
  std::set<std::shared_ptr<Call>> calls;
  {
    MutexLock lock(&mutex_);
    calls = calls_;
  }
  // Without the lock: a call that ends by this may say so on this thread.
  for (const auto& call : calls) call->Cancel();
}

void GrpcTarget::Remove(const std::shared_ptr<Call>& call) {
  MutexLock lock(&mutex_);
  calls_.erase(call);
  call_ended_.SignalAll();
}

}  // namespace fastgen
