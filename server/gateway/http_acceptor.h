// HttpAcceptor: one address that HTTP is served on: binds it, gives its connections as ByteStreams.
//
// TCP addresses speak TLS when there is a certificate; unix sockets never do: who may open the file
// is decided by its mode (0660), and they do not leave the machine. A socket file that a process
// left behind is replaced; one that is answered is not. The file is removed with the acceptor,
// unless somebody else has put his there.
// Thread rule: Bind and the destructor from one thread while no I/O runs; the rest on the
// acceptor's strand.
// Tested by tests/server/gateway/http_server_test.cc and tests/e2e/test_http_transport.py.
#pragma once

#include <sys/types.h>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "server/gateway/byte_stream.h"
#include "server/transport/tls_source.h"

namespace fastgen::gateway {

class HttpAcceptor {
 public:
  using OnStream = std::function<void(std::unique_ptr<ByteStream>)>;

  // `tls` may be null.
  HttpAcceptor(boost::asio::io_context* context, std::shared_ptr<TlsSource> tls);
  ~HttpAcceptor();

  // INVALID_ARGUMENT: not an address; UNAVAILABLE: taken.
  absl::Status Bind(const std::string& address);
  // "host:port" or "unix:/path" as bound.
  const std::string& address() const { return address_; }

  // Accepts until Close; `on_stream` is called on the strand.
  void Start(OnStream on_stream);
  void Close();
  boost::asio::any_io_executor executor() { return acceptor_.get_executor(); }

 private:
  using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::generic::stream_protocol>;

  absl::Status BindUnix(const std::string& path);
  absl::Status BindTcp(const std::string& address);
  void Accept();
  void OnAccept(const boost::system::error_code& error, ByteStream::Socket socket);
  std::unique_ptr<ByteStream> Wrap(ByteStream::Socket socket);

  boost::asio::io_context& context_;
  const std::shared_ptr<TlsSource> tls_;
  Acceptor acceptor_;
  boost::asio::steady_timer retry_;
  std::string address_;
  OnStream on_stream_;
  std::string unix_path_;  // "": TCP
  // Of the socket file as it was made.
  dev_t file_device_ = 0;
  ino_t file_inode_ = 0;
};

}  // namespace fastgen::gateway
