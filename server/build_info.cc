#include "server/build_info.h"

namespace fastgen {

std::string_view BuildInfo() { return "fastgen " FASTGEN_VERSION; }

}  // namespace fastgen
