// TLS for gRPC listeners, from a TlsSource: each new connection is shown the certificate that is in
// force then.
//
// gRPC's own file watcher drops the old certificate before it has tried the new one (1.51), so a
// bad pair would end all handshakes; here a pair is tried by TlsSource, and gRPC asks for it at
// every handshake.
// Ownership: the credentials must outlive the servers built with them.
// Thread rule: any thread.
// Tested by tests/server/tls_listener_test.cc and tests/e2e/test_tls.py.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/transport/tls_source.h"

namespace fastgen {

// For one address: two need two.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(std::shared_ptr<TlsSource> source);

}  // namespace fastgen
