// What this build calls itself, in --version, GetModelInfo and receipts.
// Thread rule: any thread.
#pragma once

#include <string_view>

namespace fastgen {

// "fastgen 0.1.0".
std::string_view BuildInfo();

}  // namespace fastgen
