#include "server/gateway/http_acceptor.h"

#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "server/transport/listen_address.h"

namespace fastgen::gateway {
namespace asio = boost::asio;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

namespace {

constexpr char kWhat[] = "the HTTP listener";  // opens the messages about an address
constexpr mode_t kSocketMode = 0660;

std::string AddressText(const asio::generic::stream_protocol::endpoint& bound) {
  Tcp::endpoint endpoint;
  endpoint.resize(bound.size());
  std::memcpy(endpoint.data(), bound.data(), bound.size());
  const std::string host = endpoint.address().to_string();
  return endpoint.address().is_v6() ? absl::StrCat("[", host, "]:", endpoint.port())
                                    : absl::StrCat(host, ":", endpoint.port());
}

}  // namespace

HttpAcceptor::HttpAcceptor(asio::io_context* context, std::shared_ptr<TlsSource> tls)
    : context_(*context),
      tls_(std::move(tls)),
      acceptor_(asio::make_strand(context_)),
      retry_(acceptor_.get_executor()) {}

HttpAcceptor::~HttpAcceptor() {
  if (unix_path_.empty()) return;
  struct stat found = {};
  if (lstat(unix_path_.c_str(), &found) == 0 && found.st_dev == file_device_ &&
      found.st_ino == file_inode_) {
    unlink(unix_path_.c_str());
  }
}

absl::Status HttpAcceptor::Bind(const std::string& address) {
  const auto path = UnixPath(address);
  return path.has_value() ? BindUnix(*path) : BindTcp(address);
}

absl::Status HttpAcceptor::BindUnix(const std::string& path) {
  const std::string address = absl::StrCat("unix:", path);
  const absl::Status free = CheckCanListen(address, kWhat);
  if (!free.ok()) return free;
  unlink(path.c_str());  // at most what a process left behind
  const asio::local::stream_protocol::endpoint endpoint(path);
  error_code error;
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.bind(endpoint, error);
  struct stat made = {};
  if (!error && lstat(path.c_str(), &made) == 0) {
    unix_path_ = path;
    file_device_ = made.st_dev;
    file_inode_ = made.st_ino;
    // Nobody can connect before listen, so the mode is right from the first connection on.
    chmod(path.c_str(), kSocketMode);
  }
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(kWhat, " ", address, ": ", error.message()));
  }
  address_ = address;
  return absl::OkStatus();
}

absl::Status HttpAcceptor::BindTcp(const std::string& address) {
  const auto parts = SplitHostPort(address);
  if (!parts.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", address, "' is not an address: host:port or unix:/path is expected"));
  }
  error_code error;
  Tcp::resolver resolver(context_);
  const auto endpoints = resolver.resolve(parts->host, parts->port, Tcp::resolver::passive, error);
  if (error || endpoints.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", address, "' is not an address: ", error.message()));
  }
  for (const auto& entry : endpoints) {
    error_code ignored;
    acceptor_.close(ignored);  // what an earlier try has opened
    const Tcp::endpoint endpoint = entry.endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) continue;
    address_ = AddressText(acceptor_.local_endpoint());
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", error.message()));
}

void HttpAcceptor::Start(OnStream on_stream) {
  on_stream_ = std::move(on_stream);
  asio::post(executor(), [this] { Accept(); });
}

void HttpAcceptor::Close() {
  error_code ignored;
  acceptor_.close(ignored);
  retry_.cancel();
}

void HttpAcceptor::Accept() {
  if (!acceptor_.is_open()) return;
  acceptor_.async_accept(asio::make_strand(context_),
                         [this](const error_code& error, ByteStream::Socket socket) {
                           OnAccept(error, std::move(socket));
                         });
}

void HttpAcceptor::OnAccept(const error_code& error, ByteStream::Socket socket) {
  if (!acceptor_.is_open()) return;
  if (!error) {
    on_stream_(Wrap(std::move(socket)));
    Accept();
    return;
  }
  // Out of descriptors, most likely: connections wait in the backlog meanwhile.
  LogWarning(absl::StrCat("cannot accept a connection: ", error.message()));
  retry_.expires_after(std::chrono::milliseconds(100));
  retry_.async_wait([this](const error_code& cancelled) {
    if (!cancelled) Accept();
  });
}

std::unique_ptr<ByteStream> HttpAcceptor::Wrap(ByteStream::Socket socket) {
  if (!unix_path_.empty()) return MakePlainStream(std::move(socket));
  error_code ignored;
  socket.set_option(Tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  if (tls_ == nullptr) return MakePlainStream(std::move(socket));
  return MakeTlsStream(std::move(socket), *tls_->Current());
}

}  // namespace fastgen::gateway
