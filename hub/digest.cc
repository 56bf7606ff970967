#include "hub/digest.h"

#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/strings.h"

namespace fastgen {
namespace {

constexpr int64_t kReadBytes = 1 << 20;

EVP_MD_CTX* NewContext(const EVP_MD* kind) {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  CHECK(context != nullptr && EVP_DigestInit_ex(context, kind, nullptr) == 1) << "libcrypto";
  return context;
}

}  // namespace

void Digest::Free::operator()(void* context) const {
  EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context));
}

Digest Digest::Sha256() { return Digest(NewContext(EVP_sha256())); }

Digest Digest::GitBlob(int64_t size_bytes) {
  Digest digest(NewContext(EVP_sha1()));
  digest.Update(absl::StrCat("blob ", size_bytes));
  digest.Update(std::string_view("\0", 1));
  return digest;
}

void Digest::Update(std::string_view bytes) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_.get()), bytes.data(), bytes.size());
}

absl::Status Digest::UpdateFromFile(int file, int64_t size_bytes, const std::string& path) {
  std::vector<char> piece(std::min(kReadBytes, size_bytes));
  for (int64_t at = 0; at < size_bytes;) {
    const ssize_t got = pread(file, piece.data(), std::min(kReadBytes, size_bytes - at), at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return absl::UnavailableError(absl::StrCat(path, ": read error at byte ", at));
    Update(std::string_view(piece.data(), got));
    at += got;
  }
  return absl::OkStatus();
}

std::string Digest::Finish() {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_.get()), hash, &length);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(hash), length));
}

}  // namespace fastgen
