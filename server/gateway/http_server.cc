#include "server/gateway/http_server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <charconv>
#include <chrono>
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
#include "server/gateway/daemon.h"
#include "server/gateway/http_connection.h"
#include "server/gateway/router.h"

namespace fastgen {
namespace asio = boost::asio;
using boost::system::error_code;
using gateway::HttpConnection;
using Tcp = asio::ip::tcp;

namespace {

struct HostPort {
  std::string host;
  std::string port;
};

// "127.0.0.1:5678", "localhost:0", "[::1]:5678".
absl::StatusOr<HostPort> ParseAddress(const std::string& address) {
  const auto invalid = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat("'", address, "' is not an address: host:port is expected"));
  };
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return invalid();
  HostPort parts = {address.substr(0, colon), address.substr(colon + 1)};
  if (parts.host.front() == '[' && parts.host.back() == ']') {
    parts.host = parts.host.substr(1, parts.host.size() - 2);
  } else if (parts.host.find(':') != std::string::npos) {
    return invalid();
  }
  int port = -1;
  const char* const end = parts.port.data() + parts.port.size();
  const auto parsed = std::from_chars(parts.port.data(), end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end || port < 0 || port > 65535) return invalid();
  return parts;
}

std::string AddressText(const Tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return endpoint.address().is_v6() ? absl::StrCat("[", host, "]:", endpoint.port())
                                    : absl::StrCat(host, ":", endpoint.port());
}

gateway::DaemonStubs MakeStubs(const std::shared_ptr<grpc::Channel>& channel) {
  return {v1::Inference::NewStub(channel), v1::Admin::NewStub(channel),
          grpc::health::v1::Health::NewStub(channel), std::make_shared<gateway::LiveCalls>()};
}

class BeastServer final : public HttpServer {
 public:
  BeastServer(const GatewayOptions& options, const std::shared_ptr<grpc::Channel>& channel)
      : options_(options),
        context_(std::max(options.num_threads, 1)),
        router_(options_, MakeStubs(channel)) {}
  ~BeastServer() override { Stop(); }

  absl::Status Listen();
  void Run();

  const std::vector<std::string>& addresses() const override { return addresses_; }
  void StopAccepting() override;
  bool WaitIdle(absl::Duration timeout) override;
  void Stop() override;

 private:
  struct Listener {
    explicit Listener(asio::io_context& context)
        : acceptor(asio::make_strand(context)), retry(acceptor.get_executor()) {}
    Tcp::acceptor acceptor;
    asio::steady_timer retry;
  };

  absl::Status Bind(const std::string& address);
  void Accept(Listener* listener);
  void OnAccept(Listener* listener, const error_code& error, Tcp::socket socket);
  void Open(Tcp::socket socket);
  std::vector<std::shared_ptr<HttpConnection>> Connections();

  const GatewayOptions options_;
  asio::io_context context_;
  gateway::Router router_;
  std::vector<std::string> addresses_;
  std::vector<std::unique_ptr<Listener>> listeners_;
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
  for (const std::string& address : options_.listen) RETURN_IF_ERROR(Bind(address));
  return absl::OkStatus();
}

absl::Status BeastServer::Bind(const std::string& address) {
  ASSIGN_OR_RETURN(const HostPort parts, ParseAddress(address));
  error_code error;
  Tcp::resolver resolver(context_);
  const auto endpoints = resolver.resolve(parts.host, parts.port, Tcp::resolver::passive, error);
  if (error || endpoints.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", address, "' is not an address: ", error.message()));
  }
  for (const auto& entry : endpoints) {
    auto listener = std::make_unique<Listener>(context_);
    Tcp::acceptor& acceptor = listener->acceptor;
    const Tcp::endpoint endpoint = entry.endpoint();
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) continue;
    addresses_.push_back(AddressText(acceptor.local_endpoint()));
    listeners_.push_back(std::move(listener));
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", error.message()));
}

void BeastServer::Run() {
  work_.emplace(asio::make_work_guard(context_));
  for (const auto& listener : listeners_) {
    asio::post(listener->acceptor.get_executor(), [this, raw = listener.get()] { Accept(raw); });
  }
  for (int i = 0; i < std::max(options_.num_threads, 1); ++i) {
    threads_.emplace_back([this] { context_.run(); });
  }
}

void BeastServer::Accept(Listener* listener) {
  if (!listener->acceptor.is_open()) return;
  listener->acceptor.async_accept(asio::make_strand(context_),
                                  [this, listener](const error_code& error, Tcp::socket socket) {
                                    OnAccept(listener, error, std::move(socket));
                                  });
}

void BeastServer::OnAccept(Listener* listener, const error_code& error, Tcp::socket socket) {
  if (!listener->acceptor.is_open()) return;
  if (!error) {
    Open(std::move(socket));
    Accept(listener);
    return;
  }
  // Out of descriptors, most likely: connections wait in the backlog meanwhile.
  LogWarning(absl::StrCat("cannot accept a connection: ", error.message()));
  listener->retry.expires_after(std::chrono::milliseconds(100));
  listener->retry.async_wait([this, listener](const error_code& cancelled) {
    if (!cancelled) Accept(listener);
  });
}

void BeastServer::Open(Tcp::socket socket) {
  error_code ignored;
  socket.set_option(Tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  auto connection = std::make_shared<HttpConnection>(
      std::move(socket), options_,
      [this](gateway::HttpRequest request, std::shared_ptr<gateway::ResponseWriter> writer) {
        return router_.Route(std::move(request), std::move(writer));
      },
      draining_,
      [this](HttpConnection* ended) {
        MutexLock lock(&mutex_);
        connections_.erase(ended);
        if (connections_.empty()) none_open_.SignalAll();
      });
  bool full = false;
  {
    MutexLock lock(&mutex_);
    if (stopping_) return;
    full = connections_.size() >= static_cast<size_t>(options_.max_connections);
    connections_.emplace(connection.get(), connection);
  }
  if (full) {
    connection->Refuse();
  } else {
    connection->Start();
  }
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
  for (const auto& listener : listeners_) {
    asio::post(listener->acceptor.get_executor(), [raw = listener.get()] {
      error_code ignored;
      raw->acceptor.close(ignored);
      raw->retry.cancel();
    });
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
  for (const auto& listener : listeners_) {
    asio::post(listener->acceptor.get_executor(), [this] {
      for (const auto& connection : Connections()) connection->Close();
    });
  }
  work_.reset();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  router_.daemon().live_calls->WaitForNone();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const GatewayOptions& options, std::shared_ptr<grpc::Channel> channel) {
  CHECK(channel != nullptr);
  auto server = std::make_unique<BeastServer>(options, channel);
  RETURN_IF_ERROR(server->Listen());
  server->Run();
  return absl::StatusOr<std::unique_ptr<HttpServer>>(std::move(server));
}

}  // namespace fastgen
