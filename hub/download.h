// FetchModel: a model of a hub as a path on this machine, from the cache where that is enough, else
// downloaded.
//
// A commit that the cache holds whole needs no network. A branch or tag is asked for (one call,
// 10 s while there is a copy); when the hub cannot be asked, what it was last is taken from the
// cache. What is missing is fetched file by file, each under its lock: into <etag>.incomplete,
// checked by the etag (64 hex digits: sha256, 40: git's object id) and by the sha256 that the list
// of files tells, then renamed. A file whose checksum is wrong is fetched once more from its begin.
// Of a file without a checksum nothing is gone on from.
// Thread rule: one thread; blocks. The process may be ended at any point: the next call goes on
// from there.
// Tested by tests/hub/download_test.cc and tests/e2e/test_hub.py.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "hub/hub_id.h"
#include "hub/hub_settings.h"
#include "hub/ranged_download.h"

namespace fastgen {

// How much of what must be fetched is there. Called some ten times a second.
using DownloadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

struct DownloadOptions {
  HttpLimits http;
  RangeOptions ranges;  // its retry is that of every call
};

// A directory, or a .gguf file. Errors are one sentence that names the model and says what to do.
absl::StatusOr<std::string> FetchModel(const HubId& id, const HubSettings& settings,
                                       const DownloadOptions& options,
                                       const DownloadProgress& progress);

}  // namespace fastgen
