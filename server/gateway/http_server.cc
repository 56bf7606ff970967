#include "server/gateway/http_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <limits>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "server/gateway/cors.h"
#include "server/gateway/daemon_pool.h"
#include "server/gateway/http_acceptor.h"
#include "server/gateway/http_connection.h"
#include "server/gateway/router.h"

namespace fastgen {
namespace asio = boost::asio;
using gateway::HttpConnection;

namespace {

// Connections beyond the limit that are being told so; further ones are closed without a word.
constexpr size_t kMaxRefusals = 64;
// Files, listeners, gRPC's own connections.
constexpr rlim_t kOtherDescriptors = 1024;

void RaiseFileLimit(int max_connections) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = static_cast<rlim_t>(max_connections) + kOtherDescriptors;
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted) {
    LogWarning(absl::StrCat("at most ", limit.rlim_cur, " files may be open (ulimit -n -H); ",
                            max_connections, " connections need ", wanted));
  }
}

class BeastServer final : public HttpServer {
 public:
  BeastServer(const GatewayOptions& options, std::unique_ptr<gateway::DaemonPool> daemons)
      : options_(options),
        context_(std::max(options.num_threads, 1)),
        daemons_(std::move(daemons)),
        router_(options_, *daemons_) {}
  ~BeastServer() override { Stop(); }

  absl::Status Listen();
  void Run();

  const std::vector<std::string>& addresses() const override { return addresses_; }
  void StopAccepting() override;
  bool WaitIdle(absl::Duration timeout) override;
  void Stop() override;

 private:
  void Open(std::unique_ptr<gateway::ByteStream> stream);
  std::vector<std::shared_ptr<HttpConnection>> Connections();

  const GatewayOptions options_;
  asio::io_context context_;
  const std::unique_ptr<gateway::DaemonPool> daemons_;
  gateway::Router router_;
  std::vector<std::string> addresses_;
  std::vector<std::unique_ptr<gateway::HttpAcceptor>> acceptors_;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_;
  std::vector<std::thread> threads_;
  std::atomic<bool> draining_ = false;

  Mutex mutex_;
  CondVar none_open_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::unordered_map<HttpConnection*, std::weak_ptr<HttpConnection>> connections_
      ABSL_GUARDED_BY(mutex_);
};

absl::Status BeastServer::Listen() {
  if (options_.listen.empty())
    return absl::InvalidArgumentError("no address to listen on was given");
  for (const std::string& origin : options_.cors_origins) {
    if (gateway::IsOrigin(origin)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "--cors-origin '", origin, "' is not scheme://host[:port] without a path, nor '*'"));
  }
  std::shared_ptr<TlsSource> tls;
  if (options_.tls.given()) {
    ASSIGN_OR_RETURN(tls, TlsSource::Open(options_.tls));
  }
  for (const std::string& address : options_.listen) {
    auto acceptor = std::make_unique<gateway::HttpAcceptor>(&context_, tls);
    RETURN_IF_ERROR(acceptor->Bind(address));
    addresses_.push_back(acceptor->address());
    acceptors_.push_back(std::move(acceptor));
  }
  return absl::OkStatus();
}

void BeastServer::Run() {
  work_.emplace(asio::make_work_guard(context_));
  for (const auto& acceptor : acceptors_) {
    acceptor->Start(
        [this](std::unique_ptr<gateway::ByteStream> stream) { Open(std::move(stream)); });
  }
  for (int i = 0; i < std::max(options_.num_threads, 1); ++i) {
    threads_.emplace_back([this] { context_.run(); });
  }
}

void BeastServer::Open(std::unique_ptr<gateway::ByteStream> stream) {
  auto connection = std::make_shared<HttpConnection>(
      std::move(stream), options_,
      [this](gateway::HttpRequest request, std::shared_ptr<gateway::ResponseWriter> writer) {
        return router_.Route(std::move(request), std::move(writer));
      },
      draining_,
      [this](HttpConnection* ended) {
        MutexLock lock(&mutex_);
        connections_.erase(ended);
        if (connections_.empty()) none_open_.SignalAll();
      });
  size_t num_open = 0;
  {
    MutexLock lock(&mutex_);
    num_open = connections_.size();
    if (!stopping_) connections_.emplace(connection.get(), connection);
    if (stopping_) num_open = std::numeric_limits<size_t>::max();
  }
  const size_t max_open = static_cast<size_t>(options_.max_connections);
  if (num_open < max_open) {
    connection->Start();
  } else if (num_open - max_open < kMaxRefusals) {
    connection->Refuse();
  }  // else it closes here
}

std::vector<std::shared_ptr<HttpConnection>> BeastServer::Connections() {
  std::vector<std::shared_ptr<HttpConnection>> open;
  MutexLock lock(&mutex_);
  for (const auto& [raw, weak] : connections_) {
    if (auto connection = weak.lock()) open.push_back(std::move(connection));
  }
  return open;
}

void BeastServer::StopAccepting() {
  draining_.store(true);
  for (const auto& acceptor : acceptors_) {
    asio::post(acceptor->executor(), [raw = acceptor.get()] { raw->Close(); });
  }
  for (const auto& connection : Connections()) connection->CloseWhenIdle();
}

bool BeastServer::WaitIdle(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  MutexLock lock(&mutex_);
  while (!connections_.empty()) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    none_open_.WaitFor(&mutex_, absl::ToChronoNanoseconds(left));
  }
  return true;
}

void BeastServer::Stop() {
  if (threads_.empty()) return;
  StopAccepting();
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  // A connection accepted before its listener closed may still be on its way here: closing goes
  // through the listener's strand, after the accept that is under way.
  for (const auto& acceptor : acceptors_) {
    asio::post(acceptor->executor(), [this] {
      for (const auto& connection : Connections()) connection->Close();
    });
  }
  work_.reset();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  acceptors_.clear();
  daemons_->WaitForCalls();
  daemons_->Stop();
}

absl::StatusOr<std::unique_ptr<HttpServer>> StartBefore(
    const GatewayOptions& options, std::unique_ptr<gateway::DaemonPool> daemons,
    absl::Duration wait_for_checks) {
  RaiseFileLimit(options.max_connections);
  gateway::DaemonPool* const pool = daemons.get();
  auto server = std::make_unique<BeastServer>(options, std::move(daemons));
  RETURN_IF_ERROR(server->Listen());
  pool->WaitForFirstChecks(wait_for_checks);
  server->Run();
  return absl::StatusOr<std::unique_ptr<HttpServer>>(std::move(server));
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const GatewayOptions& options, std::shared_ptr<grpc::Channel> channel) {
  CHECK(channel != nullptr);
  return StartBefore(options, std::make_unique<gateway::DaemonPool>(channel), absl::ZeroDuration());
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::StartFleet(const GatewayOptions& options,
                                                                   const FleetOptions& fleet) {
  return StartBefore(options, std::make_unique<gateway::DaemonPool>(fleet), fleet.check_timeout);
}

}  // namespace fastgen
