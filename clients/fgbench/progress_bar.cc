#include "clients/fgbench/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"

namespace fastgen {

std::string BarLine(const std::string& what, double share, int64_t num_requests) {
  constexpr int kWidth = 24;
  const int num_full = static_cast<int>(std::clamp(share, 0.0, 1.0) * kWidth);
  const std::string bar = std::string(static_cast<size_t>(num_full), '#') +
                          std::string(static_cast<size_t>(kWidth - num_full), '.');
  return absl::StrFormat("%s [%s] %3d %%  %d requests", what, bar,
                         static_cast<int>(std::clamp(share, 0.0, 1.0) * 100), num_requests);
}

ProgressBar::ProgressBar() : is_terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressBar::Show(const std::string& what, double share, int64_t num_requests) {
  if (!is_terminal_) return;
  std::fprintf(stderr, "\r%s\x1b[K", BarLine(what, share, num_requests).c_str());
  std::fflush(stderr);
  is_shown_ = true;
}

void ProgressBar::Clear() {
  if (!is_shown_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  is_shown_ = false;
}

}  // namespace fastgen
