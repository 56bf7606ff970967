#include "server/transport/listen_address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace fastgen {
namespace {

constexpr char kUnixPrefix[] = "unix:";

// A file descriptor that closes itself.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

absl::Status Refuse(const std::string& flag, const std::string& address, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", address, ": ", why));
}

absl::Status CheckUnixPath(const std::string& path, const std::string& address,
                           const std::string& flag) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    return Refuse(flag, address,
                  absl::StrCat("a socket's path has 1 to ", sizeof(name.sun_path) - 1, " bytes"));
  }
  struct stat found = {};
  if (lstat(path.c_str(), &found) != 0) return absl::OkStatus();
  if (!S_ISSOCK(found.st_mode)) {
    return absl::UnavailableError(
        absl::StrCat(flag, " ", address, ": the path exists and is not a socket"));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  const Socket probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (probe.fd() >= 0 &&
      connect(probe.fd(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0) {
    return absl::UnavailableError(
        absl::StrCat(flag, " ", address, ": the socket is taken by another process"));
  }
  return absl::OkStatus();  // left behind by a process that is gone
}

// 0, or the errno of the attempt.
int TryBind(const addrinfo& info) {
  const Socket probe(socket(info.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (probe.fd() < 0) return errno;
  const int on = 1;
  setsockopt(probe.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  return bind(probe.fd(), info.ai_addr, info.ai_addrlen) == 0 ? 0 : errno;
}

// A name may stand for several addresses ("localhost"): one that this machine lacks is skipped, as
// gRPC does.
absl::Status TryBindAny(const addrinfo* found, const std::string& address,
                        const std::string& flag) {
  int error = EADDRNOTAVAIL;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    const int result = TryBind(*info);
    if (result == EADDRINUSE) {
      return absl::UnavailableError(
          absl::StrCat(flag, " ", address, ": the port is taken by another process"));
    }
    if (error != 0) error = result;
  }
  if (error == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(flag, " ", address, ": ", std::strerror(error)));
}

// What the host stands for; getaddrinfo's error, or 0. The caller frees `*found`.
int Resolve(const HostPort& parts, addrinfo** found) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  return getaddrinfo(parts.host.c_str(), parts.port.c_str(), &hints, found);
}

bool IsLoopback(const sockaddr* name) {
  if (name->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(name);
    return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
  }
  if (name->sa_family != AF_INET6) return false;
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6*>(name)->sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

}  // namespace

std::optional<HostPort> SplitHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  HostPort parts = {address.substr(0, colon), address.substr(colon + 1)};
  std::string& host = parts.host;
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return std::nullopt;
  }
  int number = -1;
  if (host.empty() || !absl::SimpleAtoi(parts.port, &number) || number < 0 || number > 65535) {
    return std::nullopt;
  }
  return parts;
}

std::optional<std::string> UnixPath(const std::string& address) {
  if (address.rfind(kUnixPrefix, 0) != 0) return std::nullopt;
  return address.substr(sizeof(kUnixPrefix) - 1);
}

bool IsPublicAddress(const std::string& address) {
  const auto parts = SplitHostPort(address);
  addrinfo* found = nullptr;
  if (UnixPath(address).has_value() || !parts.has_value() || Resolve(*parts, &found) != 0) {
    return false;
  }
  bool is_public = false;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    is_public = is_public || !IsLoopback(info->ai_addr);
  }
  freeaddrinfo(found);
  return is_public;
}

absl::Status CheckCanListen(const std::string& address, const std::string& flag) {
  if (const auto path = UnixPath(address)) return CheckUnixPath(*path, address, flag);
  const auto parts = SplitHostPort(address);
  if (!parts.has_value()) {
    return Refuse(flag, address, "is not host:port, [v6 address]:port or unix:/path");
  }
  addrinfo* found = nullptr;
  const int error = Resolve(*parts, &found);
  if (error != 0) return Refuse(flag, address, gai_strerror(error));
  const absl::Status status = TryBindAny(found, address, flag);
  freeaddrinfo(found);
  return status;
}

std::string WithPort(const std::string& address, int port) {
  if (address.rfind(kUnixPrefix, 0) == 0) return address;
  return absl::StrCat(address.substr(0, address.rfind(':') + 1), port);
}

std::string ToConnect(const std::string& address) {
  if (address.rfind("0.0.0.0:", 0) == 0) return absl::StrCat("127.0.0.1", address.substr(7));
  if (address.rfind("[::]:", 0) == 0) return absl::StrCat("[::1]", address.substr(4));
  return address;
}

}  // namespace fastgen
