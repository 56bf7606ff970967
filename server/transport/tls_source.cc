#include "server/transport/tls_source.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {
namespace {

constexpr std::chrono::seconds kLookInterval(1);
constexpr size_t kMaxPemBytes = 4 << 20;  // a system's whole bundle of CAs has a quarter of that

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct FreeCertificate {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;
using Key = std::unique_ptr<EVP_PKEY, FreeKey>;
using Certificate = std::unique_ptr<X509, FreeCertificate>;

// OpenSSL would ask the terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

Bio Reader(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// Takes OpenSSL's reason off its queue.
std::string Reason() {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = ERR_reason_error_string(code);
  ERR_clear_error();
  return reason != nullptr ? reason : "no reason given";
}

absl::Status Refuse(const std::string& flag, const std::string& path, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": ", why));
}

// All certificates of a PEM text, in its order; what else it holds is passed over.
std::vector<Certificate> Certificates(const std::string& pem) {
  std::vector<Certificate> found;
  const Bio bio = Reader(pem);
  while (X509* one = PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr)) {
    found.emplace_back(one);
  }
  ERR_clear_error();  // the end of the text counts as an error
  return found;
}

// Chooses HTTP/1.1 from what the client offers; a client that offers other protocols only is
// refused.
int ChooseProtocol(SSL*, const unsigned char** chosen, unsigned char* num_bytes,
                   const unsigned char* offered, unsigned num_offered_bytes, void*) {
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  unsigned char* match = nullptr;
  if (SSL_select_next_proto(&match, num_bytes, kHttp11, sizeof(kHttp11) - 1, offered,
                            num_offered_bytes) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *chosen = match;
  return SSL_TLSEXT_ERR_OK;
}

std::shared_ptr<SSL_CTX> NewContext() {
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                         SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Sessions are resumed by tickets, which this side need not remember.
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  static constexpr unsigned char kSessionContext[] = "fastgen";
  SSL_CTX_set_session_id_context(context.get(), kSessionContext, sizeof(kSessionContext) - 1);
  SSL_CTX_set_alpn_select_cb(context.get(), ChooseProtocol, nullptr);
  return context;
}

absl::Status UsePair(const TlsFiles& files, const TlsMaterial& material, SSL_CTX* context) {
  const std::vector<Certificate> chain = Certificates(material.certificate);
  if (chain.empty()) return Refuse("--tls-cert", files.certificate, "holds no PEM certificate");
  if (SSL_CTX_use_certificate(context, chain[0].get()) != 1) {
    return Refuse("--tls-cert", files.certificate, Reason());
  }
  for (size_t i = 1; i < chain.size(); ++i) SSL_CTX_add1_chain_cert(context, chain[i].get());
  const Bio bio = Reader(material.key);
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) {
    ERR_clear_error();
    return Refuse("--tls-key", files.key, "holds no PEM private key without a passphrase");
  }
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return Refuse("--tls-key", files.key,
                  absl::StrCat("is not the key of the certificate in ", files.certificate, " (",
                               Reason(), ")"));
  }
  return absl::OkStatus();
}

absl::Status UseClientCa(const TlsFiles& files, const TlsMaterial& material, SSL_CTX* context) {
  if (files.client_ca.empty()) return absl::OkStatus();
  const std::vector<Certificate> authorities = Certificates(material.client_ca);
  if (authorities.empty()) {
    return Refuse("--tls-client-ca", files.client_ca, "holds no PEM certificate");
  }
  for (const Certificate& authority : authorities) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority.get());
    SSL_CTX_add_client_CA(context, authority.get());
  }
  ERR_clear_error();  // one that is there twice
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return absl::OkStatus();
}

absl::StatusOr<TlsMaterial> Load(const TlsFiles& files) {
  TlsMaterial material;
  ASSIGN_OR_RETURN(material.certificate, ReadPemFile(files.certificate, "--tls-cert"));
  ASSIGN_OR_RETURN(material.key, ReadPemFile(files.key, "--tls-key"));
  if (!files.client_ca.empty()) {
    ASSIGN_OR_RETURN(material.client_ca, ReadPemFile(files.client_ca, "--tls-client-ca"));
  }
  material.context = NewContext();
  RETURN_IF_ERROR(UsePair(files, material, material.context.get()));
  RETURN_IF_ERROR(UseClientCa(files, material, material.context.get()));
  return material;
}

}  // namespace

absl::StatusOr<std::string> ReadPemFile(const std::string& path, const std::string& flag) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Refuse(flag, path, std::strerror(errno));
  std::string text(kMaxPemBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return Refuse(flag, path, "cannot be read");
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxPemBytes) {
    return Refuse(flag, path, absl::StrCat("is larger than ", kMaxPemBytes, " bytes"));
  }
  text.shrink_to_fit();
  return text;
}

absl::StatusOr<std::shared_ptr<TlsSource>> TlsSource::Open(const TlsFiles& files) {
  if (files.certificate.empty() || files.key.empty()) {
    return absl::InvalidArgumentError("TLS needs both --tls-cert and --tls-key");
  }
  std::shared_ptr<TlsSource> source(new TlsSource(files));
  MutexLock lock(&source->mutex_);
  source->seen_ = source->Stamps();
  source->last_look_ = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(TlsMaterial material, Load(files));
  source->material_ = std::make_shared<const TlsMaterial>(std::move(material));
  return source;
}

std::shared_ptr<const TlsMaterial> TlsSource::Current() {
  const auto now = std::chrono::steady_clock::now();
  MutexLock lock(&mutex_);
  if (now - last_look_ >= kLookInterval) {
    last_look_ = now;
    // Before the files are read: what changes meanwhile is seen the next time.
    std::vector<Stamp> stamps = Stamps();
    if (stamps != seen_) {
      seen_ = std::move(stamps);
      Reload();
    }
  }
  return material_;
}

std::vector<TlsSource::Stamp> TlsSource::Stamps() const {
  std::vector<Stamp> stamps;
  for (const std::string* path : {&files_.certificate, &files_.key, &files_.client_ca}) {
    struct stat found = {};
    if (path->empty() || stat(path->c_str(), &found) != 0) {
      stamps.emplace_back();
      continue;
    }
    stamps.push_back(
        {found.st_dev, found.st_ino, found.st_mtim.tv_sec, found.st_mtim.tv_nsec, found.st_size});
  }
  return stamps;
}

void TlsSource::Reload() {
  auto loaded = Load(files_);
  if (!loaded.ok()) {
    LogWarning(FromAbsl(
        absl::StrCat("TLS goes on with the certificate that it has: ", loaded.status().message())));
    return;
  }
  if (loaded->certificate == material_->certificate && loaded->key == material_->key &&
      loaded->client_ca == material_->client_ca) {
    return;
  }
  loaded->generation = material_->generation + 1;
  material_ = std::make_shared<const TlsMaterial>(*std::move(loaded));
  LogInfo(FromAbsl(absl::StrCat("TLS took the new certificate from ", files_.certificate)));
}

}  // namespace fastgen
