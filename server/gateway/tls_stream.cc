// TLS by OpenSSL directly over the non-blocking socket, not by asio::ssl: that keeps four buffers
// of 17 KB for every connection, where OpenSSL alone gives its own back as soon as nothing is under
// way. The socket is reached through a BIO of our own, because OpenSSL's raises SIGPIPE.
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/sslerr.h>
#include <sys/socket.h>

#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "server/gateway/byte_stream.h"

namespace fastgen::gateway {
namespace asio = boost::asio;

namespace {

// Of the buffer for one write; what one large answer has grown is given back.
constexpr size_t kMaxKeptBytes = 16 << 10;

constexpr std::string_view kSpokePlain =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    R"({"error":{"message":"this port speaks HTTPS","type":"invalid_request_error","param":null,)"
    R"("code":"https_required"}})";

int Descriptor(BIO* bio) { return static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio))); }

int SocketWrite(BIO* bio, const char* data, int num_bytes) {
  BIO_clear_retry_flags(bio);
  const ssize_t sent = send(Descriptor(bio), data, static_cast<size_t>(num_bytes), MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}

int SocketRead(BIO* bio, char* data, int max_bytes) {
  BIO_clear_retry_flags(bio);
  const ssize_t got = recv(Descriptor(bio), data, static_cast<size_t>(max_bytes), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  return static_cast<int>(got);
}

long SocketControl(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

BIO_METHOD* SocketMethod() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "fastgen socket");
    BIO_meth_set_write(made, SocketWrite);
    BIO_meth_set_read(made, SocketRead);
    BIO_meth_set_ctrl(made, SocketControl);
    return made;
  }();
  return method;
}

class TlsStream final : public ByteStream {
 public:
  TlsStream(Socket socket, const TlsMaterial& material)
      : socket_(std::move(socket)), ssl_(SSL_new(material.context.get())) {
    CHECK(ssl_ != nullptr) << "out of memory";
    ErrorCode ignored;
    socket_.non_blocking(true, ignored);
    BIO* bio = BIO_new(SocketMethod());
    BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(socket_.native_handle())));
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl_, bio, bio);
    SSL_set_accept_state(ssl_);
  }
  ~TlsStream() override { SSL_free(ssl_); }

  asio::any_io_executor executor() override { return socket_.get_executor(); }
  bool needs_handshake() const override { return true; }

  void Handshake(UserPtr user) override;
  void WaitReadable(UserPtr user) override;
  size_t ReadSome(char* data, size_t max_bytes, ErrorCode* error) override;
  void Write(const Pieces& pieces, UserPtr user) override;
  void EndSending() override;
  void Close() override {
    ErrorCode ignored;
    socket_.close(ignored);
  }

 private:
  // What the latest call on `ssl_`, which gave `result`, waits for; an error that is not waiting
  // goes to `*error`.
  enum class Wants { kRead, kWrite, kNothing };
  Wants After(int result, ErrorCode* error);
  void Push(UserPtr user);
  void AnswerPlain();

  Socket socket_;
  SSL* const ssl_;
  bool ready_ = false;             // the handshake is done and nothing fatal came since
  bool read_wants_write_ = false;  // a new key of the client's must be answered first
  std::string out_;                // of the outstanding write
  size_t num_pushed_ = 0;
};

TlsStream::Wants TlsStream::After(int result, ErrorCode* error) {
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
      return Wants::kRead;
    case SSL_ERROR_WANT_WRITE:
      return Wants::kWrite;
    case SSL_ERROR_ZERO_RETURN:
      *error = asio::error::eof;
      return Wants::kNothing;
    default:
      ready_ = false;
      *error = asio::error::connection_reset;
      return Wants::kNothing;
  }
}

void TlsStream::Handshake(UserPtr user) {
  ERR_clear_error();
  const int result = SSL_accept(ssl_);
  if (result == 1) {
    ready_ = true;
    asio::post(executor(), [user = std::move(user)] { user->OnHandshake({}); });
    return;
  }
  ErrorCode failed;
  const Wants wants = After(result, &failed);
  if (wants == Wants::kNothing) {
    if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST) AnswerPlain();
    ERR_clear_error();
    user->OnHandshake(failed);
    return;
  }
  socket_.async_wait(wants == Wants::kRead ? Socket::wait_read : Socket::wait_write,
                     [this, user = std::move(user)](const ErrorCode& error) mutable {
                       if (error) {
                         user->OnHandshake(error);
                       } else {
                         Handshake(std::move(user));
                       }
                     });
}

// What the client has sent is taken first, or closing would reset the connection and lose the
// answer.
void TlsStream::AnswerPlain() {
  char dropped[4096];
  while (recv(socket_.native_handle(), dropped, sizeof(dropped), 0) > 0) {
  }
  // All of it fits the socket's empty buffer, and a client that is gone needs none.
  [[maybe_unused]] const ssize_t sent =
      send(socket_.native_handle(), kSpokePlain.data(), kSpokePlain.size(), MSG_NOSIGNAL);
}

void TlsStream::WaitReadable(UserPtr user) {
  if (SSL_pending(ssl_) > 0) {  // the rest of a record, which the socket does not tell of
    asio::post(executor(), [user = std::move(user)] { user->OnReadable({}); });
    return;
  }
  socket_.async_wait(read_wants_write_ ? Socket::wait_write : Socket::wait_read,
                     [user = std::move(user)](const ErrorCode& error) { user->OnReadable(error); });
}

size_t TlsStream::ReadSome(char* data, size_t max_bytes, ErrorCode* error) {
  ERR_clear_error();
  size_t num_bytes = 0;
  // A record holds 16 KB at most; a large body takes several.
  while (num_bytes < max_bytes) {
    size_t got = 0;
    const int result = SSL_read_ex(ssl_, data + num_bytes, max_bytes - num_bytes, &got);
    num_bytes += got;
    if (result == 1) continue;
    ErrorCode failed;
    const Wants wants = After(result, &failed);
    read_wants_write_ = wants == Wants::kWrite;
    if (num_bytes > 0) break;  // an end that follows is found again by the next read
    *error = wants == Wants::kNothing ? failed : ErrorCode(asio::error::would_block);
    break;
  }
  return num_bytes;
}

void TlsStream::Write(const Pieces& pieces, UserPtr user) {
  // Together, so that a small answer is one record.
  for (const asio::const_buffer& piece : pieces) {
    out_.append(static_cast<const char*>(piece.data()), piece.size());
  }
  num_pushed_ = 0;
  Push(std::move(user));
}

void TlsStream::Push(UserPtr user) {
  ERR_clear_error();
  ErrorCode failed;
  while (num_pushed_ < out_.size() && !failed) {
    size_t num_bytes = 0;
    const int result =
        SSL_write_ex(ssl_, out_.data() + num_pushed_, out_.size() - num_pushed_, &num_bytes);
    num_pushed_ += num_bytes;
    if (result == 1) continue;
    const Wants wants = After(result, &failed);
    if (wants == Wants::kNothing) break;
    socket_.async_wait(wants == Wants::kRead ? Socket::wait_read : Socket::wait_write,
                       [this, user = std::move(user)](const ErrorCode& error) mutable {
                         if (error) {
                           user->OnWritten(error);
                         } else {
                           Push(std::move(user));
                         }
                       });
    return;
  }
  out_.clear();
  if (out_.capacity() > kMaxKeptBytes) out_.shrink_to_fit();
  asio::post(executor(), [user = std::move(user), failed] { user->OnWritten(failed); });
}

void TlsStream::EndSending() {
  ERR_clear_error();
  // A close_notify that finds no room is lost with the connection.
  if (ready_) SSL_shutdown(ssl_);
  ErrorCode ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
}

}  // namespace

std::unique_ptr<ByteStream> MakeTlsStream(ByteStream::Socket socket, const TlsMaterial& material) {
  return std::make_unique<TlsStream>(std::move(socket), material);
}

}  // namespace fastgen::gateway
