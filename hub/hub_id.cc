#include "hub/hub_id.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/strings.h"

namespace fastgen {
namespace {

constexpr size_t kMaxRepoBytes = 96;
constexpr size_t kMaxRevisionBytes = 255;
constexpr size_t kMaxFileNameBytes = 1024;
constexpr size_t kMaxComponentBytes = 255;
constexpr size_t kMaxEtagBytes = 128;
constexpr size_t kMaxShownBytes = 200;

bool IsWordCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
}

bool IsRepoPart(absl::string_view part) {
  const auto is_edge = [](char c) { return c == '-' || c == '.'; };
  return !part.empty() && std::all_of(part.begin(), part.end(), IsWordCharacter) &&
         !is_edge(part.front()) && !is_edge(part.back());
}

bool IsRepo(absl::string_view repo) {
  const std::vector<absl::string_view> parts = absl::StrSplit(repo, '/');
  return repo.size() <= kMaxRepoBytes && parts.size() == 2 && IsRepoPart(parts[0]) &&
         IsRepoPart(parts[1]) && !absl::StrContains(repo, "--") && !absl::StrContains(repo, "..") &&
         !absl::EndsWith(repo, ".git");
}

bool IsRevision(absl::string_view revision) {
  if (revision.empty() || revision.size() > kMaxRevisionBytes) return false;
  for (absl::string_view part : absl::StrSplit(revision, '/')) {
    if (part.empty() || part.front() == '.' || absl::StrContains(part, "..")) return false;
    if (!std::all_of(part.begin(), part.end(),
                     [](char c) { return IsWordCharacter(c) || c == '+'; }))
      return false;
  }
  return true;
}

// At most so much of what a user or a server gave, as it may be of any length.
absl::string_view Shown(absl::string_view text) { return text.substr(0, kMaxShownBytes); }

}  // namespace

bool LooksLikeHubId(std::string_view text) {
  const absl::string_view repo = ToAbsl(text.substr(0, text.find_first_of("@:")));
  return std::count(repo.begin(), repo.end(), '/') == 1 && repo.front() != '/' &&
         repo.back() != '/' && repo.front() != '.' && repo.front() != '~';
}

absl::StatusOr<HubId> ParseHubId(std::string_view text) {
  HubId id;
  const size_t colon = text.find(':');
  const size_t at = text.substr(0, colon).find('@');
  id.repo = text.substr(0, std::min(at, colon));
  if (!IsRepo(id.repo)) {
    return absl::InvalidArgumentError(absl::StrCat(
        Shown(ToAbsl(text)), ": not a model id: org/name, of letters, digits, '.', '_' and '-', ",
        kMaxRepoBytes, " characters at most"));
  }
  if (at != std::string_view::npos) {
    id.revision = text.substr(at + 1, colon == std::string_view::npos ? colon : colon - at - 1);
    if (!IsRevision(id.revision)) {
      return absl::InvalidArgumentError(absl::StrCat(
          Shown(ToAbsl(text)), ": what follows '@' must be a branch, a tag or a commit"));
    }
  }
  if (colon == std::string_view::npos) return id;
  id.file = text.substr(colon + 1);
  if (!IsSafeFileName(id.file) || !absl::EndsWith(id.file, ".gguf")) {
    return absl::InvalidArgumentError(absl::StrCat(
        Shown(ToAbsl(text)), ": what follows ':' must be the name of a .gguf file of the model"));
  }
  return id;
}

bool IsSafeFileName(std::string_view name) {
  if (name.empty() || name.size() > kMaxFileNameBytes) return false;
  const auto is_bad = [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '\\'; };
  if (std::any_of(name.begin(), name.end(), is_bad)) return false;
  for (absl::string_view part : absl::StrSplit(ToAbsl(name), '/')) {
    if (part.empty() || part == "." || part == ".." || part.size() > kMaxComponentBytes)
      return false;
  }
  return true;
}

bool IsCommit(std::string_view text) {
  return text.size() == 40 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool IsSafeEtag(std::string_view etag) {
  return !etag.empty() && etag.size() <= kMaxEtagBytes && etag.front() != '.' &&
         std::all_of(etag.begin(), etag.end(), IsWordCharacter);
}

}  // namespace fastgen
