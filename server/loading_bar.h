// LoadingBar: how far loading is, on stderr: a bar that redraws itself on a terminal, a line for each tenth elsewhere.
// Thread rule: Progress's function from one thread (the loading thread); everything else after its last call.
// Tested by tests/e2e/test_lifecycle.py.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "engine/engine.h"

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
  // Leaves the terminal's line.
  void Finish();

 private:
  void Update(int64_t done_bytes, int64_t total_bytes);

  const std::string prefix_;
  const bool on_terminal_;
  const absl::Time start_;
  absl::Time last_drawn_ = absl::InfinitePast();
  int64_t last_tenth_ = -1;
  bool line_open_ = false;
};

// "1.5 GiB", "97.9 MiB".
std::string FormatBytes(int64_t bytes);

}  // namespace fastgen
