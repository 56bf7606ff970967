#include "server/gateway/fleet_routes.h"

#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/json_text.h"
#include "server/gateway/plain_routes.h"
#include "server/gateway/unary_exchange.h"

namespace fastgen::gateway {
namespace {

using Writer = std::shared_ptr<ResponseWriter>;
using Cancel = UnaryExchange<v1::CancelRequest, v1::CancelResponse>;

// One that hangs must not keep the others' answer for long.
constexpr absl::Duration kCancelTimeout = absl::Seconds(5);

std::string_view NameOf(CircuitBreaker::State state) {
  switch (state) {
    case CircuitBreaker::State::kClosed:
      return "closed";
    case CircuitBreaker::State::kOpen:
      return "open";
    case CircuitBreaker::State::kHalfOpen:
      return "half open";
  }
  return "";
}

std::string DaemonsJson(const std::vector<DaemonReport>& daemons) {
  std::string json = "[";
  for (const DaemonReport& daemon : daemons) {
    json += json.size() > 1 ? ",{\"address\":" : "{\"address\":";
    AppendJsonString(daemon.address, &json);
    json += ",\"state\":";
    AppendJsonString(daemon.state, &json);
    if (!daemon.reason.empty()) {
      json += ",\"reason\":";
      AppendJsonString(daemon.reason, &json);
    }
    absl::StrAppend(&json, ",\"circuit\":\"", ToAbsl(NameOf(daemon.circuit)),
                    "\",\"in_flight\":", daemon.num_in_flight, "}");
  }
  return json + "]";
}

// The same question to every daemon; the answers are put together.
class CancelExchange final : public Exchange, public std::enable_shared_from_this<CancelExchange> {
 public:
  CancelExchange(Writer writer, v1::CancelRequest call, std::vector<std::string> ignored)
      : writer_(std::move(writer)), call_(std::move(call)), ignored_(std::move(ignored)) {}

  void Start(DaemonPool& daemons, const Headers& metadata) {
    const std::vector<size_t> reachable = daemons.Reachable();
    num_open_ = reachable.size();
    if (reachable.empty()) {
      // Not from within the handler, which has yet to hand this exchange to the connection.
      error_ = daemons.NoDaemon();
      writer_->Post([self = shared_from_this()] { self->Finish(); });
    }
    for (size_t i : reachable) {
      parts_.push_back(Cancel::StartAt(
          i, kCancelTimeout, writer_, daemons, metadata, call_,
          [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
             Cancel::Done done) {
            daemon.inference->async()->Cancel(context, in, out, std::move(done));
          },
          [self = shared_from_this()](const grpc::Status& status,
                                      const v1::CancelResponse& response) {
            self->OnAnswer(status, response);
          }));
    }
  }

  void OnDisconnect() override {
    gone_ = true;
    for (const auto& part : parts_) part->OnDisconnect();
  }

 private:
  void OnAnswer(const grpc::Status& status, const v1::CancelResponse& response) {
    if (status.ok()) {
      has_answer_ = true;
      cancelled_.insert(response.cancelled().begin(), response.cancelled().end());
    } else if (error_.ok() || error_.error_code() == grpc::StatusCode::UNAVAILABLE) {
      // Why a daemon that answers refuses says more than that another one does not.
      error_ = status;
    }
    if (--num_open_ == 0) Finish();
  }

  void Finish() {
    if (gone_) return;
    if (!has_answer_) {
      RespondError(writer_, ErrorFromGrpc(error_));
      return;
    }
    v1::CancelResponse response;
    std::set<std::string> told;
    for (const std::string& id : call_.request_ids()) {
      if (!told.insert(id).second) continue;
      *(cancelled_.count(id) > 0 ? response.add_cancelled() : response.add_not_found()) = id;
    }
    RespondCancelled(writer_, response, ignored_);
  }

  const Writer writer_;
  const v1::CancelRequest call_;
  const std::vector<std::string> ignored_;
  std::vector<std::shared_ptr<Exchange>> parts_;
  size_t num_open_ = 0;
  bool has_answer_ = false;
  bool gone_ = false;
  std::set<std::string> cancelled_;
  grpc::Status error_;
};

}  // namespace

std::shared_ptr<Exchange> GetFleetHealth(Router& router, const Writer& writer) {
  const std::vector<DaemonReport> daemons = router.daemons().Report();
  size_t num_used = 0;
  std::string reasons;
  for (const DaemonReport& daemon : daemons) {
    num_used += daemon.is_used ? 1 : 0;
    absl::StrAppend(&reasons, reasons.empty() ? "" : "; ", daemon.address, ": ", daemon.reason);
  }
  HttpResponse response;
  if (num_used > 0) {
    response.body = "{\"status\":\"ok\",\"model\":";
    AppendJsonString(router.model_name(), &response.body);
    response.body += '}';
  } else {
    response = ErrorResponse({.status = 503,
                              .message = absl::StrCat("no daemon can be used: ", reasons),
                              .code = "unavailable",
                              .retry_after_s = 1});
  }
  response.body.pop_back();
  absl::StrAppend(&response.body, ",\"daemons\":", DaemonsJson(daemons), "}");
  writer->Respond(std::move(response));
  return nullptr;
}

std::shared_ptr<Exchange> GetFleetMetrics(Router& router, const Writer& writer) {
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = router.daemons().MetricsText();
  writer->Respond(std::move(response));
  return nullptr;
}

std::shared_ptr<Exchange> CancelEverywhere(Router& router, const HttpRequest& request,
                                           Writer writer, v1::CancelRequest call,
                                           std::vector<std::string> ignored) {
  auto exchange =
      std::make_shared<CancelExchange>(std::move(writer), std::move(call), std::move(ignored));
  exchange->Start(router.daemons(), request.metadata);
  return exchange;
}

}  // namespace fastgen::gateway
