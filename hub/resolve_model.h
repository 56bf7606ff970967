// ResolveModel: a model argument as a path on this machine.
//
//   ""                          the default model (default_model.h)
//   a directory, a .gguf file   itself; what begins with '.', '/' or '~', or exists, is a path
//   org/name[@revision]         from a hub, by way of the cache shared with huggingface_hub
//   org/name[@revision]:F.gguf  one file of it
// Thread rule: one thread; blocks while it fetches.
// Tested by tests/hub/resolve_model_test.cc.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "hub/download.h"

namespace fastgen {

// A directory with a config.json, or a .gguf file. Errors are one sentence that says what to do.
// `progress` hears of a download from a hub.
absl::StatusOr<std::string> ResolveModel(std::string_view model,
                                         const DownloadProgress& progress = nullptr);

// "org/name" where the argument means a whole model of a hub, else "": the folder or file that it
// resolves to is named well enough.
std::string HubNameOf(std::string_view model);

}  // namespace fastgen
