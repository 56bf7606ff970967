#include "hub/download.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "hub/file_lock.h"
#include "hub/hub_cache.h"
#include "hub/hub_client.h"
#include "hub/hub_listing.h"

namespace fastgen {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kReportEvery = absl::Milliseconds(100);
constexpr size_t kGitIdDigits = 40;
constexpr size_t kSha256Digits = 64;

struct WantedFile {
  HubFile file;
  FileMetadata metadata;
};

std::string InMib(int64_t bytes) {
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}

// The sha256 or git object id that an etag is; "" of an etag that is something else.
std::string ChecksumIn(const std::string& etag) {
  const bool is_checksum = (etag.size() == kGitIdDigits || etag.size() == kSha256Digits) &&
                           std::all_of(etag.begin(), etag.end(), [](char c) {
                             return absl::ascii_isxdigit(static_cast<unsigned char>(c));
                           });
  return is_checksum ? absl::AsciiStrToLower(etag) : "";
}

// One model's download: what is the same for all its files.
class ModelDownload {
 public:
  ModelDownload(const HubId& id, const HubSettings& settings, const DownloadOptions& options,
                const DownloadProgress& progress)
      : id_(id),
        settings_(settings),
        options_(options),
        progress_(progress),
        cache_(settings.cache, id.repo),
        client_(settings, options.http, options.ranges.retry) {}

  absl::StatusOr<std::string> Run();

 private:
  absl::StatusOr<std::string> FromCacheAlone(const absl::StatusOr<std::string>& cached);
  absl::StatusOr<std::string> Update(const HubListing& listing);
  absl::StatusOr<std::vector<WantedFile>> Missing(const HubListing& listing,
                                                  const std::vector<std::string>& names);
  absl::Status CheckSpace(const std::vector<WantedFile>& wanted) const;
  absl::Status FetchAll(const std::string& commit, const std::vector<WantedFile>& wanted);
  absl::Status Fetch(const std::string& commit, const WantedFile& wanted);
  absl::Status FetchBlob(const std::string& commit, const WantedFile& wanted);
  // DATA_LOSS when the checksum is not the one announced.
  absl::Status FetchOnce(const std::string& commit, const WantedFile& wanted);
  bool HasBlob(const FileMetadata& metadata) const;
  void Report(int64_t bytes_of_current);

  const HubId& id_;
  const HubSettings& settings_;
  const DownloadOptions& options_;
  const DownloadProgress& progress_;
  const HubCache cache_;
  HubClient client_;
  int64_t done_bytes_ = 0;  // of the files before the current one
  int64_t total_bytes_ = 0;
  absl::Time last_report_ = absl::InfinitePast();
};

absl::StatusOr<std::string> ModelDownload::Run() {
  const std::optional<std::string> commit = cache_.CommitOf(id_.revision);
  const absl::StatusOr<std::string> cached =
      commit.has_value() ? cache_.Find(id_, *commit)
                         : absl::StatusOr<std::string>(absl::NotFoundError(""));
  if (settings_.is_offline) return FromCacheAlone(cached);
  if (cached.ok() && IsCommit(id_.revision)) return *cached;
  RetryPolicy retry = options_.ranges.retry;
  if (cached.ok()) retry.max_attempts = 1;
  const absl::StatusOr<HubListing> listing = client_.List(id_, retry);
  if (listing.ok()) return Update(*listing);
  if (!cached.ok()) {
    if (!absl::IsUnavailable(listing.status())) return listing.status();
    return absl::UnavailableError(absl::StrCat(
        listing.status().message(),
        ", and the model is not in the cache: check the network, the proxy and HF_ENDPOINT"));
  }
  LogWarning(
      absl::StrCat(listing.status().message(), ": using the copy in the cache, commit ", *commit));
  return *cached;
}

absl::StatusOr<std::string> ModelDownload::FromCacheAlone(
    const absl::StatusOr<std::string>& cached) {
  if (cached.ok()) {
    LogInfo(absl::StrCat(id_.repo, ": HF_HUB_OFFLINE is set: using the copy in the cache"));
    return cached;
  }
  if (absl::IsInvalidArgument(cached.status())) return cached;
  return absl::NotFoundError(absl::StrCat(id_.repo, id_.file.empty() ? "" : ":", id_.file,
                                          ": revision ", id_.revision,
                                          " is not whole in the cache ", settings_.cache.string(),
                                          ", and HF_HUB_OFFLINE forbids to fetch it"));
}

absl::StatusOr<std::string> ModelDownload::Update(const HubListing& listing) {
  std::vector<std::string> names;
  for (const HubFile& file : listing.files) names.push_back(file.name);
  ASSIGN_OR_RETURN(const std::vector<std::string> chosen, ChooseFiles(id_.repo, id_.file, names));
  ASSIGN_OR_RETURN(const std::vector<WantedFile> wanted, Missing(listing, chosen));
  if (!wanted.empty()) {
    RETURN_IF_ERROR(cache_.Prepare());
    RETURN_IF_ERROR(CheckSpace(wanted));
    RETURN_IF_ERROR(FetchAll(listing.commit, wanted));
  }
  // Last: until now the revision leads to a copy that was whole.
  const absl::Status named = cache_.SetCommit(id_.revision, listing.commit);
  if (!named.ok()) LogWarning(FromAbsl(named.message()));  // a cache that may only be read
  const fs::path folder = cache_.Snapshot(listing.commit);
  const bool is_gguf = chosen.size() == 1 && absl::EndsWith(chosen[0], ".gguf");
  return is_gguf ? (folder / chosen[0]).string() : folder.string();
}

absl::StatusOr<std::vector<WantedFile>> ModelDownload::Missing(
    const HubListing& listing, const std::vector<std::string>& names) {
  std::vector<WantedFile> wanted;
  for (const std::string& name : names) {
    if (cache_.HasFile(listing.commit, name)) continue;
    const auto file = std::find_if(listing.files.begin(), listing.files.end(),
                                   [&](const HubFile& listed) { return listed.name == name; });
    ASSIGN_OR_RETURN(const FileMetadata metadata, client_.Metadata(id_, listing.commit, *file));
    wanted.push_back({*file, metadata});
  }
  return wanted;
}

absl::Status ModelDownload::CheckSpace(const std::vector<WantedFile>& wanted) const {
  double missing = 0;  // not an integer: what a hub announces may sum up to anything
  for (const WantedFile& one : wanted) {
    if (HasBlob(one.metadata)) continue;
    std::error_code error;
    const auto there = fs::file_size(cache_.Incomplete(one.metadata.etag), error);
    missing +=
        static_cast<double>(one.metadata.size_bytes) - (error ? 0 : static_cast<double>(there));
  }
  struct statvfs disk;
  if (statvfs(settings_.cache.c_str(), &disk) != 0) return absl::OkStatus();
  const double free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  if (missing <= free) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrFormat("%s: %.1f MiB must be fetched, and %s has %.1f MiB free: make room, or set "
                      "HF_HUB_CACHE to another disk",
                      id_.repo, missing / (1 << 20), settings_.cache.string(), free / (1 << 20)));
}

absl::Status ModelDownload::FetchAll(const std::string& commit,
                                     const std::vector<WantedFile>& wanted) {
  for (const WantedFile& one : wanted) total_bytes_ += one.metadata.size_bytes;
  LogInfo(absl::StrCat("fetching ", id_.repo, " from ", HostOf(settings_.endpoint), ": ",
                       wanted.size(), " files, ", InMib(total_bytes_)));
  for (const WantedFile& one : wanted) {
    RETURN_IF_ERROR(Fetch(commit, one));
    done_bytes_ += one.metadata.size_bytes;
    Report(0);
  }
  last_report_ = absl::InfinitePast();
  Report(0);
  return absl::OkStatus();
}

absl::Status ModelDownload::Fetch(const std::string& commit, const WantedFile& wanted) {
  ASSIGN_OR_RETURN(const FileLock lock, FileLock::Take(cache_.Lock(wanted.metadata.etag)));
  // Whoever held the lock before may have fetched it.
  if (!HasBlob(wanted.metadata)) RETURN_IF_ERROR(FetchBlob(commit, wanted));
  return cache_.Link(commit, wanted.file.name, wanted.metadata.etag);
}

absl::Status ModelDownload::FetchBlob(const std::string& commit, const WantedFile& wanted) {
  const fs::path incomplete = cache_.Incomplete(wanted.metadata.etag);
  absl::Status status = FetchOnce(commit, wanted);
  std::error_code error;
  if (absl::IsDataLoss(status)) {
    LogWarning(absl::StrCat(status.message(), "; fetching it once more"));
    fs::remove(incomplete, error);
    status = FetchOnce(commit, wanted);
  }
  if (absl::IsDataLoss(status)) fs::remove(incomplete, error);
  RETURN_IF_ERROR(status);
  fs::rename(incomplete, cache_.Blob(wanted.metadata.etag), error);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(incomplete.string(), ": cannot be renamed (", error.message(), ")"));
}

absl::Status ModelDownload::FetchOnce(const std::string& commit, const WantedFile& wanted) {
  RangedFile file;
  file.label = absl::StrCat(id_.repo, "/", wanted.file.name);
  file.url = client_.FileUrl(id_, commit, wanted.file.name);
  file.token = settings_.token;
  file.size_bytes = wanted.metadata.size_bytes;
  file.path = cache_.Incomplete(wanted.metadata.etag).string();
  // A small file's etag is its git object id, unless the list told a sha256.
  const std::string expected =
      !wanted.file.sha256.empty() ? wanted.file.sha256 : ChecksumIn(wanted.metadata.etag);
  const bool is_git = expected.size() == kGitIdDigits;
  if (expected.empty()) {
    LogWarning(absl::StrCat(file.label, ": the hub announces no checksum: cannot be verified"));
    std::error_code error;  // what is left of another time may be of another file
    fs::remove(file.path, error);
  }
  const auto new_digest = [&] {
    return is_git ? Digest::GitBlob(file.size_bytes) : Digest::Sha256();
  };
  ASSIGN_OR_RETURN(const std::string checksum,
                   DownloadRanges(client_.http(), file, options_.ranges, new_digest,
                                  [this](int64_t num_bytes) { Report(num_bytes); }));
  if (expected.empty() || checksum == expected) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(file.label, ": the checksum of what was fetched is ",
                                          checksum, ", the hub announced ", expected));
}

bool ModelDownload::HasBlob(const FileMetadata& metadata) const {
  std::error_code error;
  const auto size = fs::file_size(cache_.Blob(metadata.etag), error);
  return !error && static_cast<int64_t>(size) == metadata.size_bytes;
}

void ModelDownload::Report(int64_t bytes_of_current) {
  const absl::Time now = absl::Now();
  if (!progress_ || now - last_report_ < kReportEvery) return;
  last_report_ = now;
  progress_(done_bytes_ + bytes_of_current, total_bytes_);
}

}  // namespace

absl::StatusOr<std::string> FetchModel(const HubId& id, const HubSettings& settings,
                                       const DownloadOptions& options,
                                       const DownloadProgress& progress) {
  return ModelDownload(id, settings, options, progress).Run();
}

}  // namespace fastgen
