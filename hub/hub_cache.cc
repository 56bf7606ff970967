#include "hub/hub_cache.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "hub/hub_listing.h"

namespace fastgen {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxCachedFiles = 100'000;
constexpr int kMaxDrafts = 1000;

absl::Status Failed(const fs::path& path, const char* what, const std::error_code& error) {
  return absl::UnavailableError(absl::StrCat(path.string(), ": ", what, " (", error.message(),
                                             "): set HF_HUB_CACHE to a writable folder"));
}

std::optional<std::string> ReadFile(const fs::path& path, int64_t max_bytes) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error || static_cast<int64_t>(size) > max_bytes) return std::nullopt;
  std::string text(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) return std::nullopt;
  return text;
}

// Relative names of the files below `folder` whose bytes are there.
std::vector<std::string> FilesBelow(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (fs::is_regular_file(entry->path(), ignored)) {
      names.push_back(entry->path().lexically_relative(folder).generic_string());
    }
    if (names.size() >= kMaxCachedFiles) break;
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// How many shards "model-00001-of-00003.safetensors" says there are; 1 for other names.
int NumShards(absl::string_view name) {
  const size_t of = name.rfind("-of-");
  int count = 0;
  if (of == absl::string_view::npos || !absl::ConsumeSuffix(&name, ".safetensors") ||
      !absl::SimpleAtoi(name.substr(of + 4), &count)) {
    return 1;
  }
  return count;
}

// Whether a folder that was perhaps left half done has the weights and a tokenizer. A download of
// ours fetches the weights last; huggingface_hub fetches in any order.
bool IsWhole(const fs::path& folder, const std::vector<std::string>& chosen) {
  bool has_tokenizer = false;
  int num_weights = 0, num_shards = 1;
  for (const std::string& name : chosen) {
    has_tokenizer |=
        absl::StartsWith(name, "tokenizer.") || name == "tekken.json" || name == "vocab.json";
    if (absl::EndsWith(name, ".safetensors")) {
      ++num_weights;
      num_shards = std::max(num_shards, NumShards(name));
    }
    if (!absl::EndsWith(name, ".safetensors.index.json")) continue;
    const auto text = ReadFile(folder / name, kMaxListingBytes);
    const auto shards = ParseShardIndex(text.value_or(""));
    if (!shards.ok()) return false;
    if (!std::all_of(shards->begin(), shards->end(),
                     [&](const auto& shard) { return Contains(chosen, shard); })) {
      return false;
    }
  }
  return has_tokenizer && num_weights >= num_shards;
}

// A symlink to `target` under a name in `folder` that nobody else has, to be renamed; nullopt where
// none can be made. Processes of several containers may share a cache, and their numbers.
std::optional<fs::path> DraftLink(const fs::path& target, const fs::path& folder) {
  static std::atomic<int> num_drafts = 0;
  std::error_code error = std::make_error_code(std::errc::file_exists);
  for (int i = 0; i < kMaxDrafts && error == std::errc::file_exists; ++i) {
    const fs::path draft = folder / absl::StrCat(".link-", getpid(), "-", ++num_drafts, ".tmp");
    fs::create_symlink(target, draft, error);
    if (!error) return draft;
  }
  return std::nullopt;
}

}  // namespace

HubCache::HubCache(const fs::path& cache, const std::string& repo)
    : cache_(cache),
      name_(absl::StrCat("models--", absl::StrReplaceAll(repo, {{"/", "--"}}))),
      folder_(cache / name_) {}

fs::path HubCache::Lock(const std::string& etag) const {
  return cache_ / ".locks" / name_ / (etag + ".lock");
}

std::optional<std::string> HubCache::CommitOf(const std::string& revision) const {
  if (IsCommit(revision)) return revision;
  constexpr int64_t kMaxRefBytes = 128;
  const auto text = ReadFile(folder_ / "refs" / revision, kMaxRefBytes);
  if (!text.has_value()) return std::nullopt;
  const std::string commit(absl::StripAsciiWhitespace(*text));
  if (!IsCommit(commit)) return std::nullopt;
  return commit;
}

absl::Status HubCache::SetCommit(const std::string& revision, const std::string& commit) const {
  if (revision == commit || CommitOf(revision) == commit) return absl::OkStatus();
  const fs::path ref = folder_ / "refs" / revision;
  fs::path draft = ref;
  draft += absl::StrCat(".", getpid(), ".tmp");
  std::error_code error;
  fs::create_directories(ref.parent_path(), error);
  std::ofstream file(draft, std::ios::binary);
  file << commit;
  file.close();
  fs::rename(draft, ref, error);
  if (file.fail() || error) return Failed(ref, "cannot be written", error);
  return absl::OkStatus();
}

absl::Status HubCache::Prepare() const {
  for (const char* part : {"blobs", "snapshots", "refs"}) {
    std::error_code error;
    fs::create_directories(folder_ / part, error);
    if (error) return Failed(folder_ / part, "cannot be created", error);
  }
  return absl::OkStatus();
}

bool HubCache::HasFile(const std::string& commit, const std::string& file) const {
  std::error_code error;
  return fs::is_regular_file(Snapshot(commit) / file, error);
}

absl::Status HubCache::Link(const std::string& commit, const std::string& file,
                            const std::string& etag) const {
  const fs::path pointer = Snapshot(commit) / file;
  const fs::path target = Blob(etag).lexically_relative(pointer.parent_path());
  std::error_code error;
  // Who was as quick may be reading through it already.
  if (fs::read_symlink(pointer, error) == target && fs::exists(pointer, error))
    return absl::OkStatus();
  fs::create_directories(pointer.parent_path(), error);
  if (const auto draft = DraftLink(target, pointer.parent_path()); draft.has_value()) {
    fs::rename(*draft, pointer, error);
    if (!error) return absl::OkStatus();
    std::error_code ignored;
    fs::remove(*draft, ignored);
    return Failed(pointer, "cannot be created", error);
  }
  // A file system without symlinks: the snapshot holds the file itself, as huggingface_hub does
  // there.
  fs::rename(Blob(etag), pointer, error);
  if (error) return Failed(pointer, "cannot be created", error);
  return absl::OkStatus();
}

absl::StatusOr<std::string> HubCache::Find(const HubId& id, const std::string& commit) const {
  const fs::path folder = Snapshot(commit);
  if (!id.file.empty()) {
    if (HasFile(commit, id.file)) return (folder / id.file).string();
    return absl::NotFoundError(absl::StrCat(id.repo, ": ", id.file, " is not in the cache"));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> chosen,
                   ChooseFiles(id.repo, "", FilesBelow(folder)));
  if (chosen.size() == 1 && absl::EndsWith(chosen[0], ".gguf"))
    return (folder / chosen[0]).string();
  if (IsWhole(folder, chosen)) return folder.string();
  return absl::NotFoundError(absl::StrCat(id.repo, ": the copy in the cache is not whole"));
}

}  // namespace fastgen
