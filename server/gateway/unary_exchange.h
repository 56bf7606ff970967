// UnaryExchange: one unary call to a daemon whose result is, or leads to, the answer of an HTTP
// request.
//
//   UnaryExchange<Request, Response>::Start(writer, daemons, metadata, request, call, on_result);
// All of them may be repeated, so what fails as retry_policy.h allows is tried on another daemon,
// within the one deadline.
// Invariant: `on_result` runs at most once, on the strand, and never after the client left.
// Thread rule: Start on the connection's strand.
// Tested by tests/server/gateway/{plain_routes,fleet}_test.cc.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/gateway/daemon_pool.h"
#include "server/gateway/exchange.h"

namespace fastgen::gateway {

template <typename Request, typename Response>
class UnaryExchange final : public Exchange,
                            public std::enable_shared_from_this<UnaryExchange<Request, Response>> {
 public:
  using Done = std::function<void(grpc::Status)>;
  using Call = std::function<void(const DaemonStubs&, grpc::ClientContext*, const Request*,
                                  Response*, Done)>;
  using OnResult = std::function<void(const grpc::Status&, const Response&)>;

  static constexpr absl::Duration kTimeout = absl::Seconds(30);

  static std::shared_ptr<Exchange> Start(std::shared_ptr<ResponseWriter> writer,
                                         DaemonPool& daemons, const Headers& metadata,
                                         Request request, Call call, OnResult on_result) {
    auto self = Make(std::move(writer), daemons, metadata, std::move(request), std::move(call),
                     std::move(on_result), kTimeout);
    self->lease_ = daemons.Pick({}, &self->attempts_);
    self->Launch();
    return self;
  }

  // On that daemon and no other.
  static std::shared_ptr<Exchange> StartAt(size_t daemon, absl::Duration timeout,
                                           std::shared_ptr<ResponseWriter> writer,
                                           DaemonPool& daemons, const Headers& metadata,
                                           Request request, Call call, OnResult on_result) {
    auto self = Make(std::move(writer), daemons, metadata, std::move(request), std::move(call),
                     std::move(on_result), timeout);
    self->may_move_ = false;
    self->lease_ = daemons.Take(daemon);
    self->Launch();
    return self;
  }

  void OnDisconnect() override {
    gone_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }

 private:
  static std::shared_ptr<UnaryExchange> Make(std::shared_ptr<ResponseWriter> writer,
                                             DaemonPool& daemons, const Headers& metadata,
                                             Request request, Call call, OnResult on_result,
                                             absl::Duration timeout) {
    auto self = std::make_shared<UnaryExchange>();
    self->writer_ = std::move(writer);
    self->daemons_ = &daemons;
    self->metadata_ = metadata;
    self->request_ = std::move(request);
    self->call_ = std::move(call);
    self->on_result_ = std::move(on_result);
    self->deadline_ = absl::Now() + timeout;
    return self;
  }

  void Launch() {
    auto self = this->shared_from_this();
    if (!lease_.has_daemon()) {
      // Not from within the handler, which has yet to hand this exchange to the connection.
      writer_->Post([self] { self->Finish(self->daemons_->NoDaemon()); });
      return;
    }
    context_ = std::make_unique<grpc::ClientContext>();
    AddMetadata(metadata_, context_.get());
    context_->set_deadline(absl::ToChronoTime(deadline_));
    const DaemonStubs& stubs = lease_.stubs();
    stubs.live_calls->Enter();
    call_(stubs, context_.get(), &request_, &response_,
          [self, live_calls = stubs.live_calls](grpc::Status status) mutable {
            self->writer_->Post([self, status = std::move(status)] { self->OnDone(status); });
            // The reference goes before Leave: what it may destroy belongs to the server.
            self.reset();
            std::exchange(live_calls, nullptr)->Leave();
          });
  }

  void OnDone(const grpc::Status& status) {
    lease_.End(status);
    if (!gone_ && may_move_ && !status.ok()) {
      if (DaemonLease next = daemons_->PickAgain(RetryKindOf(status), {}, &attempts_);
          next.has_daemon()) {
        lease_ = std::move(next);
        response_.Clear();
        Launch();
        return;
      }
    }
    Finish(status);
  }

  void Finish(const grpc::Status& status) {
    if (!gone_) on_result_(status, response_);
    on_result_ = nullptr;
  }

  std::shared_ptr<ResponseWriter> writer_;
  DaemonPool* daemons_ = nullptr;
  Headers metadata_;
  Request request_;
  Response response_;
  Call call_;
  OnResult on_result_;
  absl::Time deadline_;
  Attempts attempts_;
  DaemonLease lease_;
  bool may_move_ = true;
  bool gone_ = false;
  std::unique_ptr<grpc::ClientContext> context_;  // of the current attempt
};

}  // namespace fastgen::gateway
