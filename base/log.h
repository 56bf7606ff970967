// The log: one line an event on stderr, through spdlog (included in log.cc only).
//
//   LogInfo(absl::StrCat("loaded ", name, " in ", seconds, " s"));
// Prompts, answers and keys are never logged. Nothing is logged per token.
// Thread rule: any thread.
#pragma once

#include <string_view>

namespace fastgen {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Lines below `level` are dropped. The level at start is kInfo.
void SetLogLevel(LogLevel level);

void LogDebug(std::string_view line);
void LogInfo(std::string_view line);
void LogWarning(std::string_view line);
void LogError(std::string_view line);

}  // namespace fastgen
