#include "kernels/cpu/tile_permission.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace fastgen::cpu {
namespace {

// Bits of CPUID leaf 1 (ECX) and leaf 7 (EDX).
constexpr unsigned kOsXsave = 1u << 27;
constexpr unsigned kAmxBf16 = 1u << 22;
constexpr unsigned kAmxTile = 1u << 24;
constexpr unsigned kAmxInt8 = 1u << 25;
constexpr unsigned kAmx = kAmxBf16 | kAmxTile | kAmxInt8;

// Bits of XCR0: tile configuration and tile data.
constexpr int kTileData = 18;
constexpr uint64_t kTileState = uint64_t{1} << 17 | uint64_t{1} << kTileData;

// Of arch_prctl(2); older headers lack it.
constexpr int kRequestPermission = 0x1023;

bool CpuHasTiles() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kOsXsave) == 0) return false;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kAmx) != kAmx) return false;
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kTileState) == kTileState;
}

}  // namespace

bool TilesPermitted() {
  static const bool permitted =
      CpuHasTiles() && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
}

}  // namespace fastgen::cpu
