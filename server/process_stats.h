// ProcessStats: what the process has used and holds, as the kernel counts it (/proc/self,
// getrusage).
//
// What cannot be read is 0: figures for people are no reason to fail.
// Thread rule: any thread. Tested by tests/server/metrics_test.cc.
#pragma once

namespace fastgen {

struct ProcessStats {
  double cpu_seconds = 0;         // user and system
  double start_time_seconds = 0;  // Unix time
  double resident_bytes = 0;
  double virtual_bytes = 0;
  double num_open_files = 0;
  double max_open_files = 0;
};

ProcessStats ReadProcessStats();

}  // namespace fastgen
