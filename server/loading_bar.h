// LoadingBar: how far a download and the loading after it are, on stderr: a bar that redraws itself
// on a terminal; elsewhere a line for each tenth, and for each kLineEvery where a tenth takes
// longer.
// Thread rule: the functions of Progress and Phases from one thread (the loading thread);
// everything else after their last call.
// Tested by tests/e2e/test_lifecycle.py and tests/e2e/test_hub.py.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/in_process.h"

namespace fastgen {

class LoadingBar {
 public:
  // `program` opens each line, when given.
  explicit LoadingBar(const std::string& program = "");
  ~LoadingBar() { Finish(); }
  LoadingBar(const LoadingBar&) = delete;
  LoadingBar& operator=(const LoadingBar&) = delete;

  // What Daemon::Start takes. The bar must outlive the loading.
  LoadProgress Progress();
  // What DaemonOptions::on_phase takes.
  std::function<void(LoadPhase)> Phases();
  // Leaves the terminal's line.
  void Finish();

 private:
  void Update(int64_t done_bytes, int64_t total_bytes);

  const std::string prefix_;
  const bool on_terminal_;
  const char* word_ = "loading";
  absl::Time start_;          // of this phase
  int64_t first_bytes_ = -1;  // that were there at its start
  absl::Time last_drawn_ = absl::InfinitePast();
  int64_t last_tenth_ = -1;
  bool line_open_ = false;
};

// "1.5 GiB", "97.9 MiB".
std::string FormatBytes(int64_t bytes);

}  // namespace fastgen
