// Addresses to listen on: "host:port", "[v6]:port" or "unix:/path".
//
// gRPC says only that a port could not be bound, not why, and takes a unix socket away from a
// living server. So each address is tried here first, and the answer is one sentence with the
// reason.
// Thread rule: any thread.
// Tested by tests/server/transport/listen_address_test.cc.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"

namespace fastgen {

struct HostPort {
  std::string host;  // without brackets
  std::string port;  // 0 to 65535
};

// nullopt: not "host:port" or "[v6]:port".
std::optional<HostPort> SplitHostPort(const std::string& address);

// The path of "unix:/path"; nullopt for any other address.
std::optional<std::string> UnixPath(const std::string& address);

// Whether other machines may reach `address`: its host stands for an address that is not a
// loopback. False for a unix socket, and for what is no address: binding it says so.
bool IsPublicAddress(const std::string& address);

// OK when one could listen on `address` right now. INVALID_ARGUMENT: not an address; UNAVAILABLE:
// taken, or not allowed. `flag` names the option in the message.
absl::Status CheckCanListen(const std::string& address, const std::string& flag);

// `address` with its port replaced by the one that was bound; a unix address as it is.
std::string WithPort(const std::string& address, int port);

// Where a client on this machine connects to: a wildcard host becomes the loopback.
std::string ToConnect(const std::string& address);

}  // namespace fastgen
