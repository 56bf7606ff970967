// The two JSON documents that come from a hub: the list of a model's files, and the index of a
// sharded checkpoint; and which of the files a model needs.
//
// Untrusted bytes: size, depth and number of entries are bounded, every name is checked by
// IsSafeFileName.
// Thread rule: any thread.
// Tested by tests/hub/hub_listing_test.cc and tests/fuzz/hub_json_fuzzer.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fastgen {

constexpr int64_t kMaxListingBytes = 32 << 20;

struct HubFile {
  std::string name;
  int64_t size_bytes = -1;  // -1: not told
  std::string sha256;       // "": not told, or not a large file
};

struct HubListing {
  std::string commit;
  std::vector<HubFile> files;
};

// The answer of GET /api/models/{repo}/revision/{revision}. DATA_LOSS with one sentence.
absl::StatusOr<HubListing> ParseHubListing(std::string_view json);

// The files named by a *.safetensors.index.json, each once, in order. DATA_LOSS with one sentence.
absl::StatusOr<std::vector<std::string>> ParseShardIndex(std::string_view json);

// What of `names` is needed to serve the model: one .gguf file, or config, tokenizer and
// safetensors files, the small ones first. `file`: the .gguf that was asked for, or "". NOT_FOUND,
// INVALID_ARGUMENT with one sentence that begins with `repo` and, where a choice is needed, lists
// what there is.
absl::StatusOr<std::vector<std::string>> ChooseFiles(const std::string& repo,
                                                     const std::string& file,
                                                     const std::vector<std::string>& names);

}  // namespace fastgen
