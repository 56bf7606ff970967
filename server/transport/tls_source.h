// TlsSource: the certificate, its key and the client CA that TLS listeners show, kept in step with
// their files.
//
// No thread and no signal: whoever begins a handshake asks Current, which looks at the files at
// most once a second and reads them when one has changed. What is read is tried as a whole first
// (the key belongs to the certificate, the CA holds certificates); a pair that is not good leaves
// the one before in force and logs one line. So two files that are replaced one after the other are
// taken when the second is there.
// Thread rule: any thread.
// Tested by tests/server/transport/tls_source_test.cc and tests/e2e/test_tls.py.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace fastgen {

// PEM files. Without a client CA clients need no certificate; with one they must show one that it
// signed.
struct TlsFiles {
  std::string certificate;  // the server's first, then those that lead to its CA
  std::string key;          // without a passphrase
  std::string client_ca;    // "": none

  bool given() const { return !certificate.empty() || !key.empty() || !client_ca.empty(); }
};

// The contents of TlsFiles, found good. Immutable.
struct TlsMaterial {
  std::string certificate;
  std::string key;
  std::string client_ca;
  int64_t generation = 0;  // another one for other contents
  // Ready for servers of HTTP/1.1: TLS 1.2 and later, no renegotiation, ALPN.
  std::shared_ptr<ssl_ctx_st> context;
};

// The whole file, for PEM texts. `flag` opens the message of INVALID_ARGUMENT.
absl::StatusOr<std::string> ReadPemFile(const std::string& path, const std::string& flag);

class TlsSource {
 public:
  // INVALID_ARGUMENT with one sentence that names the flag and the file.
  static absl::StatusOr<std::shared_ptr<TlsSource>> Open(const TlsFiles& files);

  std::shared_ptr<const TlsMaterial> Current();

 private:
  // What tells that a file was written or replaced.
  struct Stamp {
    uint64_t device = 0, inode = 0;
    int64_t seconds = 0, nanoseconds = 0, num_bytes = 0;
    bool operator==(const Stamp&) const = default;
  };

  explicit TlsSource(const TlsFiles& files) : files_(files) {}
  std::vector<Stamp> Stamps() const;
  void Reload() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const TlsFiles files_;
  Mutex mutex_;
  std::shared_ptr<const TlsMaterial> material_ ABSL_GUARDED_BY(mutex_);
  std::vector<Stamp> seen_ ABSL_GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point last_look_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fastgen
