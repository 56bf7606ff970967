#include "hub/resolve_model.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "hub/default_model.h"
#include "hub/hub_id.h"
#include "hub/hub_settings.h"

namespace fastgen {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<std::string> ResolveDirectory(const fs::path& path) {
  std::error_code error;
  if (fs::is_regular_file(path / "config.json", error)) return path.string();
  return absl::NotFoundError(absl::StrCat(path.string(), ": the directory holds no config.json"));
}

absl::StatusOr<std::string> ResolveFile(const fs::path& path) {
  if (path.extension() == ".gguf") return path.string();
  return absl::InvalidArgumentError(absl::StrCat(
      path.string(), ": not a .gguf file; give a Hugging Face directory or a .gguf file"));
}

// "models/m.gguf" has the form of an id, but nobody calls a repository so.
bool IsMeantAsPath(std::string_view model) {
  return !LooksLikeHubId(model) ||
         (absl::EndsWith(ToAbsl(model), ".gguf") && model.find(':') == std::string_view::npos);
}

// Directory, file or neither: what the file system has goes before every other meaning.
fs::file_type TypeOf(const fs::path& path) {
  std::error_code error;
  return fs::status(path, error).type();
}

}  // namespace

std::string HubNameOf(std::string_view model) {
  const fs::file_type type = TypeOf(fs::path(model));
  if (type == fs::file_type::directory || type == fs::file_type::regular) return "";
  if (IsMeantAsPath(model)) return "";
  const auto id = ParseHubId(model);
  return id.ok() && id->file.empty() ? id->repo : "";
}

absl::StatusOr<std::string> ResolveModel(std::string_view model, const DownloadProgress& progress) {
  if (model.empty()) return DefaultModel();
  const fs::path path(model);
  const fs::file_type type = TypeOf(path);
  if (type == fs::file_type::directory) return ResolveDirectory(path);
  if (type == fs::file_type::regular) return ResolveFile(path);
  if (IsMeantAsPath(model)) {
    return absl::NotFoundError(absl::StrCat(ToAbsl(model),
                                            ": no such file or directory; give a Hugging Face "
                                            "directory, a .gguf file, or a model of the hub "
                                            "as org/name or org/name:file.gguf"));
  }
  ASSIGN_OR_RETURN(const HubId id, ParseHubId(model));
  ASSIGN_OR_RETURN(const HubSettings settings, ReadHubSettings());
  DownloadOptions options;
  options.http.ca_file = settings.ca_file;
  return FetchModel(id, settings, options, progress);
}

}  // namespace fastgen
