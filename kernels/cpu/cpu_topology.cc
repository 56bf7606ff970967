#include "kernels/cpu/cpu_topology.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <optional>
#include <string>

#include "base/int_math.h"

namespace fastgen::cpu {
namespace {

constexpr int kMaxCpu = 1 << 16;

std::string FirstLine(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<int64_t> Number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int CpusOf(std::string_view quota, std::string_view period) {
  const std::optional<int64_t> micros = Number(quota), every = Number(period);
  if (!micros.has_value() || !every.has_value() || *micros <= 0 || *every <= 0) return 0;
  return static_cast<int>(std::min<int64_t>(CeilDiv(*micros, *every), kMaxCpu));
}

std::vector<int> AllowedCpus() {
  // Larger than any machine's, as sched_getaffinity refuses a mask that is too small.
  std::vector<cpu_set_t> mask(kMaxCpu / CPU_SETSIZE);
  const size_t bytes = mask.size() * sizeof(cpu_set_t);
  if (sched_getaffinity(0, bytes, mask.data()) != 0) return {};
  std::vector<int> cpus;
  for (int cpu = 0; cpu < kMaxCpu; ++cpu) {
    if (CPU_ISSET_S(cpu, bytes, mask.data())) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

std::vector<int> ParseCpuList(std::string_view text) {
  std::vector<int> cpus;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), part.size() + 1));
    const size_t dash = part.find('-');
    const std::optional<int64_t> first = Number(part.substr(0, dash));
    const std::optional<int64_t> last =
        dash == std::string_view::npos ? first : Number(part.substr(dash + 1));
    if (!first.has_value() || !last.has_value() || *first < 0 || *last < *first || *last >= kMaxCpu)
      return {};
    for (int64_t cpu = *first; cpu <= *last; ++cpu) cpus.push_back(static_cast<int>(cpu));
  }
  return cpus;
}

std::vector<Core> CoresOf(const std::vector<int>& allowed, const std::filesystem::path& sysfs) {
  std::map<int, int> nodes;  // of each CPU
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(sysfs / "node", ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("node", 0) != 0) continue;
    const std::optional<int64_t> node = Number(std::string_view(name).substr(4));
    if (!node.has_value()) continue;
    for (int cpu : ParseCpuList(FirstLine(entry.path() / "cpulist"))) {
      nodes[cpu] = static_cast<int>(*node);
    }
  }
  std::vector<Core> cores;
  std::map<int, bool> is_taken;
  for (int cpu : allowed) {
    if (is_taken[cpu]) continue;
    const std::filesystem::path topology =
        sysfs / "cpu" / ("cpu" + std::to_string(cpu)) / "topology" / "thread_siblings_list";
    for (int sibling : ParseCpuList(FirstLine(topology))) is_taken[sibling] = true;
    const auto node = nodes.find(cpu);
    cores.push_back({node == nodes.end() ? 0 : node->second, cpu});
  }
  std::sort(cores.begin(), cores.end());
  return cores;
}

int QuotaCpus(const std::filesystem::path& cgroup) {
  const std::string line = FirstLine(cgroup / "cpu.max");  // "quota period" or "max period"
  const size_t space = line.find(' ');
  if (space != std::string::npos) {
    return CpusOf(std::string_view(line).substr(0, space),
                  std::string_view(line).substr(space + 1));
  }
  return CpusOf(FirstLine(cgroup / "cpu" / "cpu.cfs_quota_us"),
                FirstLine(cgroup / "cpu" / "cpu.cfs_period_us"));
}

std::vector<Core> UsableCores() {
  std::vector<Core> cores = CoresOf(AllowedCpus(), "/sys/devices/system");
  if (cores.empty()) cores.emplace_back();
  const int quota = QuotaCpus("/sys/fs/cgroup");
  if (quota > 0 && static_cast<size_t>(quota) < cores.size()) {
    cores.resize(static_cast<size_t>(quota));
  }
  return cores;
}

std::vector<std::vector<int>> NodeCpus(const std::vector<Core>& cores) {
  std::map<int, std::vector<int>> nodes;
  for (const Core& core : cores) nodes[core.node].push_back(core.cpu);
  std::vector<std::vector<int>> cpus;
  if (nodes.size() < 2) return cpus;
  for (const Core& core : cores) cpus.push_back(nodes[core.node]);
  return cpus;
}

}  // namespace fastgen::cpu
