// ProgressBar: one line on a terminal that says how far a run is; nothing where stderr is no
// terminal. Thread rule: one thread. Tested by tests/clients/fgbench_test.cc (BarLine).
#pragma once

#include <cstdint>
#include <string>

namespace fastgen {

// "round 2/3 http [#######.............] 35 %  22 requests", for a terminal of 80 columns.
std::string BarLine(const std::string& what, double share, int64_t num_requests);

class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar() { Clear(); }

  void Show(const std::string& what, double share, int64_t num_requests);
  void Clear();

 private:
  const bool is_terminal_;
  bool is_shown_ = false;
};

}  // namespace fastgen
