#include "server/transport/channel_tls.h"

#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "server/transport/tls_source.h"

namespace fastgen {

namespace {

// gRPC would only say later, and for each call, that the handshake failed.
absl::StatusOr<std::string> ReadPem(const std::string& path, const std::string& flag,
                                    std::string_view what) {
  ASSIGN_OR_RETURN(std::string text, ReadPemFile(path, flag));
  if (text.find("-----BEGIN") != std::string::npos && text.find(what) != std::string::npos) {
    return text;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " ", path, ": holds no ", ToAbsl(what), " in PEM"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const ChannelTls& tls) {
  if (tls.ca.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  ASSIGN_OR_RETURN(options.pem_root_certs, ReadPem(tls.ca, "--connect-ca", "CERTIFICATE"));
  if (!tls.certificate.empty()) {
    ASSIGN_OR_RETURN(options.pem_cert_chain,
                     ReadPem(tls.certificate, "--connect-cert", "CERTIFICATE"));
    ASSIGN_OR_RETURN(options.pem_private_key, ReadPem(tls.key, "--connect-key", "PRIVATE KEY"));
  }
  return grpc::SslCredentials(options);
}

}  // namespace fastgen
