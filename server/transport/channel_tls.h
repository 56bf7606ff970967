// ChannelTls: how a client checks a daemon that speaks TLS, and which certificate it shows.
//
// The files are read once, when the channel is made: a client that outlives its certificate is
// started again. The names of the flags are the same in every program that connects.
// Thread rule: pure but for reading files; any thread.
// Tested by tests/server/transport/channel_tls_test.cc and tests/e2e/test_tls.py.
#pragma once

#include <grpcpp/security/credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace fastgen {

// PEM files; all empty: no TLS.
struct ChannelTls {
  std::string ca;           // --connect-ca: what the daemon's certificate is signed by
  std::string certificate;  // --connect-cert: to show a daemon that asks for one; with its key
  std::string key;          // --connect-key: without a passphrase
};

// INVALID_ARGUMENT with one sentence that names the flag and the file.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const ChannelTls& tls);

}  // namespace fastgen
