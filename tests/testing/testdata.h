// Where tests find their data: tests/testdata in the tree, the larger goldens where FASTGEN_TESTDATA points (default:
// ../shared beside the tree), and the default model in the cache.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace fastgen::testing {

inline std::filesystem::path SourceTestdata() {
  return std::filesystem::path(FASTGEN_SOURCE_DIR) / "tests" / "testdata";
}

// nullopt where the larger goldens are not on this machine: the caller WARNs and returns.
inline std::optional<std::filesystem::path> SharedTestdata() {
  const char* named = std::getenv("FASTGEN_TESTDATA");
  std::filesystem::path path =
      named != nullptr ? named : std::filesystem::path(FASTGEN_SOURCE_DIR) / ".." / "shared";
  if (std::filesystem::is_directory(path / "models")) return path;
  return std::nullopt;
}

// The default model that ./dev setup fetched; nullopt when absent.
inline std::optional<std::filesystem::path> DefaultModel() {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path cache = xdg != nullptr    ? std::filesystem::path(xdg)
                                : home != nullptr ? std::filesystem::path(home) / ".cache"
                                                  : std::filesystem::path();
  std::filesystem::path path = cache / "fastgen" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (std::filesystem::is_regular_file(path)) return path;
  return std::nullopt;
}

}  // namespace fastgen::testing
