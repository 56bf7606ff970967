// HubCache: one model's folder in the cache that is shared with Python's huggingface_hub.
//
//   <cache>/models--org--name/refs/<revision>            the commit, 40 hex digits
//   <cache>/models--org--name/snapshots/<commit>/<file>  relative symlink to
//   <cache>/models--org--name/blobs/<etag>               the bytes; <etag>.incomplete on the way
//   <cache>/.locks/models--org--name/<etag>.lock         held by who fetches the blob
// A blob has its name only when it is whole. refs are written last and by rename.
// Thread rule: any thread; blobs are to be written under their lock.
// Tested by tests/hub/download_test.cc and tests/e2e/test_hub.py (against huggingface_hub itself).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hub/hub_id.h"

namespace fastgen {

class HubCache {
 public:
  HubCache(const std::filesystem::path& cache, const std::string& repo);

  // The commit that a revision was when it was last asked for; a commit is itself.
  std::optional<std::string> CommitOf(const std::string& revision) const;
  absl::Status SetCommit(const std::string& revision, const std::string& commit) const;

  std::filesystem::path Snapshot(const std::string& commit) const {
    return folder_ / "snapshots" / commit;
  }
  std::filesystem::path Blob(const std::string& etag) const { return folder_ / "blobs" / etag; }
  std::filesystem::path Incomplete(const std::string& etag) const {
    return folder_ / "blobs" / (etag + ".incomplete");
  }
  std::filesystem::path Lock(const std::string& etag) const;

  // Creates the folders that a download writes to.
  absl::Status Prepare() const;
  bool HasFile(const std::string& commit, const std::string& file) const;
  // Makes the blob be this file of the snapshot; who opens that meanwhile never sees it missing.
  absl::Status Link(const std::string& commit, const std::string& file,
                    const std::string& etag) const;

  // The path to load, where the snapshot holds all that the id means: the .gguf file, or the
  // folder. NOT_FOUND where something is missing, INVALID_ARGUMENT where one of several .gguf files
  // must be chosen.
  absl::StatusOr<std::string> Find(const HubId& id, const std::string& commit) const;

 private:
  const std::filesystem::path cache_;
  const std::string name_;  // models--org--name
  const std::filesystem::path folder_;
};

}  // namespace fastgen
