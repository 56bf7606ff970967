#include "server/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>

namespace fastgen {
namespace {

double SecondsOf(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

// Of the machine, as Unix time; 0 when it cannot be read.
double BootTimeSeconds() {
  std::ifstream file("/proc/stat");
  std::string word;
  while (file >> word) {
    if (word != "btime") continue;
    double seconds = 0;
    file >> seconds;
    return seconds;
  }
  return 0;
}

// The 22nd field of /proc/self/stat, in clock ticks since the machine started. The second one, the
// program's name in parentheses, may hold anything.
double StartTicks() {
  std::ifstream file("/proc/self/stat");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int i = 3; i <= 22 && fields >> field; ++i) {
  }
  return std::strtod(field.c_str(), nullptr);
}

}  // namespace

ProcessStats ReadProcessStats() {
  ProcessStats stats;
  rusage usage = {};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    stats.cpu_seconds = SecondsOf(usage.ru_utime) + SecondsOf(usage.ru_stime);
  }
  static const double start_time_seconds =
      BootTimeSeconds() + StartTicks() / static_cast<double>(sysconf(_SC_CLK_TCK));
  stats.start_time_seconds = start_time_seconds;
  double num_pages = 0;
  double num_resident_pages = 0;
  if (std::ifstream("/proc/self/statm") >> num_pages >> num_resident_pages) {
    const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
    stats.virtual_bytes = num_pages * page_bytes;
    stats.resident_bytes = num_resident_pages * page_bytes;
  }
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    stats.num_open_files += 1;
  }
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    stats.max_open_files = static_cast<double>(limit.rlim_cur);
  }
  return stats;
}

}  // namespace fastgen
