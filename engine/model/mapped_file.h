// MappedFile: a file's bytes, mapped read-only. Weights are packed straight out of the mapping, so
// that the page cache holds the only copy of the file, and pages that were packed can be dropped
// again.
//
// A file that another process shortens while it is mapped raises SIGBUS on access; weight files are
// not written in place by anything that we support, so this is left to the operating system.
// Thread rule: immutable after Open; DropPages from the loading thread.
// Tested by tests/engine/model/gguf_test.cc (empty, missing, a directory).
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace fastgen {

class MappedFile {
 public:
  // NOT_FOUND or INVALID_ARGUMENT naming the path. An empty file is refused.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::Span<const char> bytes() const { return bytes_; }

  // Lets the kernel take back the pages wholly inside `range`, a part of a mapping; a later read
  // maps them again.
  static void DropPages(absl::Span<const char> range);
  // Has the kernel begin to read `range` from the disk, ahead of its use.
  static void Prefetch(absl::Span<const char> range);

 private:
  absl::Span<const char> bytes_;
};

}  // namespace fastgen
