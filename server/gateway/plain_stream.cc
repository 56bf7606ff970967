#include <boost/asio/write.hpp>
#include <utility>

#include "server/gateway/byte_stream.h"

namespace fastgen::gateway {
namespace asio = boost::asio;

namespace {

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(Socket socket) : socket_(std::move(socket)) {
    ErrorCode ignored;  // a socket that is broken already says so when it is read
    socket_.non_blocking(true, ignored);
  }

  asio::any_io_executor executor() override { return socket_.get_executor(); }
  bool needs_handshake() const override { return false; }
  void Handshake(UserPtr user) override { user->OnHandshake({}); }

  void WaitReadable(UserPtr user) override {
    socket_.async_wait(Socket::wait_read, [user = std::move(user)](const ErrorCode& error) {
      user->OnReadable(error);
    });
  }

  size_t ReadSome(char* data, size_t max_bytes, ErrorCode* error) override {
    return socket_.read_some(asio::buffer(data, max_bytes), *error);
  }

  void Write(const Pieces& pieces, UserPtr user) override {
    asio::async_write(socket_, pieces, [user = std::move(user)](const ErrorCode& error, size_t) {
      user->OnWritten(error);
    });
  }

  void EndSending() override {
    ErrorCode ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
  }

  void Close() override {
    ErrorCode ignored;
    socket_.close(ignored);
  }

 private:
  Socket socket_;
};

}  // namespace

std::unique_ptr<ByteStream> MakePlainStream(ByteStream::Socket socket) {
  return std::make_unique<PlainStream>(std::move(socket));
}

}  // namespace fastgen::gateway
