// Digest: a checksum that is fed as the bytes arrive, so that a download is checked without being
// read again.
//
// Two kinds, the ones that a hub names its files by:
//   sha256                     large files (LFS)
//   sha1("blob " size "\0" x)  small files: the object id that git gives x
// Thread rule: one thread at a time.
// Tested by tests/hub/small_parts_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace fastgen {

class Digest {
 public:
  static Digest Sha256();
  // `size_bytes`: of all the bytes that will come, as git hashes it first.
  static Digest GitBlob(int64_t size_bytes);

  void Update(std::string_view bytes);
  // The first `size_bytes` of an open file. UNAVAILABLE naming `path` when they cannot be read.
  absl::Status UpdateFromFile(int file, int64_t size_bytes, const std::string& path);
  // Lower-case hex. Call once.
  std::string Finish();

 private:
  struct Free {
    void operator()(void* context) const;
  };
  explicit Digest(void* context) : context_(context) {}
  std::unique_ptr<void, Free> context_;
};

}  // namespace fastgen
