#include <cstring>
#include <limits>
#include <thread>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/tile_permission.h"
#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/emulated_amx.h"
#include "tests/kernels/emulated_tiles.h"
#include "tests/kernels/random_weights.h"
#include "tests/testing/reference_ops.h"
#include "tests/testing/skip.h"

namespace fastgen::testing {
namespace {

using cpu::kMinInt8BlockRows;
using cpu::MatMulKernels;

bool CanEmulate() { return cpu::HasIsa(cpu::Isa::kAvx512Bf16); }

// Also CPUs with AMX: the emulation replaces their tiles only.
bool SkipWithoutAvx512() {
  if (CanEmulate()) return false;
  SkipCase("the kernels around the emulated tiles need AVX-512 with BF16");
  return true;
}

// The kernels to compare: emulated tiles, the CPU's own where it has them.
enum class Kernels { kVnni, kEmulated, kAmx };

const char* NameOf(Kernels kernels) {
  return kernels == Kernels::kVnni ? "vnni" : kernels == Kernels::kEmulated ? "emulated" : "amx";
}

std::vector<Kernels> TileKernels() {
  std::vector<Kernels> all = {Kernels::kEmulated};
  if (cpu::TilesPermitted()) all.push_back(Kernels::kAmx);
  return all;
}

MatMulKernels Fill(Kernels which) {
  MatMulKernels kernels;
  if (which == Kernels::kEmulated) {
    FillMatMulAmxEmulated(&kernels);
  } else {
    cpu::FillMatMulAvx512Bf16(&kernels);
    if (which == Kernels::kAmx) cpu::FillMatMulAmx(&kernels);
  }
  return kernels;
}

// A product and what it takes, without a backend around it.
class Multiplier {
 public:
  explicit Multiplier(Kernels which, int num_threads = 1,
                      int64_t min_int8_block_rows = kMinInt8BlockRows,
                      ComputeDType compute_dtype = ComputeDType::kAuto)
      : kernels_(Fill(which)),
        pool_(num_threads),
        matmul_(kernels_, row_kernels_, compute_dtype, &pool_, min_int8_block_rows) {
    REQUIRE(matmul_.Reserve(320, 8192).ok());
  }

  const cpu::CpuPackedMatrix& Pack(const std::vector<MatrixSource>& parts) {
    auto packed = cpu::CpuPackedMatrix::Pack(absl::MakeSpan(parts), &arena_, &pool_);
    REQUIRE(packed.ok());
    packed_.push_back(*std::move(packed));
    return *packed_.back();
  }

  std::vector<float> Run(std::vector<float> x, int64_t rows, const cpu::CpuPackedMatrix& w) {
    std::vector<float> out(rows * w.rows(), -1);
    Run(View(x, rows, w.cols()), w, &out);
    return out;
  }
  void Run(const MatMulInput& input, const cpu::CpuPackedMatrix& w, std::vector<float>* out) {
    matmul_.Run(input, w, Tensor(), Tensor(), View(*out, input.rows(), w.rows()));
  }
  std::vector<float> Run(const std::vector<float>& x, int64_t rows, const MatrixSource& source) {
    return Run(x, rows, Pack({source}));
  }

 private:
  const MatMulKernels kernels_;
  const cpu::RowKernels row_kernels_ = cpu::MakeKernelTable(cpu::Isa::kAvx512).rows;
  cpu::ThreadPool pool_;
  cpu::HostArena arena_;
  cpu::MatMul matmul_;
  std::vector<std::unique_ptr<cpu::CpuPackedMatrix>> packed_;
};

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Widths that are whole blocks of every type, one of them more than a chunk of groups.
std::vector<int64_t> WidthsOf(DType dtype) {
  if (Info(dtype).block_elements == 256) return {256, 1280};
  return {32, 96, 1120};
}

std::vector<float> Rounded(std::vector<float> x) {
  for (float& value : x) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    std::memcpy(&value, &bits, 4);
  }
  return x;
}

TEST_CASE("rows go through blocks of sixteen where that is not slower", "[kernels][amx]") {
  CHECK(cpu::Int8BlockRows(8, 1) == 0);
  CHECK(cpu::Int8BlockRows(9, 9) == 16);
  CHECK(cpu::Int8BlockRows(11, 12) == 0);
  CHECK(cpu::Int8BlockRows(12, 12) == 16);
  CHECK(cpu::Int8BlockRows(16, 12) == 16);
  CHECK(cpu::Int8BlockRows(24, 9) == 16);
  CHECK(cpu::Int8BlockRows(27, 12) == 16);
  CHECK(cpu::Int8BlockRows(28, 12) == 32);
  CHECK(cpu::Int8BlockRows(63, 64) == 0);
  CHECK(cpu::Int8BlockRows(79, 64) == 64);
  CHECK(cpu::Int8BlockRows(1000, std::numeric_limits<int64_t>::max()) == 0);
}

TEST_CASE("int8 products through tiles have the bits of those through vectors", "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  Multiplier vnni(Kernels::kVnni);
  for (Kernels which : TileKernels()) {
    Multiplier tiles(which, 1, 9);
    for (DType dtype : BlockDTypes()) {
      for (int64_t cols : WidthsOf(dtype)) {
        const RandomWeights weights(dtype, 37, cols, 5);
        const auto& on_vnni = vnni.Pack({weights.source});
        const auto& on_tiles = tiles.Pack({weights.source});
        const std::vector<float> x = Gaussian(40 * cols, 6);
        for (int64_t rows = 1; rows <= 40; ++rows) {
          const std::vector<float> some(x.begin(), x.begin() + rows * cols);
          INFO(NameOf(which) << " " << Info(dtype).name << " " << rows << " x " << cols);
          REQUIRE(SameBits(tiles.Run(some, rows, on_tiles), vnni.Run(some, rows, on_vnni)));
        }
      }
    }
  }
}

TEST_CASE("int8 weights made at load go through tiles to the same bits", "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const WeightForm form = GENERATE(WeightForm::kInt8Group32, WeightForm::kInt8Group128,
                                   WeightForm::kInt4Group32, WeightForm::kInt4Group128);
  Multiplier vnni(Kernels::kVnni);
  for (Kernels which : TileKernels()) {
    Multiplier tiles(which, 1, 9);
    // 96: less than a block of 128. 1184: a chunk of 32 groups, then a block and a part of one.
    for (int64_t cols : {96, 1184}) {
      RandomWeights weights(DType::kF32, 20, cols, 5);
      weights.source.form = form;
      const std::vector<float> x = Gaussian(26 * cols, 6);
      INFO(NameOf(which) << " " << FormName(form) << " x " << cols);
      CHECK(SameBits(tiles.Run(x, 26, weights.source), vnni.Run(x, 26, weights.source)));
    }
  }
}

TEST_CASE("int8 tiles take zeros, huge values, single values and NaN as vectors do",
          "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const int64_t rows = 20, cols = 256;
  Multiplier vnni(Kernels::kVnni);
  for (Kernels which : TileKernels()) {
    Multiplier tiles(which, 1, 9);
    for (DType dtype : BlockDTypes()) {
      const RandomWeights weights(dtype, 16, cols, 7);
      const auto& on_vnni = vnni.Pack({weights.source});
      const auto& on_tiles = tiles.Pack({weights.source});
      const std::vector<float> clean = Gaussian(rows * cols, 8);
      INFO(NameOf(which) << " " << Info(dtype).name);
      const std::vector<float> clean_out = tiles.Run(clean, rows, on_tiles);
      for (float value : {0.0f, 1e-35f, 1e30f, -1e38f, inf, nan}) {
        std::vector<float> x = clean;
        for (int64_t k = 0; k < cols; ++k) x[2 * cols + k] = value;
        // One value a group, at another place in each.
        for (int64_t k = 0; k < cols; ++k) x[3 * cols + k] = k % 33 == 0 ? value : 0;
        const std::vector<float> out = tiles.Run(x, rows, on_tiles);
        const std::vector<float> expected = vnni.Run(x, rows, on_vnni);
        bool same = true, others_same = true;
        for (int64_t i = 0; i < rows * 16; ++i) {
          const bool both_nan = std::isnan(out[i]) && std::isnan(expected[i]);
          same = same && (both_nan || std::memcmp(&out[i], &expected[i], 4) == 0);
          const int64_t row = i / 16;
          if (row != 2 && row != 3) others_same = others_same && out[i] == clean_out[i];
        }
        INFO("value " << value);
        CHECK(same);
        CHECK(others_same);
      }
    }
  }
}

TEST_CASE("int8 tiles do not saturate at the largest values", "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const int64_t rows = 16, cols = 256;
  for (Kernels which : TileKernels()) {
    Multiplier tiles(which, 1, 9);
    for (DType dtype : BlockDTypes()) {
      for (uint8_t fill : {0x00, 0x7f, 0x80, 0xff}) {
        RandomWeights weights(dtype, 16, cols, 1);
        std::memset(weights.bytes.data(), fill, weights.bytes.size());
        for (size_t i = 0; i < weights.bytes.size(); i += Info(dtype).block_bytes) {
          const uint16_t one = 0x3c00;
          for (int at : BlockScaleOffsets(dtype)) std::memcpy(&weights.bytes[i + at], &one, 2);
        }
        for (float sign : {1.0f, -1.0f}) {
          const std::vector<float> x(rows * cols, sign);
          INFO(NameOf(which) << " " << Info(dtype).name << " fill " << int{fill} << " " << sign);
          CHECK(RelativeError(tiles.Run(x, rows, weights.source),
                              ReferenceMatMul(x, rows, weights.source)) < 1e-6);
        }
      }
    }
  }
}

TEST_CASE("bf16 products through tiles agree with double precision", "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  for (Kernels which : TileKernels()) {
    Multiplier tiles(which);
    // Ends of tiles, of pairs, of panels; one and several panels and row blocks.
    for (const auto& [outputs, cols] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {16, 31}, {17, 33}, {33, 64}, {70, 95}, {300, 160}}) {
      const RandomWeights weights(DType::kBF16, outputs, cols, 3);
      const auto& packed = tiles.Pack({weights.source});
      for (int64_t rows : {1, 2, 8, 15, 16, 17, 33, 40, 130}) {
        const std::vector<float> x = Gaussian(rows * cols, 4);
        INFO(NameOf(which) << " " << rows << " x " << cols << " x " << outputs);
        CHECK(RelativeError(tiles.Run(x, rows, packed),
                            ReferenceMatMul(Rounded(x), rows, weights.source)) < 2e-6);
      }
    }
  }
}

TEST_CASE("fp8 products go through tiles to their double-precision values", "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const int64_t rows = 37, cols = 96, outputs = 40;
  RandomWeights weights(DType::kF32, outputs, cols, 3);
  weights.source.form = WeightForm::kFp8Rows;
  const std::vector<float> x = Gaussian(rows * cols, 4);
  const std::vector<float> expected = Multiplier(Kernels::kVnni).Run(x, rows, weights.source);
  for (Kernels which : TileKernels()) {
    INFO(NameOf(which));
    // The same products of e4m3 values, summed in another order.
    CHECK(RelativeError(Multiplier(which, 2).Run(x, rows, weights.source), expected) < 1e-6);
  }
}

TEST_CASE("a row has the same bits through tiles alone, in a batch, and on any number of threads",
          "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const int64_t rows = 45, cols = 224, outputs = 290;
  for (Kernels which : TileKernels()) {
    for (DType dtype : {DType::kBF16, DType::kQ4_1, DType::kQ8_0}) {
      const RandomWeights weights(dtype, outputs, cols, 12);
      const std::vector<float> x = Gaussian(rows * cols, 7);
      Multiplier one(which);
      const auto& packed = one.Pack({weights.source});
      const std::vector<float> whole = one.Run(x, rows, packed);
      for (int num_threads : {2, 3, 4}) {
        INFO(NameOf(which) << " " << Info(dtype).name << " on " << num_threads << " threads");
        CHECK(SameBits(whole, Multiplier(which, num_threads).Run(x, rows, weights.source)));
      }
      for (int64_t piece : {1, 7, 16, 33}) {
        std::vector<float> joined;
        for (int64_t row = 0; row < rows; row += piece) {
          const int64_t count = std::min(piece, rows - row);
          const std::vector<float> part(x.begin() + row * cols, x.begin() + (row + count) * cols);
          const std::vector<float> out = one.Run(part, count, packed);
          joined.insert(joined.end(), out.begin(), out.end());
        }
        INFO(NameOf(which) << " " << Info(dtype).name << " in pieces of " << piece);
        CHECK(SameBits(whole, joined));
      }
    }
  }
}

TEST_CASE("more rows than stay in a core's cache go through tiles range by range",
          "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const int64_t rows = 109, cols = 8192, outputs = 20;
  const std::vector<float> x = Gaussian(rows * cols, 7);
  for (Kernels which : TileKernels()) {
    for (DType dtype : {DType::kBF16, DType::kQ4_1}) {
      const RandomWeights weights(dtype, outputs, cols, 12);
      Multiplier tiles(which, 2);
      const auto& packed = tiles.Pack({weights.source});
      const std::vector<float> whole = tiles.Run(x, rows, packed);
      for (int64_t row : {0, 63, 64, 95, 96, 108}) {
        const std::vector<float> one(x.begin() + row * cols, x.begin() + (row + 1) * cols);
        INFO(NameOf(which) << " " << Info(dtype).name << " row " << row);
        CHECK(SameBits({whole.begin() + row * outputs, whole.begin() + (row + 1) * outputs},
                       tiles.Run(one, 1, packed)));
      }
    }
  }
}

TEST_CASE("a NaN or infinity poisons its own row of bf16 tiles only", "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const int64_t rows = 21, cols = 70, outputs = 40;
  const RandomWeights weights(DType::kBF16, outputs, cols, 4);
  for (Kernels which : TileKernels()) {
    Multiplier tiles(which);
    std::vector<float> x = Gaussian(rows * cols, 2);
    const std::vector<float> clean = tiles.Run(x, rows, weights.source);
    for (float poison :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      x[18 * cols + 69] = poison;
      const std::vector<float> out = tiles.Run(x, rows, weights.source);
      bool others_equal = true, poisoned = true;
      for (int64_t i = 0; i < rows * outputs; ++i) {
        if (i / outputs == 18) {
          poisoned = poisoned && !std::isfinite(out[i]);
        } else {
          others_equal = others_equal && out[i] == clean[i];
        }
      }
      INFO(NameOf(which) << " " << poison);
      CHECK(others_equal);
      CHECK(poisoned);
    }
  }
}

TEST_CASE("parts of one matrix that tiles take and that they do not keep their places",
          "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const int64_t rows = 29, cols = 256;
  const RandomWeights q(DType::kQ4_K, 40, cols, 1), k(DType::kQ6_K, 24, cols, 2),
      v(DType::kBF16, 24, cols, 3), o(DType::kF32, 7, cols, 4);
  const std::vector<MatrixSource> parts = {q.source, k.source, v.source, o.source};
  const std::vector<float> x = Gaussian(rows * cols, 9);
  Multiplier vnni(Kernels::kVnni);
  const std::vector<float> expected = vnni.Run(x, rows, vnni.Pack(parts));
  for (Kernels which : TileKernels()) {
    Multiplier tiles(which, 2);
    const std::vector<float> out = tiles.Run(x, rows, tiles.Pack(parts));
    INFO(NameOf(which));
    bool same = true;
    for (int64_t i = 0; i < rows * 95; ++i) {
      const bool is_bf16 = i % 95 >= 64 && i % 95 < 88;
      same = same && (is_bf16 ? std::abs(out[i] - expected[i]) < 1e-5f : out[i] == expected[i]);
    }
    CHECK(same);
  }
}

TEST_CASE("in fp32 mode nothing goes through tiles", "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  for (DType dtype : {DType::kBF16, DType::kQ4_0}) {
    const RandomWeights weights(dtype, 32, 64, 4);
    const std::vector<float> x = Gaussian(32 * 64, 2);
    Multiplier tiles(Kernels::kEmulated, 1, 9, ComputeDType::kF32);
    const int64_t before = EmulatedTiles::NumConfigured();
    CHECK(RelativeError(tiles.Run(x, 32, weights.source), ReferenceMatMul(x, 32, weights.source)) <
          2e-6);
    CHECK(EmulatedTiles::NumConfigured() == before);
  }
}

TEST_CASE("normed and gated rows go through tiles as rows that were normed and gated before",
          "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const int64_t cols = 1120, outputs = 40;
  const cpu::RowKernels row_kernels = cpu::MakeKernelTable(cpu::Isa::kAvx512).rows;
  for (Kernels which : TileKernels()) {
    for (DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kBF16}) {
      Multiplier tiles(which, 3, 9);
      const RandomWeights weights(dtype, outputs, cols, 3);
      const auto& packed = tiles.Pack({weights.source});
      for (int64_t rows : {9, 16, 43}) {
        std::vector<float> x = Gaussian(rows * 2 * cols, 4), weight = Gaussian(cols, 5);
        std::vector<float> normed(rows * cols), gated(rows * cols);
        std::vector<float> of_normed(rows * outputs), of_gated(rows * outputs);
        for (int64_t row = 0; row < rows; ++row) {
          const float* from = x.data() + row * 2 * cols;
          row_kernels.scale(from, row_kernels.inverse_rms(from, cols, 1e-5f), weight.data(), cols,
                            normed.data() + row * cols);
          row_kernels.silu_mul(from, from + cols, cols, gated.data() + row * cols);
        }
        const Tensor wide = View(x, rows, 2 * cols);
        tiles.Run(MatMulInput::RmsNorm(wide.Cols(0, cols), View(weight, 1, cols), 1e-5f), packed,
                  &of_normed);
        tiles.Run(MatMulInput::SiluMul(wide), packed, &of_gated);
        INFO(NameOf(which) << " " << Info(dtype).name << " " << rows << " rows");
        CHECK(SameBits(of_normed, tiles.Run(normed, rows, packed)));
        CHECK(SameBits(of_gated, tiles.Run(gated, rows, packed)));
      }
    }
  }
}

TEST_CASE("a thread configures its tiles once for all products of a kind", "[kernels][amx]") {
  if (SkipWithoutAvx512()) return;
  const RandomWeights bf16(DType::kBF16, 64, 64, 4), q4(DType::kQ4_0, 64, 64, 4);
  const std::vector<float> x = Gaussian(16 * 64, 2);
  MatMulKernels kernels;
  FillMatMulAmxEmulated(&kernels);
  kernels.blocks.release();
  Multiplier tiles(Kernels::kEmulated);
  const int64_t before = EmulatedTiles::NumConfigured();
  for (int i = 0; i < 3; ++i) tiles.Run(x, 16, bf16.source);
  CHECK(EmulatedTiles::NumConfigured() == before + 1);
  for (int i = 0; i < 3; ++i) tiles.Run(x, 16, q4.source);
  CHECK(EmulatedTiles::NumConfigured() == before + 2);
  kernels.blocks.release();
  kernels.blocks.release();
  tiles.Run(x, 16, q4.source);
  CHECK(EmulatedTiles::NumConfigured() == before + 3);
}

// ---- the CPU's tiles against their emulation ----

// Tiles 0, 1: sums; 2: 11 rows x 24 bytes; 3: 6 rows x 52 bytes. None is full.
cpu::TileConfig OddShapes() {
  cpu::TileConfig config;
  const int shapes[4][2] = {{11, 52}, {16, 64}, {11, 24}, {6, 52}};
  for (int i = 0; i < 4; ++i) {
    config.rows[i] = static_cast<uint8_t>(shapes[i][0]);
    config.row_bytes[i] = static_cast<uint16_t>(shapes[i][1]);
  }
  return config;
}

struct TileBytes {
  uint8_t c[16 * 80];
  uint8_t a[16 * 80];
  uint8_t b[16 * 80];
};

// What one instruction makes of `in`; bytes outside the tile keep 0x55.
template <typename Tiles, bool kIsBf16>
std::vector<uint8_t> Product(const TileBytes& in) {
  std::vector<uint8_t> out(2 * 16 * 80, 0x55);
  // A thread of its own: kernels remember how they left the tiles of this one.
  std::thread thread([&] {
    Tiles::Configure(OddShapes());
    Tiles::template Load<0>(in.c, 80);
    Tiles::template Load<2>(in.a, 72);
    Tiles::template Load<3>(in.b, 64);
    if constexpr (kIsBf16) {
      Tiles::template DotBf16<0, 2, 3>();
    } else {
      Tiles::template DotInt8<0, 2, 3>();
    }
    Tiles::template Store<0>(out.data(), 80);
    Tiles::template Zero<1>();
    Tiles::template Store<1>(out.data() + 16 * 80, 80);
    Tiles::Release();
  });
  thread.join();
  return out;
}

// bf16 of every kind beside ordinary ones: zeros, denormals, infinities, NaN, largest, smallest.
void FillBf16(std::mt19937* random, uint8_t* bytes, size_t size) {
  constexpr uint16_t kSpecial[] = {0x0000, 0x8000, 0x0001, 0x807f, 0x0080, 0x8080,
                                   0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc1};
  for (size_t i = 0; i + 2 <= size; i += 2) {
    const bool is_special = (*random)() % 64 == 0;
    const uint16_t bits =
        is_special ? kSpecial[(*random)() % 11]
                   : static_cast<uint16_t>((*random)() % 2 << 15 | (100 + (*random)() % 60) << 7 |
                                           (*random)() % 128);
    std::memcpy(bytes + i, &bits, 2);
  }
}

TEST_CASE("the CPU's tile instructions do what their emulation does", "[kernels][amx]") {
  if (!cpu::TilesPermitted()) {
    SkipCase("this CPU has no AMX, or the operating system does not allow it");
    return;
  }
  std::mt19937 random(17);
  TileBytes in;
  for (int round = 0; round < 200; ++round) {
    for (uint8_t* bytes : {in.c, in.a, in.b}) {
      for (size_t i = 0; i < sizeof(in.c); ++i) bytes[i] = static_cast<uint8_t>(random());
    }
    INFO("round " << round);
    REQUIRE(Product<cpu::AmxTiles, false>(in) == Product<EmulatedTiles, false>(in));
    for (uint8_t* bytes : {in.c, in.a, in.b}) FillBf16(&random, bytes, sizeof(in.c));
    // Sums are fp32: any bit pattern, many of them denormal in their low half.
    const std::vector<uint8_t> got = Product<cpu::AmxTiles, true>(in);
    const std::vector<uint8_t> expected = Product<EmulatedTiles, true>(in);
    for (size_t i = 0; i < got.size(); i += 4) {
      float a, b;
      std::memcpy(&a, &got[i], 4);
      std::memcpy(&b, &expected[i], 4);
      INFO("value " << i / 4);
      REQUIRE((std::memcmp(&a, &b, 4) == 0 || (std::isnan(a) && std::isnan(b))));
    }
  }
}

TEST_CASE("emulated tiles multiply what the manual says", "[kernels][amx]") {
  TileBytes in = {};
  // Row 2 of A: k = 0..3 are -128, 127, 1, -1; column 3 of B: 127, -128, 5, 7 in its first row.
  const int8_t a[4] = {-128, 127, 1, -1}, b[4] = {127, -128, 5, 7};
  const int32_t start = 1000000;
  std::memcpy(in.a + 2 * 72, a, 4);
  std::memcpy(in.b + 12, b, 4);
  std::memcpy(in.c + 2 * 80 + 12, &start, 4);
  const std::vector<uint8_t> out = Product<EmulatedTiles, false>(in);
  int32_t sum = 0;
  std::memcpy(&sum, &out[2 * 80 + 12], 4);
  CHECK(sum == start - 128 * 127 * 2 + 5 - 7);
  CHECK(out[2 * 80 + 52] == 0x55);  // beyond the row
  CHECK(out[11 * 80] == 0x55);      // beyond the rows

  in = {};
  // 2^-70 * 2^-70 = 2^-140 is denormal and vanishes; odd and even elements are summed apart, so
  // 2^30 - 2^30 leaves the 1 that a single sum would have lost.
  const uint16_t x[4] = {0x1c80, 0x3f80, 0x4e80, 0x3f80},
                 w[2][2] = {{0x1c80, 0x4e80}, {0x3f80, 0xce80}};
  std::memcpy(in.a, x, 8);
  std::memcpy(in.b, w[0], 4);
  std::memcpy(in.b + 64, w[1], 4);
  const std::vector<uint8_t> floats = Product<EmulatedTiles, true>(in);
  float value = -1;
  std::memcpy(&value, &floats[0], 4);
  // even: 2^-140 (flushed) + 2^30 * 1; odd: 1 * 2^30 + 1 * -2^30 = 0.
  CHECK(value == 0x1p30f);
}

}  // namespace
}  // namespace fastgen::testing
