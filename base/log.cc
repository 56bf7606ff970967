#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace fastgen {
namespace {

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made = spdlog::stderr_color_mt("fastgen");
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%L%$ %v");
    return made;
  }();
  return *logger;
}

}  // namespace

void SetLogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: Logger().set_level(spdlog::level::debug); break;
    case LogLevel::kInfo: Logger().set_level(spdlog::level::info); break;
    case LogLevel::kWarning: Logger().set_level(spdlog::level::warn); break;
    case LogLevel::kError: Logger().set_level(spdlog::level::err); break;
  }
}

// The text is passed as an argument, never as a format, so braces in it mean nothing.
void LogDebug(std::string_view line) { Logger().debug("{}", line); }
void LogInfo(std::string_view line) { Logger().info("{}", line); }
void LogWarning(std::string_view line) { Logger().warn("{}", line); }
void LogError(std::string_view line) { Logger().error("{}", line); }

}  // namespace fastgen
