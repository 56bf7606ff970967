#include "kernels/cpu/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/int_math.h"
#include "base/status_macros.h"

namespace fastgen::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// The first number in a one-line file; -1 when there is none ("max", no such file).
int64_t NumberIn(const char* path) {
  std::ifstream file(path);
  int64_t value = -1;
  return file >> value ? value : -1;
}

int64_t MemAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  int64_t kib = 0;
  std::string unit;
  while (file >> name >> kib) {
    if (name == "MemAvailable:") return kib * 1024;
    std::getline(file, unit);
  }
  return std::numeric_limits<int64_t>::max();
}

}  // namespace

HostMemory::~HostMemory() {
  if (data_ != nullptr) munmap(data_, mapped_bytes_);
}

absl::StatusOr<HostMemory> HostMemory::Allocate(size_t bytes) {
  HostMemory memory;
  const int64_t available = AvailableMemoryBytes();
  if (bytes > static_cast<size_t>(available)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot take ", bytes, " bytes of memory: ", available, " bytes are available"));
  }
  // One page more than asked: a kernel may read a whole vector at the end of a row.
  const size_t mapped = RoundUp(bytes + 4096, bytes >= kHugePage ? kHugePage : size_t{4096});
  void* data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the system refused ", mapped, " bytes of memory"));
  }
  // Advice only: without huge pages everything works, 3 % slower.
  if (bytes >= kHugePage) madvise(data, mapped, MADV_HUGEPAGE);
  memory.data_ = static_cast<uint8_t*>(data);
  memory.bytes_ = bytes;
  memory.mapped_bytes_ = mapped;
  return memory;
}

absl::StatusOr<std::shared_ptr<uint8_t>> HostArena::Take(size_t bytes) {
  const size_t padded = RoundUp(bytes, size_t{64});
  if (region_ == nullptr || used_ + padded > region_->bytes()) {
    ASSIGN_OR_RETURN(HostMemory memory, HostMemory::Allocate(std::max(padded, kRegionBytes)));
    region_ = std::make_shared<HostMemory>(std::move(memory));
    used_ = 0;
  }
  std::shared_ptr<uint8_t> piece(region_, region_->data() + used_);
  used_ += padded;
  return piece;
}

int64_t AvailableMemoryBytes() {
  int64_t available = MemAvailable();
  const int64_t limit = NumberIn("/sys/fs/cgroup/memory.max");
  const int64_t used = NumberIn("/sys/fs/cgroup/memory.current");
  if (limit >= 0 && used >= 0) available = std::min(available, std::max<int64_t>(0, limit - used));
  return available;
}

}  // namespace fastgen::cpu
