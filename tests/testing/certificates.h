// TestAuthority: a certificate authority made on the spot, for tests of TLS.
//
//   TestAuthority authority("ours");
//   const TlsFiles files = folder.Write(authority.Issue("server"), authority.certificate());
// Thread rule: one thread at a time.
#pragma once

#include <memory>
#include <string>

#include "server/transport/tls_source.h"
#include "tests/testing/temporary_directory.h"

struct evp_pkey_st;
struct x509_st;

namespace fastgen::testing {

struct PemPair {
  std::string certificate;
  std::string key;
};

class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name);

  // PEM.
  const std::string& certificate() const { return certificate_; }
  // For 127.0.0.1 and localhost, good for servers and clients.
  PemPair Issue(const std::string& name) const;

 private:
  std::shared_ptr<evp_pkey_st> key_;
  std::shared_ptr<x509_st> x509_;
  std::string certificate_;
};

// A folder for PEM files that is removed at the end.
class PemFolder {
 public:
  // Replaces cert.pem and key.pem, and ca.pem when there is a `client_ca`.
  TlsFiles Write(const PemPair& pair, const std::string& client_ca = "") const;
  // Replaces one file as tools do: a new one is renamed over it. Its path.
  std::string Put(const std::string& name, const std::string& text) const;
  std::string path() const { return directory_.path().string(); }

 private:
  TemporaryDirectory directory_;
};

}  // namespace fastgen::testing
