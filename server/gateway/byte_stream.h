// ByteStream: one accepted connection as HttpConnection sees it: TCP and unix sockets as they are,
// or TLS over TCP.
//
// Reading is in two steps, "tell me when there is something" and "give me what there is", so that a
// connection which waits holds no buffer. Writing is one step; the bytes stay the caller's until
// OnWritten.
// Invariants: 1. at most one WaitReadable and one Write are outstanding; 2. a User is never called
// from inside a call to the stream, except by Handshake for an error; 3. after Close every
// outstanding call ends with an error.
// Thread rule: the executor, which is a strand.
// Tested by tests/server/gateway/http_server_test.cc and http_tls_test.cc.
#pragma once

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <memory>

#include "server/transport/tls_source.h"

namespace fastgen::gateway {

class ByteStream {
 public:
  using ErrorCode = boost::system::error_code;
  using Socket = boost::asio::generic::stream_protocol::socket;
  using Pieces = std::array<boost::asio::const_buffer, 3>;

  class User {
   public:
    virtual ~User() = default;
    virtual void OnHandshake(const ErrorCode& error) = 0;
    virtual void OnReadable(const ErrorCode& error) = 0;
    virtual void OnWritten(const ErrorCode& error) = 0;
  };
  using UserPtr = std::shared_ptr<User>;

  virtual ~ByteStream() = default;
  virtual boost::asio::any_io_executor executor() = 0;
  // Whether Handshake comes before anything else.
  virtual bool needs_handshake() const = 0;
  virtual void Handshake(UserPtr user) = 0;
  virtual void WaitReadable(UserPtr user) = 0;
  // Bytes that are there, at most `max_bytes`; would_block when there are none, eof at the end.
  virtual size_t ReadSome(char* data, size_t max_bytes, ErrorCode* error) = 0;
  virtual void Write(const Pieces& pieces, UserPtr user) = 0;
  // Says that no more will be written; reading goes on.
  virtual void EndSending() = 0;
  virtual void Close() = 0;
};

std::unique_ptr<ByteStream> MakePlainStream(ByteStream::Socket socket);
std::unique_ptr<ByteStream> MakeTlsStream(ByteStream::Socket socket, const TlsMaterial& material);

}  // namespace fastgen::gateway
