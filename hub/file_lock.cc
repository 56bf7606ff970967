#include "hub/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace fastgen {
namespace {

absl::Status Failed(const std::filesystem::path& path, const char* what) {
  return absl::UnavailableError(
      absl::StrCat(path.string(), ": ", what, " (", std::strerror(errno), ")"));
}

// Whether the file that was locked still has its name: someone may have cleaned the cache
// meanwhile.
bool StillNamed(int file, const std::filesystem::path& path) {
  struct stat held, named;
  return fstat(file, &held) == 0 && stat(path.c_str(), &named) == 0 &&
         held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

int Lock(int file, int how) {
  int result;
  do {
    result = flock(file, how);
  } while (result != 0 && errno == EINTR);
  return result;
}

}  // namespace

absl::StatusOr<FileLock> FileLock::Take(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  while (true) {
    // Writable for the group, as users share a cache.
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    if (file < 0) return Failed(path, "cannot be created");
    FileLock lock(file);
    if (Lock(file, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EACCES) return Failed(path, "cannot be locked");
      LogInfo(absl::StrCat("another process fetches the same file: waiting for ", path.string()));
      if (Lock(file, LOCK_EX) != 0) return Failed(path, "cannot be locked");
    }
    if (StillNamed(file, path)) return lock;
  }
}

FileLock::~FileLock() {
  if (file_ >= 0) close(file_);
}

}  // namespace fastgen
