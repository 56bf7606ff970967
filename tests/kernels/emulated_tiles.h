// EmulatedTiles: the functions of kernels/cpu/amx_tiles.h in plain C++, so that the kernels over
// tiles run, and are held to their shapes, on CPUs without AMX.
//
// Written from the operations' description in Intel's manual. A use that the CPU answers with an
// exception (tiles that were not configured, shapes that do not fit, a configuration out of range)
// fails a CHECK. Slow: a product of two bf16 tiles takes 8192 calls of std::fma.
// Thread rule: as on the CPU, each thread has tiles and a configuration of its own.
// Tested by tests/kernels/amx_test.cc, against the CPU where it has AMX.
#pragma once

#include <cstdint>

#include "kernels/cpu/amx_tiles.h"

namespace fastgen::testing {

// The work is in a source file of its own: this header is also compiled with AVX-512, and the
// linker must not take that copy for a test that runs anywhere.
class EmulatedTiles {
 public:
  static void Configure(const cpu::TileConfig& config);
  static void Release();
  // Configurations that all threads have loaded.
  static int64_t NumConfigured();

  template <int kTile>
  static void Zero() {
    ZeroTile(kTile);
  }
  template <int kTile>
  static void Load(const void* from, int64_t stride) {
    LoadTile(kTile, from, stride);
  }
  template <int kTile>
  static void Store(void* to, int64_t stride) {
    StoreTile(kTile, to, stride);
  }
  template <int kC, int kA, int kB>
  static void DotInt8() {
    DotTilesInt8(kC, kA, kB);
  }
  template <int kC, int kA, int kB>
  static void DotBf16() {
    DotTilesBf16(kC, kA, kB);
  }

 private:
  static void ZeroTile(int tile);
  static void LoadTile(int tile, const void* from, int64_t stride);
  static void StoreTile(int tile, void* to, int64_t stride);
  static void DotTilesInt8(int c, int a, int b);
  static void DotTilesBf16(int c, int a, int b);
};

}  // namespace fastgen::testing
