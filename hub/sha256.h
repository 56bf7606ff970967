// The sha256 of a file, as lower-case hex.
// Thread rule: any thread; blocks for about 1 s per 1-2 GB.
// Tested by tests/hub/default_model_test.cc.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace fastgen {

// NOT_FOUND or UNAVAILABLE naming the path when it cannot be read.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);

}  // namespace fastgen
