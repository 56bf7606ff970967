#include "tests/testing/fake_inference_service.h"

#include <grpcpp/alarm.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <mutex>
#include <utility>

#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace fastgen::testing {

v1::GenerateEvent AcceptedEvent(int prompt_tokens, int cached_tokens, std::vector<int32_t> ids) {
  v1::GenerateEvent event;
  event.mutable_accepted()->set_prompt_tokens(prompt_tokens);
  event.mutable_accepted()->set_cached_tokens(cached_tokens);
  event.mutable_accepted()->mutable_prompt_token_ids()->Add(ids.begin(), ids.end());
  return event;
}

v1::GenerateEvent DeltaEvent(const std::string& text, std::vector<int32_t> ids, int index) {
  v1::GenerateEvent event;
  event.mutable_delta()->set_index(index);
  event.mutable_delta()->set_text(text);
  event.mutable_delta()->set_num_tokens(1);
  event.mutable_delta()->mutable_token_ids()->Add(ids.begin(), ids.end());
  return event;
}

v1::GenerateEvent FinishedEvent(v1::FinishReason reason, int prompt_tokens, int output_tokens,
                                int index) {
  v1::GenerateEvent event;
  event.mutable_finished()->set_index(index);
  event.mutable_finished()->set_reason(reason);
  event.mutable_finished()->mutable_usage()->set_prompt_tokens(prompt_tokens);
  event.mutable_finished()->mutable_usage()->set_output_tokens(output_tokens);
  return event;
}

v1::TokenLogprob LogprobOf(const std::string& bytes, float logprob) {
  v1::TokenLogprob token;
  token.set_token(7);
  token.set_bytes(bytes);
  token.set_logprob(logprob);
  token.set_rank(2);
  token.add_top()->set_bytes("best");
  token.mutable_top(0)->set_logprob(logprob / 2);
  return token;
}

GenerateScript AnswerScript(const std::vector<std::string>& pieces) {
  GenerateScript script;
  script.events.push_back(AcceptedEvent(5, 2, {1, 2, 3, 4, 5}));
  int32_t id = 100;
  for (const std::string& piece : pieces) script.events.push_back(DeltaEvent(piece, {id++}));
  script.events.push_back(FinishedEvent(v1::STOP, 5, static_cast<int>(pieces.size())));
  script.events.back().mutable_finished()->mutable_usage()->set_cached_tokens(2);
  return script;
}

namespace {

grpc::Status WithDetails(grpc::StatusCode code, const std::string& message,
                         const google::protobuf::Message& detail) {
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  status.add_details()->PackFrom(detail);
  return grpc::Status(code, message, status.SerializeAsString());
}

template <typename Response>
grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace

grpc::Status FieldViolation(const std::string& field, const std::string& message) {
  google::rpc::BadRequest detail;
  detail.add_field_violations()->set_field(field);
  detail.mutable_field_violations(0)->set_description(message);
  return WithDetails(grpc::StatusCode::INVALID_ARGUMENT, message, detail);
}

grpc::Status RetryLater(grpc::StatusCode code, const std::string& message, int seconds) {
  google::rpc::RetryInfo detail;
  detail.mutable_retry_delay()->set_seconds(seconds);
  return WithDetails(code, message, detail);
}

grpc::Status Overloaded(const std::string& message) {
  google::rpc::ErrorInfo detail;
  detail.set_reason("OVERLOADED");
  detail.set_domain("fastgen");
  return WithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED, message, detail);
}

// One Generate call: writes its script, one event after the other.
class FakeDaemon::Stream final : public grpc::ServerWriteReactor<v1::GenerateEvent> {
 public:
  Stream(FakeDaemon* daemon, GenerateScript script) : daemon_(daemon), script_(std::move(script)) {
    Step();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      End(grpc::Status::CANCELLED);
      return;
    }
    {
      MutexLock lock(&daemon_->mutex_);
      ++daemon_->num_events_written_;
    }
    Step();
  }

  void OnCancel() override {
    {
      MutexLock lock(&mutex_);
      cancelled_ = true;
    }
    alarm_.Cancel();
    if (waiting()) End(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    {
      MutexLock lock(&daemon_->mutex_);
      --daemon_->num_live_;
      daemon_->num_cancelled_ += cancelled() ? 1 : 0;
      daemon_->changed_.SignalAll();
    }
    delete this;
  }

 private:
  bool cancelled() {
    MutexLock lock(&mutex_);
    return cancelled_;
  }
  bool waiting() {
    MutexLock lock(&mutex_);
    return waiting_;
  }

  void Step() {
    if (cancelled()) {
      End(grpc::Status::CANCELLED);
    } else if (next_ == script_.events.size() && !script_.repeat_last) {
      Rest();
    } else if (script_.pause > absl::ZeroDuration()) {
      alarm_.Set(absl::ToChronoTime(absl::Now() + script_.pause), [this](bool) { Write(); });
    } else {
      Write();
    }
  }

  void Write() {
    if (cancelled()) {
      End(grpc::Status::CANCELLED);
      return;
    }
    const size_t index = std::min(next_, script_.events.size() - 1);
    next_ = std::min(next_ + 1, script_.events.size());
    StartWrite(&script_.events[index]);
  }

  void Rest() {
    if (!script_.hold_open) {
      End(script_.status);
      return;
    }
    bool ended = false;
    {
      MutexLock lock(&mutex_);
      waiting_ = true;
      ended = cancelled_;
    }
    if (ended) End(grpc::Status::CANCELLED);
  }

  // Cancellation and a waiting stream may both want to end it.
  void End(const grpc::Status& status) {
    {
      MutexLock lock(&mutex_);
      if (std::exchange(ended_, true)) return;
    }
    Finish(status);
  }

  FakeDaemon* const daemon_;
  const GenerateScript script_;
  size_t next_ = 0;
  grpc::Alarm alarm_;
  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool waiting_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

class FakeDaemon::Inference final : public v1::Inference::CallbackService {
 public:
  explicit Inference(FakeDaemon* daemon) : daemon_(daemon) {}

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    {
      MutexLock lock(&daemon_->mutex_);
      daemon_->requests_.push_back(*request);
      daemon_->metadata_.clear();
      for (const auto& [name, value] : context->client_metadata()) {
        daemon_->metadata_.emplace(std::string(name.data(), name.size()),
                                   std::string(value.data(), value.size()));
      }
      ++daemon_->num_live_;
    }
    return new Stream(daemon_, daemon_->on_generate ? daemon_->on_generate(*request)
                                                    : AnswerScript({"Hello", " world"}));
  }

  grpc::ServerWriteReactor<v1::GenerateEvent>* Attach(grpc::CallbackServerContext*,
                                                      const v1::AttachRequest* request) override {
    {
      MutexLock lock(&daemon_->mutex_);
      ++daemon_->num_live_;
    }
    GenerateScript none;
    none.status = grpc::Status(grpc::StatusCode::NOT_FOUND, "no window of that request is open");
    return new Stream(daemon_, daemon_->on_attach ? daemon_->on_attach(*request) : none);
  }

  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context,
                                   const v1::CancelRequest* request,
                                   v1::CancelResponse* response) override {
    {
      MutexLock lock(&daemon_->mutex_);
      for (const std::string& id : request->request_ids()) daemon_->cancelled_ids_.push_back(id);
    }
    for (const std::string& id : request->request_ids()) {
      (id.rfind("live", 0) == 0 ? response->add_cancelled() : response->add_not_found())
          ->assign(id);
    }
    return Reply<v1::CancelResponse>(context, daemon_->unary_status);
  }

  // Each byte of the text is a token.
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    if (request->add_special_tokens() || !request->has_add_special_tokens()) response->add_ids(1);
    for (char c : request->text()) response->add_ids(static_cast<uint8_t>(c));
    if (request->with_bytes()) {
      for (int32_t id : response->ids())
        response->add_token_bytes(std::string(1, static_cast<char>(id)));
    }
    response->set_max_model_len(2048);
    return Reply<v1::TokenizeResponse>(context, daemon_->unary_status);
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    for (int32_t id : request->ids()) *response->mutable_text() += static_cast<char>(id);
    return Reply<v1::DetokenizeResponse>(context, daemon_->unary_status);
  }

  grpc::ServerUnaryReactor* RenderChat(grpc::CallbackServerContext* context,
                                       const v1::RenderChatRequest* request,
                                       v1::RenderChatResponse* response) override {
    for (int i = 0; i < request->chat().messages_size(); ++i) response->add_ids(i + 10);
    response->set_text("rendered");
    return Reply<v1::RenderChatResponse>(context, daemon_->unary_status);
  }

  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest*,
                                         v1::ModelInfo* response) override {
    response->set_name(daemon_->model_name);
    response->set_context_length(2048);
    response->set_build("fastgen 1.2 (ab)");
    response->set_eos_token("</s>");
    response->set_weights_hash(daemon_->weights_hash);
    return Reply<v1::ModelInfo>(context, daemon_->unary_status);
  }

 private:
  FakeDaemon* const daemon_;
};

class FakeDaemon::Admin final : public v1::Admin::CallbackService {
 public:
  explicit Admin(FakeDaemon* daemon) : daemon_(daemon) {}

  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* context,
                                     const v1::GetStatsRequest*, v1::Stats* response) override {
    response->set_num_running(daemon_->num_running);
    return Reply<v1::Stats>(context, daemon_->unary_status);
  }

  grpc::ServerUnaryReactor* GetMetrics(grpc::CallbackServerContext* context,
                                       const v1::GetMetricsRequest*,
                                       v1::Metrics* response) override {
    response->set_prometheus_text(daemon_->prometheus_text);
    return Reply<v1::Metrics>(context, daemon_->unary_status);
  }

 private:
  FakeDaemon* const daemon_;
};

FakeDaemon::FakeDaemon(Health health)
    : inference_(std::make_unique<Inference>(this)), admin_(std::make_unique<Admin>(this)) {
  grpc::EnableDefaultHealthCheckService(health != Health::kOff);
  grpc::ServerBuilder builder;
  builder.RegisterService(inference_.get());
  builder.RegisterService(admin_.get());
  server_ = builder.BuildAndStart();
  grpc::EnableDefaultHealthCheckService(false);
  if (health == Health::kNotServing) SetServing(false);
}

FakeDaemon::~FakeDaemon() { server_->Shutdown(absl::ToChronoTime(absl::Now() + absl::Seconds(5))); }

std::shared_ptr<grpc::Channel> FakeDaemon::channel() {
  return server_->InProcessChannel(grpc::ChannelArguments());
}

void FakeDaemon::SetServing(bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(serving);
}

std::vector<v1::GenerateRequest> FakeDaemon::requests() const {
  MutexLock lock(&mutex_);
  return requests_;
}

std::multimap<std::string, std::string> FakeDaemon::last_metadata() const {
  MutexLock lock(&mutex_);
  return metadata_;
}

std::vector<std::string> FakeDaemon::cancelled_ids() const {
  MutexLock lock(&mutex_);
  return cancelled_ids_;
}

int FakeDaemon::num_cancelled() const {
  MutexLock lock(&mutex_);
  return num_cancelled_;
}

int FakeDaemon::num_live() const {
  MutexLock lock(&mutex_);
  return num_live_;
}

int64_t FakeDaemon::num_events_written() const {
  MutexLock lock(&mutex_);
  return num_events_written_;
}

bool FakeDaemon::WaitForCancelled(int n, absl::Duration timeout) const {
  const absl::Time deadline = absl::Now() + timeout;
  MutexLock lock(&mutex_);
  while (num_cancelled_ < n) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    changed_.WaitFor(&mutex_, absl::ToChronoNanoseconds(left));
  }
  return true;
}

}  // namespace fastgen::testing
