#include "tests/testing/certificates.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <filesystem>
#include <fstream>

#include "base/check.h"

namespace fastgen::testing {
namespace {

std::shared_ptr<EVP_PKEY> NewKey() { return {EVP_EC_gen("P-256"), EVP_PKEY_free}; }

template <typename WriteTo>
std::string Pem(WriteTo write) {
  std::unique_ptr<BIO, int (*)(BIO*)> bio(BIO_new(BIO_s_mem()), BIO_free);
  CHECK(write(bio.get()) == 1) << "PEM";
  char* data = nullptr;
  const long num_bytes = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(num_bytes));
}

std::string CertificatePem(X509* x509) {
  return Pem([&](BIO* bio) { return PEM_write_bio_X509(bio, x509); });
}

void Extend(X509* x509, int what, const char* value) {
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, what, value);
  CHECK(extension != nullptr) << value;
  X509_add_ext(x509, extension, -1);
  X509_EXTENSION_free(extension);
}

// Signed by `issuer_key`; `issuer` null: by itself.
std::shared_ptr<X509> NewCertificate(const std::string& name, EVP_PKEY* key, X509* issuer,
                                     EVP_PKEY* issuer_key) {
  static int64_t serial = 1;
  std::shared_ptr<X509> x509(X509_new(), X509_free);
  X509_set_version(x509.get(), 2);
  ASN1_INTEGER_set_int64(X509_get_serialNumber(x509.get()), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(x509.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x509.get()), 24 * 3600);
  X509_set_pubkey(x509.get(), key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x509.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(x509.get(), X509_get_subject_name(issuer != nullptr ? issuer : x509.get()));
  if (issuer == nullptr) {
    Extend(x509.get(), NID_basic_constraints, "critical,CA:TRUE");
    Extend(x509.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  } else {
    Extend(x509.get(), NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost");
    Extend(x509.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  }
  CHECK(X509_sign(x509.get(), issuer_key, EVP_sha256()) > 0) << "sign";
  return x509;
}

}  // namespace

TestAuthority::TestAuthority(const std::string& name)
    : key_(NewKey()),
      x509_(NewCertificate(name, key_.get(), nullptr, key_.get())),
      certificate_(CertificatePem(x509_.get())) {}

PemPair TestAuthority::Issue(const std::string& name) const {
  const std::shared_ptr<EVP_PKEY> key = NewKey();
  const std::shared_ptr<X509> x509 = NewCertificate(name, key.get(), x509_.get(), key_.get());
  return {CertificatePem(x509.get()), Pem([&](BIO* bio) {
            return PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
          })};
}

std::string PemFolder::Put(const std::string& name, const std::string& text) const {
  const std::string path = (directory_.path() / name).string();
  std::ofstream(path + ".new") << text;
  std::filesystem::rename(path + ".new", path);
  return path;
}

TlsFiles PemFolder::Write(const PemPair& pair, const std::string& client_ca) const {
  TlsFiles files;
  files.certificate = Put("cert.pem", pair.certificate);
  files.key = Put("key.pem", pair.key);
  if (!client_ca.empty()) files.client_ca = Put("ca.pem", client_ca);
  return files;
}

}  // namespace fastgen::testing
