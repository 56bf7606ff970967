#include "server/gateway/daemon_watch.h"

#include <pthread.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace fastgen::gateway {
namespace {

namespace health = grpc::health::v1;

bool IsLocked(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAUTHENTICATED ||
         status.error_code() == grpc::StatusCode::PERMISSION_DENIED ||
         status.error_code() == grpc::StatusCode::UNIMPLEMENTED;
}

}  // namespace

DaemonWatch::DaemonWatch(const DaemonStubs* stubs, const WatchOptions& options, OnCheck on_check)
    : stubs_(stubs), options_(options), on_check_(std::move(on_check)) {
  thread_ = std::thread([this] { Run(); });
}

DaemonWatch::~DaemonWatch() {
  Stop();
  Join();
}

void DaemonWatch::Join() {
  if (thread_.joinable()) thread_.join();
}

void DaemonWatch::Stop() {
  MutexLock lock(&mutex_);
  stopping_ = true;
  if (asking_ != nullptr) asking_->TryCancel();
  changed_.SignalAll();
}

void DaemonWatch::CheckNow() {
  MutexLock lock(&mutex_);
  due_ = true;
  changed_.SignalAll();
}

void DaemonWatch::Run() {
  pthread_setname_np(pthread_self(), "watch");
  while (true) {
    const DaemonCheck check = Check();
    {
      MutexLock lock(&mutex_);
      if (stopping_) return;
    }
    on_check_(check);
    MutexLock lock(&mutex_);
    while (!stopping_ && !due_) {
      if (!changed_.WaitFor(&mutex_, absl::ToChronoNanoseconds(options_.interval))) due_ = true;
    }
    if (stopping_) return;
    due_ = false;
  }
}

grpc::Status DaemonWatch::Ask(const std::function<grpc::Status(grpc::ClientContext*)>& ask) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + options_.timeout));
  if (!options_.api_key.empty()) {
    context.AddMetadata("authorization", "Bearer " + options_.api_key);
  }
  {
    MutexLock lock(&mutex_);
    if (stopping_) return grpc::Status::CANCELLED;
    asking_ = &context;
  }
  const grpc::Status status = ask(&context);
  MutexLock lock(&mutex_);
  asking_ = nullptr;
  return status;
}

DaemonCheck DaemonWatch::Check() {
  health::HealthCheckResponse response;
  const grpc::Status status = Ask([&](grpc::ClientContext* context) {
    return stubs_->health->Check(context, health::HealthCheckRequest(), &response);
  });
  DaemonCheck check;
  if (!status.ok() && status.error_code() != grpc::StatusCode::UNIMPLEMENTED) {
    model_is_locked_ = load_is_locked_ = false;
    check.reason =
        status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED
            ? absl::StrCat("it did not answer within ", absl::FormatDuration(options_.timeout))
            : absl::StrCat("it cannot be reached: ", status.error_message());
    return check;
  }
  const bool serves = !status.ok() || response.status() == health::HealthCheckResponse::SERVING;
  check.health = serves ? DaemonCheck::Health::kServing : DaemonCheck::Health::kNotServing;
  if (!serves) check.reason = "it is loading, draining or stalled";
  AskForModel(&check);
  if (check.health == DaemonCheck::Health::kServing) AskForLoad(&check);
  return check;
}

void DaemonWatch::AskForModel(DaemonCheck* check) {
  if (model_is_locked_) return;
  v1::ModelInfo model;
  const grpc::Status status = Ask([&](grpc::ClientContext* context) {
    return stubs_->inference->GetModelInfo(context, v1::GetModelInfoRequest(), &model);
  });
  model_is_locked_ = IsLocked(status);
  if (status.ok()) {
    check->model = std::move(model);
  } else if (!model_is_locked_) {
    check->health = DaemonCheck::Health::kNotServing;
    check->reason = status.error_message();
  }
}

void DaemonWatch::AskForLoad(DaemonCheck* check) {
  if (load_is_locked_) return;
  v1::Stats stats;
  const grpc::Status status = Ask([&](grpc::ClientContext* context) {
    return stubs_->admin->GetStats(context, v1::GetStatsRequest(), &stats);
  });
  load_is_locked_ = IsLocked(status);
  if (status.ok()) check->num_requests = stats.num_running() + stats.num_waiting();
}

}  // namespace fastgen::gateway
