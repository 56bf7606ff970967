#include "hub/hub_settings.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace fastgen {
namespace {

namespace fs = std::filesystem;

constexpr char kDefaultEndpoint[] = "https://huggingface.co";
constexpr std::streamsize kMaxTokenBytes = 4096;

// "" when absent, as for huggingface_hub an empty variable is none.
std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

fs::path ExpandHome(const std::string& path) {
  if (path != "~" && path.rfind("~/", 0) != 0) return path;
  return fs::path(Variable("HOME")) / path.substr(std::min<size_t>(path.size(), 2));
}

absl::StatusOr<fs::path> HubHome() {
  if (const std::string home = Variable("HF_HOME"); !home.empty()) return ExpandHome(home);
  if (const std::string xdg = Variable("XDG_CACHE_HOME"); !xdg.empty())
    return ExpandHome(xdg) / "huggingface";
  if (const std::string home = Variable("HOME"); !home.empty())
    return fs::path(home) / ".cache" / "huggingface";
  return absl::NotFoundError(
      "a model of a hub needs a cache directory: set HOME, HF_HOME or HF_HUB_CACHE");
}

absl::StatusOr<fs::path> CacheFolder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string cache = Variable(name); !cache.empty()) return ExpandHome(cache);
  }
  ASSIGN_OR_RETURN(const fs::path home, HubHome());
  return home / "hub";
}

bool IsTrue(const std::string& value) {
  const std::string upper = absl::AsciiStrToUpper(value);
  return upper == "1" || upper == "ON" || upper == "YES" || upper == "TRUE";
}

absl::StatusOr<std::string> Endpoint() {
  std::string endpoint = Variable("HF_ENDPOINT");
  if (endpoint.empty()) endpoint = kDefaultEndpoint;
  while (absl::EndsWith(endpoint, "/")) endpoint.pop_back();
  const bool is_url =
      absl::StartsWith(endpoint, "https://") || absl::StartsWith(endpoint, "http://");
  const bool is_plain = std::all_of(endpoint.begin(), endpoint.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c));
  });
  if (is_url && is_plain) return endpoint;
  return absl::InvalidArgumentError(
      "HF_ENDPOINT must begin with https:// or http:// and hold no spaces");
}

std::string TokenFile() {
  const std::string named = Variable("HF_TOKEN_PATH");
  const auto home = HubHome();
  const fs::path path = !named.empty() ? ExpandHome(named)
                        : home.ok()    ? *home / "token"
                                       : fs::path();
  std::ifstream file(path, std::ios::binary);
  std::string token(kMaxTokenBytes, '\0');
  file.read(token.data(), kMaxTokenBytes);
  token.resize(std::max<std::streamsize>(file.gcount(), 0));
  return token;
}

// It becomes part of a header line, where a line end would begin another one.
absl::StatusOr<std::string> Token() {
  std::string token = Variable("HF_TOKEN");
  if (token.empty()) token = Variable("HUGGING_FACE_HUB_TOKEN");
  if (token.empty()) token = TokenFile();
  token = std::string(absl::StripAsciiWhitespace(token));
  if (std::all_of(token.begin(), token.end(),
                  [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); })) {
    return token;
  }
  return absl::InvalidArgumentError(
      "the hub token (HF_TOKEN or its file) holds a space or a control character");
}

std::string CaFile() {
  for (const char* name : {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
    if (const std::string path = Variable(name); !path.empty()) return path;
  }
  return "";
}

}  // namespace

absl::StatusOr<HubSettings> ReadHubSettings() {
  HubSettings settings;
  ASSIGN_OR_RETURN(settings.endpoint, Endpoint());
  if (!IsTrue(Variable("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) {
    ASSIGN_OR_RETURN(settings.token, Token());
  }
  ASSIGN_OR_RETURN(settings.cache, CacheFolder());
  settings.ca_file = CaFile();
  settings.is_offline = IsTrue(Variable("HF_HUB_OFFLINE"));
  return settings;
}

}  // namespace fastgen
