// Any bytes as the answers of a hub and as a model id: what is accepted cannot leave the cache's
// folders, and nothing that is not offered is chosen.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "hub/hub_id.h"
#include "hub/hub_listing.h"

namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

void CheckListing(std::string_view bytes) {
  const auto listing = fastgen::ParseHubListing(bytes);
  if (!listing.ok()) return;
  Require(fastgen::IsCommit(listing->commit));
  std::vector<std::string> names;
  for (const fastgen::HubFile& file : listing->files) {
    Require(fastgen::IsSafeFileName(file.name) && file.size_bytes >= -1);
    names.push_back(file.name);
  }
  const auto chosen = fastgen::ChooseFiles("org/model", "", names);
  if (!chosen.ok()) return;
  Require(!chosen->empty());
  for (const std::string& name : *chosen) {
    Require(std::find(names.begin(), names.end(), name) != names.end());
  }
}

void CheckId(std::string_view bytes) {
  const auto id = fastgen::ParseHubId(bytes);
  if (!id.ok()) return;
  Require(std::count(id->repo.begin(), id->repo.end(), '/') == 1);
  Require(id->repo.find("..") == std::string::npos && id->repo.front() != '/');
  Require(fastgen::IsSafeFileName(id->revision));
  Require(id->file.empty() || fastgen::IsSafeFileName(id->file));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  CheckListing(bytes);
  if (const auto shards = fastgen::ParseShardIndex(bytes); shards.ok()) {
    for (const std::string& name : *shards) Require(fastgen::IsSafeFileName(name));
  }
  CheckId(bytes);
  return 0;
}
