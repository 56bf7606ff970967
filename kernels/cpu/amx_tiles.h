// AmxTiles: the tile instructions of AMX, one static function each, and the shapes that they need.
//
// Own inline assembly: GCC 12's intrinsics forget that loading a configuration reads 64 bytes and
// that tile loads and stores touch memory, so it deletes or moves the stores before them. Every
// function here is volatile, which keeps their order among each other, and those that touch memory
// clobber it. The eight tiles have 16 rows of 64 bytes at most. Kernels (gemm_amx_int8.h and
// others) are templates over this class; tests/kernels/emulated_tiles.h has the same functions in
// plain C++. Invariant: a thread configures its tiles before it uses one, and a tile is used only
// in its configured shape; else the CPU raises SIGILL. Configuring costs 140 ns, so a thread keeps
// it. Thread rule: tiles and their configuration belong to the calling thread; the process needs
// TilesPermitted() (tile_permission.h) first.
// Tested by tests/kernels/amx_test.cc.
#pragma once

#include <cstdint>

namespace fastgen::cpu {

// What LDTILECFG reads: palette 1, then the row length and the number of rows of each tile.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

struct AmxTiles {
  static void Configure(const TileConfig& config) {
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  // Back to the state of a thread that never configured: the tiles need not be saved any more.
  static void Release() { asm volatile("tilerelease" : : : "memory"); }

  template <int kTile>
  static void Zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }

  // Rows lie `stride` bytes apart.
  template <int kTile>
  static void Load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(from), "r"(stride) : "memory");
  }
  template <int kTile>
  static void Store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(to), "r"(stride) : "memory");
  }

  // c[m][n] += sum over k and b < 4 of a[m][4 k + b] * b[k][4 n + b]: int8 x int8 in int32.
  template <int kC, int kA, int kB>
  static void DotInt8() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }

  // c[m][n] += even + odd, where even is the sum over k of a[m][2 k] * b[k][2 n] and odd that of
  // a[m][2 k + 1] * b[k][2 n + 1]: bf16 x bf16, both sums fused and in fp32, denormals taken and
  // left as zeros, rounded to nearest even whatever MXCSR says.
  template <int kC, int kA, int kB>
  static void DotBf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
};

// What a thread's tiles are configured for, so that kernels configure them only when that changes.
// Tiles 0-3 are sums, 4 and 5 activations of 16 rows, 6 and 7 weights of 16 outputs.
template <typename Tiles>
struct TileUse {
  static constexpr TileConfig Config(int activation_bytes, int weight_rows) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) {
      config.rows[tile] = static_cast<uint8_t>(tile < 6 ? 16 : weight_rows);
      config.row_bytes[tile] =
          static_cast<uint16_t>(tile == 4 || tile == 5 ? activation_bytes : 64);
    }
    return config;
  }

  // `config` outlives the thread.
  static void Configure(const TileConfig& config) {
    const TileConfig*& configured = Configured();
    if (configured == &config) return;
    Tiles::Configure(config);
    configured = &config;
  }
  static void Release() {
    if (Configured() == nullptr) return;
    Tiles::Release();
    Configured() = nullptr;
  }

 private:
  static const TileConfig*& Configured() {
    static thread_local const TileConfig* configured = nullptr;
    return configured;
  }
};

}  // namespace fastgen::cpu
