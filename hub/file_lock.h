// FileLock: an flock on a file, held for a scope: two processes (this program, or Python's
// huggingface_hub, whose locks these are) do not fetch the same file at once. The lock file stays,
// as removing it would split its waiters.
// Thread rule: one thread; two FileLocks of one process exclude each other as well.
// Tested by tests/hub/small_parts_test.cc.
#pragma once

#include <filesystem>
#include <utility>

#include "absl/status/statusor.h"

namespace fastgen {

class FileLock {
 public:
  // Creates the file and its folders; waits while another holds it, after saying so in the log.
  // UNAVAILABLE naming the path.
  static absl::StatusOr<FileLock> Take(const std::filesystem::path& path);
  FileLock(FileLock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int file) : file_(file) {}
  int file_;
};

}  // namespace fastgen
