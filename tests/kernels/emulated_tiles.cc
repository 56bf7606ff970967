#include "tests/kernels/emulated_tiles.h"

#include <atomic>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace fastgen::testing {
namespace {

constexpr int kNumTiles = 8;
constexpr int kMaxRows = 16;
constexpr int kMaxRowBytes = 64;

struct Tile {
  int rows = 0;
  int row_bytes = 0;
  uint8_t bytes[kMaxRows][kMaxRowBytes] = {};

  template <typename T>
  T At(int row, int column) const {
    T value;
    std::memcpy(&value, bytes[row] + column * sizeof(T), sizeof(T));
    return value;
  }
  template <typename T>
  void Set(int row, int column, T value) {
    std::memcpy(bytes[row] + column * sizeof(T), &value, sizeof(T));
  }
};

struct State {
  Tile tiles[kNumTiles];
};
thread_local State state;
std::atomic<int64_t> num_configured{0};

Tile& Get(int index) {
  Tile& tile = state.tiles[index];
  CHECK_GT(tile.rows, 0) << "tile " << index << " is not configured in this thread";
  return tile;
}

void CheckShapes(int c, int a, int b) {
  CHECK(c != a && c != b && a != b);
  CHECK_EQ(Get(c).rows, Get(a).rows);
  CHECK_EQ(Get(c).row_bytes, Get(b).row_bytes);
  CHECK_EQ(Get(a).row_bytes, 4 * Get(b).rows);
}

// Denormals are zeros, and become zeros, of their sign.
float Flush(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

float FromBf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float x;
  std::memcpy(&x, &wide, sizeof(x));
  return Flush(x);
}

}  // namespace

void EmulatedTiles::Configure(const cpu::TileConfig& config) {
  CHECK_EQ(config.palette, 1);
  CHECK_EQ(config.start_row, 0);
  for (uint8_t byte : config.reserved) CHECK_EQ(byte, 0);
  state = {};
  for (int i = 0; i < 16; ++i) {
    CHECK_LE(config.rows[i], i < kNumTiles ? kMaxRows : 0);
    CHECK_LE(config.row_bytes[i], i < kNumTiles ? kMaxRowBytes : 0);
    CHECK_EQ(config.rows[i] == 0, config.row_bytes[i] == 0);
    if (i >= kNumTiles) continue;
    state.tiles[i].rows = config.rows[i];
    state.tiles[i].row_bytes = config.row_bytes[i];
  }
  ++num_configured;
}

void EmulatedTiles::Release() { state = {}; }

int64_t EmulatedTiles::NumConfigured() { return num_configured.load(); }

void EmulatedTiles::ZeroTile(int tile) { std::memset(Get(tile).bytes, 0, sizeof(Tile::bytes)); }

void EmulatedTiles::LoadTile(int index, const void* from, int64_t stride) {
  ZeroTile(index);
  Tile& tile = Get(index);
  for (int r = 0; r < tile.rows; ++r) {
    std::memcpy(tile.bytes[r], static_cast<const uint8_t*>(from) + r * stride, tile.row_bytes);
  }
}

void EmulatedTiles::StoreTile(int index, void* to, int64_t stride) {
  const Tile& tile = Get(index);
  for (int r = 0; r < tile.rows; ++r) {
    std::memcpy(static_cast<uint8_t*>(to) + r * stride, tile.bytes[r], tile.row_bytes);
  }
}

void EmulatedTiles::DotTilesInt8(int c_index, int a_index, int b_index) {
  CheckShapes(c_index, a_index, b_index);
  Tile &c = Get(c_index), &a = Get(a_index), &b = Get(b_index);
  for (int m = 0; m < c.rows; ++m) {
    for (int n = 0; n < c.row_bytes / 4; ++n) {
      uint32_t sum = c.At<uint32_t>(m, n);  // wraps as the CPU's does
      for (int k = 0; k < b.rows; ++k) {
        for (int i = 0; i < 4; ++i) {
          sum += static_cast<uint32_t>(int32_t{a.At<int8_t>(m, 4 * k + i)} *
                                       b.At<int8_t>(k, 4 * n + i));
        }
      }
      c.Set(m, n, sum);
    }
  }
}

void EmulatedTiles::DotTilesBf16(int c_index, int a_index, int b_index) {
  CheckShapes(c_index, a_index, b_index);
  Tile &c = Get(c_index), &a = Get(a_index), &b = Get(b_index);
  for (int m = 0; m < c.rows; ++m) {
    for (int n = 0; n < c.row_bytes / 4; ++n) {
      float sums[2] = {0, 0};
      for (int k = 0; k < b.rows; ++k) {
        for (int i = 0; i < 2; ++i) {
          const float x = FromBf16(a.At<uint16_t>(m, 2 * k + i));
          const float w = FromBf16(b.At<uint16_t>(k, 2 * n + i));
          sums[i] = Flush(std::fma(x, w, sums[i]));
        }
      }
      const float dot = Flush(sums[0] + sums[1]);
      c.Set(m, n, Flush(Flush(c.At<float>(m, n)) + dot));
    }
  }
}

}  // namespace fastgen::testing
