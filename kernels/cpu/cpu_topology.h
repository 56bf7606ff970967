// Which CPUs the compute threads should run on.
//
// One CPU per physical core of those that the process may use: two threads of a core share its
// multipliers and its cache, and the second one is left to the threads that talk to clients. Cores
// are listed node by node, so that neighbouring threads, which own neighbouring panels, share a
// node's memory. A control group's quota bounds their number: more threads than it pays for would
// be stopped together in the middle of a step. What /sys does not tell is taken as simple: every
// CPU a core, one node, no quota.
// Thread rule: any thread. Tested by tests/kernels/cpu_topology_test.cc.
#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace fastgen::cpu {

// "0-3,8" as {0, 1, 2, 3, 8}: the kernel's notation of CPU lists. Empty where it is not one.
std::vector<int> ParseCpuList(std::string_view text);

struct Core {
  int node = 0;
  int cpu = 0;  // one of the core's
  friend auto operator<=>(const Core&, const Core&) = default;
};

// The cores of `allowed`, by node. `sysfs` is /sys/devices/system.
std::vector<Core> CoresOf(const std::vector<int>& allowed, const std::filesystem::path& sysfs);

// What the control group at `cgroup` (/sys/fs/cgroup) pays for, rounded up to whole CPUs; 0: no
// quota. Reads version 2 (cpu.max) and version 1 (cpu/cpu.cfs_quota_us).
int QuotaCpus(const std::filesystem::path& cgroup);

// The cores of this process, at least one.
std::vector<Core> UsableCores();

// For each core the CPUs of its node; empty where there is one node only.
std::vector<std::vector<int>> NodeCpus(const std::vector<Core>& cores);

}  // namespace fastgen::cpu
