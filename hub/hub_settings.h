// HubSettings: where the hub is, who asks, and where the shared cache lies, from the environment
// variables that huggingface_hub reads.
//
//   HF_ENDPOINT                         https://huggingface.co
//   HF_TOKEN, else HF_TOKEN_PATH, else $HF_HOME/token
//   HF_HUB_DISABLE_IMPLICIT_TOKEN       1, ON, YES, TRUE: no token
//   HF_HUB_CACHE, else $HF_HOME/hub, where HF_HOME is $XDG_CACHE_HOME/huggingface by default
//   HF_HUB_OFFLINE                      1, ON, YES, TRUE: no network
// Proxies are libcurl's: HTTPS_PROXY, ALL_PROXY, NO_PROXY, http_proxy. Certificates:
// REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE (a file or a folder), else the system's.
// Thread rule: plain data; the reader looks at the environment, call it while nobody changes that.
// Tested by tests/hub/small_parts_test.cc.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace fastgen {

struct HubSettings {
  std::string endpoint;  // no slash at the end
  std::string token;     // "": none; never to be logged
  std::string ca_file;   // "": the system's
  std::filesystem::path cache;
  bool is_offline = false;
};

// INVALID_ARGUMENT naming the variable, NOT_FOUND when there is no home for a cache.
absl::StatusOr<HubSettings> ReadHubSettings();

}  // namespace fastgen
