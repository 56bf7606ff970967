// The one place where std::string_view and Debian's absl::string_view (a type of its own there) meet.
// Thread rule: any thread.
#pragma once

#include <string_view>

#include "absl/strings/string_view.h"

namespace fastgen {

inline absl::string_view ToAbsl(std::string_view s) { return absl::string_view(s.data(), s.size()); }
inline std::string_view FromAbsl(absl::string_view s) { return std::string_view(s.data(), s.size()); }

}  // namespace fastgen
