#include "kernels/cpu/cpu_topology.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <string>

#include "tests/testing/temporary_directory.h"

namespace fastgen::cpu {
namespace {

using Cpus = std::vector<int>;
using Cores = std::vector<Core>;

void Write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text << "\n";
}

TEST_CASE("the kernel's lists of CPUs are read, and what is not one is empty", "[kernels]") {
  CHECK(ParseCpuList("0") == Cpus{0});
  CHECK(ParseCpuList("0-2,5,7-8") == Cpus{0, 1, 2, 5, 7, 8});
  for (const char* text : {"", "a", "3-1", "-1", "0-", "0-999999999999", "0,,1", "1 2"}) {
    INFO(text);
    CHECK(ParseCpuList(text).empty());
  }
}

TEST_CASE("one CPU of each core is used, node by node, and none that is not allowed", "[kernels]") {
  const testing::TemporaryDirectory sysfs;
  // Four cores of two threads each on two nodes, numbered as Linux does on many servers: cpu and
  // cpu + 4 are one core; even cores are node 1's.
  for (int cpu = 0; cpu < 8; ++cpu) {
    const int core = cpu % 4;
    Write(sysfs.path() / "cpu" / ("cpu" + std::to_string(cpu)) / "topology/thread_siblings_list",
          std::to_string(core) + "," + std::to_string(core + 4));
  }
  Write(sysfs.path() / "node/node0/cpulist", "1,3,5,7");
  Write(sysfs.path() / "node/node1/cpulist", "0,2,4,6");
  Write(sysfs.path() / "node/has_cpu", "0-1");
  const Cores all = CoresOf({0, 1, 2, 3, 4, 5, 6, 7}, sysfs.path());
  CHECK(all == Cores{{0, 1}, {0, 3}, {1, 0}, {1, 2}});
  CHECK(NodeCpus(all) == std::vector<Cpus>{{1, 3}, {1, 3}, {0, 2}, {0, 2}});
  CHECK(CoresOf({4, 5}, sysfs.path()) == Cores{{0, 5}, {1, 4}});
  CHECK(CoresOf({2, 6}, sysfs.path()) == Cores{{1, 2}});
}

TEST_CASE("without a description every CPU is a core", "[kernels]") {
  const testing::TemporaryDirectory empty;
  const Cores all = CoresOf({3, 4, 9}, empty.path());
  CHECK(all == Cores{{0, 3}, {0, 4}, {0, 9}});
  CHECK(NodeCpus(all).empty());
}

TEST_CASE("a quota counts in whole CPUs, rounded up", "[kernels]") {
  const testing::TemporaryDirectory two;
  CHECK(QuotaCpus(two.path()) == 0);
  for (const auto& [text, cpus] : {std::pair<const char*, int>{"max 100000", 0},
                                   {"200000 100000", 2},
                                   {"150000 100000", 2},
                                   {"1000 100000", 1},
                                   {"0 100000", 0},
                                   {"100000 0", 0},
                                   {"rubbish", 0}}) {
    INFO(text);
    Write(two.path() / "cpu.max", text);
    CHECK(QuotaCpus(two.path()) == cpus);
  }
  const testing::TemporaryDirectory one;
  Write(one.path() / "cpu/cpu.cfs_quota_us", "-1");
  Write(one.path() / "cpu/cpu.cfs_period_us", "100000");
  CHECK(QuotaCpus(one.path()) == 0);
  Write(one.path() / "cpu/cpu.cfs_quota_us", "350000");
  CHECK(QuotaCpus(one.path()) == 4);
}

TEST_CASE("this process has a core", "[kernels]") { CHECK_FALSE(UsableCores().empty()); }

}  // namespace
}  // namespace fastgen::cpu
