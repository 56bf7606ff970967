// UnaryExchange: one unary call to the daemon whose result is, or leads to, the answer of an HTTP
// request.
//
//   UnaryExchange<Request, Response>::Start(writer, daemon, metadata, request, call, on_result);
// Invariant: `on_result` runs at most once, on the strand, and never after the client left.
// Thread rule: Start on the connection's strand.
// Tested by tests/server/gateway/plain_routes_test.cc.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/gateway/daemon.h"
#include "server/gateway/exchange.h"

namespace fastgen::gateway {

template <typename Request, typename Response>
class UnaryExchange final : public Exchange,
                            public std::enable_shared_from_this<UnaryExchange<Request, Response>> {
 public:
  using Done = std::function<void(grpc::Status)>;
  using Call = std::function<void(grpc::ClientContext*, const Request*, Response*, Done)>;
  using OnResult = std::function<void(const grpc::Status&, const Response&)>;

  static std::shared_ptr<Exchange> Start(std::shared_ptr<ResponseWriter> writer,
                                         const DaemonStubs& daemon, const Headers& metadata,
                                         Request request, const Call& call, OnResult on_result) {
    auto self = std::make_shared<UnaryExchange>();
    self->writer_ = std::move(writer);
    self->request_ = std::move(request);
    self->on_result_ = std::move(on_result);
    AddMetadata(metadata, &self->context_);
    self->context_.set_deadline(absl::ToChronoTime(absl::Now() + kTimeout));
    daemon.live_calls->Enter();
    call(&self->context_, &self->request_, &self->response_,
         [self, live_calls = daemon.live_calls](grpc::Status status) mutable {
           self->writer_->Post([self, status = std::move(status)] { self->Finish(status); });
           // The reference goes before Leave: what it may destroy belongs to the server.
           self.reset();
           std::exchange(live_calls, nullptr)->Leave();
         });
    return self;
  }

  void OnDisconnect() override {
    gone_ = true;
    context_.TryCancel();
  }

 private:
  static constexpr absl::Duration kTimeout = absl::Seconds(30);

  void Finish(const grpc::Status& status) {
    if (!gone_) on_result_(status, response_);
    on_result_ = nullptr;
  }

  std::shared_ptr<ResponseWriter> writer_;
  Request request_;
  Response response_;
  grpc::ClientContext context_;
  OnResult on_result_;
  bool gone_ = false;
};

}  // namespace fastgen::gateway
