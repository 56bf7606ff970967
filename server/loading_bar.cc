#include "server/loading_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace fastgen {
namespace {

constexpr int kBarCells = 30;
constexpr absl::Duration kRedraw = absl::Milliseconds(50);
constexpr absl::Duration kLineEvery = absl::Seconds(5);

}  // namespace

std::string FormatBytes(int64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  if (mib >= 1024) return absl::StrFormat("%.1f GiB", mib / 1024);
  return absl::StrFormat("%.1f MiB", mib);
}

LoadingBar::LoadingBar(const std::string& program)
    : prefix_(program.empty() ? "" : program + ": "),
      on_terminal_(isatty(STDERR_FILENO) == 1),
      start_(absl::Now()) {}

LoadProgress LoadingBar::Progress() {
  return [this](int64_t done_bytes, int64_t total_bytes) { Update(done_bytes, total_bytes); };
}

std::function<void(LoadPhase)> LoadingBar::Phases() {
  return [this](LoadPhase phase) {
    Finish();
    word_ = phase == LoadPhase::kDownload ? "downloading" : "loading";
    start_ = absl::Now();
    first_bytes_ = -1;
    last_drawn_ = absl::InfinitePast();
    last_tenth_ = -1;
  };
}

void LoadingBar::Update(int64_t done_bytes, int64_t total_bytes) {
  if (total_bytes <= 0) return;
  const double part = std::clamp(static_cast<double>(done_bytes) / total_bytes, 0.0, 1.0);
  const absl::Time now = absl::Now();
  const double seconds = std::max(absl::ToDoubleSeconds(now - start_), 1e-3);
  if (first_bytes_ < 0) first_bytes_ = done_bytes;
  const int64_t new_bytes = std::max<int64_t>(done_bytes - first_bytes_, 0);
  const std::string rate = FormatBytes(static_cast<int64_t>(new_bytes / seconds)) + "/s";
  if (on_terminal_) {
    if (part < 1 && now - last_drawn_ < kRedraw) return;
    last_drawn_ = now;
    line_open_ = true;
    const int full = static_cast<int>(part * kBarCells);
    std::fprintf(stderr, "\r%s%s [%s%s] %3.0f %%  %s of %s, %s\033[K", prefix_.c_str(), word_,
                 std::string(full, '#').c_str(), std::string(kBarCells - full, '.').c_str(),
                 part * 100, FormatBytes(done_bytes).c_str(), FormatBytes(total_bytes).c_str(),
                 rate.c_str());
    std::fflush(stderr);
    return;
  }
  const int64_t tenth = static_cast<int64_t>(part * 10);
  if (tenth == last_tenth_ && now - last_drawn_ < kLineEvery) return;
  last_tenth_ = tenth;
  last_drawn_ = now;
  std::fprintf(stderr, "%s%s %3.0f %%  %s of %s, %s\n", prefix_.c_str(), word_, part * 100,
               FormatBytes(done_bytes).c_str(), FormatBytes(total_bytes).c_str(), rate.c_str());
}

void LoadingBar::Finish() {
  if (std::exchange(line_open_, false)) std::fputc('\n', stderr);
}

}  // namespace fastgen
