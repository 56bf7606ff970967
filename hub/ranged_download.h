// DownloadRanges: one file over several connections, as a file that grows from its begin: whatever
// is there after a kill is a valid first part, and a later call goes on behind it.
//
// Large files are cut in pieces. Up to num_connections pieces are fetched at once; the first
// unfinished one is written as its bytes arrive, the others wait in memory (window_pieces of them
// at most) until all before them is written. That also lets the checksum run along. A piece that
// fails is tried again from its own last byte, with a Backoff that forgets when the piece has moved
// on by kProgressBytes. A server that ignores ranges gets one connection from byte 0.
// Thread rule: one thread.
// Tested by tests/hub/download_test.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "hub/backoff.h"
#include "hub/digest.h"
#include "hub/http_client.h"

namespace fastgen {

struct RangeOptions {
  RetryPolicy retry;
  int num_connections = 4;
  int window_pieces = 6;
  int64_t piece_bytes = 32 << 20;
  int64_t min_parallel_bytes = 64 << 20;  // smaller files are one piece
};

struct RangedFile {
  std::string label;  // opens every message
  std::string url;
  std::string token;
  int64_t size_bytes = 0;
  std::string path;  // of the file that grows
};

// Fetches what `path` lacks; the checksum of the whole file by `new_digest`. A file that has more
// bytes than it should begins anew. `on_bytes` hears how many bytes are there, written or in
// memory; it may go down when a file begins anew. A `path` that is no regular file is made one, and
// no symlink is followed. UNAVAILABLE, FAILED_PRECONDITION, PERMISSION_DENIED, NOT_FOUND,
// DATA_LOSS, RESOURCE_EXHAUSTED (disk full) with one sentence.
absl::StatusOr<std::string> DownloadRanges(HttpClient* client, const RangedFile& file,
                                           const RangeOptions& options,
                                           const std::function<Digest()>& new_digest,
                                           const std::function<void(int64_t)>& on_bytes);

// Whether an answer with this status may be another one soon: 408, 429, 5xx.
bool IsPassing(int http_status);

}  // namespace fastgen
