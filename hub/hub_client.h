// HubClient: the three questions asked of a hub: which files a model has, what one file is, and its
// bytes' address.
//
//   GET  {endpoint}/api/models/{repo}/revision/{revision}?blobs=true -> commit and files
//   HEAD {endpoint}/{repo}/resolve/{commit}/{file}    -> etag and size (X-Linked-*, else plain)
// A HEAD is followed while it stays on the endpoint; the first answer that leads elsewhere, or a
// plain one, tells. Failures that may pass are tried again with a Backoff; messages are one
// sentence that says what to do.
// Thread rule: one thread.
// Tested by tests/hub/download_test.cc.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "hub/backoff.h"
#include "hub/http_client.h"
#include "hub/hub_id.h"
#include "hub/hub_listing.h"
#include "hub/hub_settings.h"

namespace fastgen {

struct FileMetadata {
  std::string etag;  // passes IsSafeEtag
  int64_t size_bytes = 0;
};

class HubClient {
 public:
  HubClient(const HubSettings& settings, const HttpLimits& limits, const RetryPolicy& retry);

  // UNAVAILABLE: the hub cannot be reached or is out of order. `retry`: how long that is not
  // believed.
  absl::StatusOr<HubListing> List(const HubId& id, const RetryPolicy& retry);
  absl::StatusOr<FileMetadata> Metadata(const HubId& id, const std::string& commit,
                                        const HubFile& file);
  std::string FileUrl(const HubId& id, const std::string& commit, const std::string& file) const;
  HttpClient* http() { return &http_; }

 private:
  // Tries again while the answer is one that may pass.
  absl::StatusOr<HttpAnswer> Ask(const HttpRequest& request, int64_t max_body_bytes,
                                 const RetryPolicy& retry);
  absl::StatusOr<HttpAnswer> AskOnce(const HttpRequest& request, int64_t max_body_bytes);
  absl::Status Refusal(const HubId& id, const HttpAnswer& answer) const;

  const HubSettings settings_;
  const RetryPolicy retry_;
  HttpClient http_;
};

}  // namespace fastgen
