// HostMemory: zero-filled pages straight from the kernel, huge where it grants them, returned with
// the object.
//
// Pages take physical memory when first touched: the thread that packs a panel places it.
// Thread rule: a value; the caller orders access to what it holds.
// Tested by tests/kernels/make_backend_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"

namespace fastgen::cpu {

class HostMemory {
 public:
  HostMemory() = default;
  HostMemory(HostMemory&& other) noexcept { Swap(other); }
  HostMemory& operator=(HostMemory&& other) noexcept {
    Swap(other);
    return *this;
  }
  ~HostMemory();

  // RESOURCE_EXHAUSTED when the machine does not have it.
  static absl::StatusOr<HostMemory> Allocate(size_t bytes);

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void Swap(HostMemory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
  }

  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  size_t mapped_bytes_ = 0;
};

// HostArena: cuts regions of HostMemory into pieces, so that the matrices of a model lie behind one
// another on huge pages. A region lives as long as any piece of it.
class HostArena {
 public:
  // 64-byte aligned and zero. RESOURCE_EXHAUSTED when the machine does not have it.
  absl::StatusOr<std::shared_ptr<uint8_t>> Take(size_t bytes);

 private:
  // Large against a huge page, small against the memory of a machine that serves models.
  static constexpr size_t kRegionBytes = size_t{32} << 20;

  std::shared_ptr<HostMemory> region_;
  size_t used_ = 0;
};

// What this process may still take: the least of the machine's available memory and its control
// group's allowance.
int64_t AvailableMemoryBytes();

}  // namespace fastgen::cpu
