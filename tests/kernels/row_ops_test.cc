#include <cmath>
#include <cstring>
#include <limits>

#include "tests/kernels/products_under_test.h"
#include "tests/testing/reference_ops.h"

namespace fastgen::testing {
namespace {

TEST_CASE("RMSNorm agrees with double precision", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (int64_t hidden : {8, 96, 144, 576, 1000}) {
    const InputReader reader(backend.get(), hidden);
    for (int64_t rows : {1, 5, 64}) {
      const std::vector<float> x = Gaussian(rows * hidden, 1, 3), weight = Gaussian(hidden, 2);
      INFO(backend->Describe() << " " << rows << " x " << hidden);
      CHECK(RelativeError(reader.RmsNorm(x, weight, 1e-5f), ReferenceRmsNorm(x, weight, 1e-5)) <
            1e-6);
    }
  }
}

TEST_CASE("heads of q and k are normed each by its own statistics, v is left alone", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (int64_t head_dim : {8, 40, 64, 128}) {
    const AttentionShape shape = {3, 2, head_dim, 1, 0};
    const int64_t width = 7 * head_dim;
    std::vector<float> q_weight = Gaussian(head_dim, 1), k_weight = Gaussian(head_dim, 2);
    const Tensor q_view(q_weight.data(), DType::kF32, {head_dim});
    const Tensor k_view(k_weight.data(), DType::kF32, {head_dim});
    for (int64_t rows : {1, 5, 70}) {
      std::vector<float> qkv = Gaussian(rows * width, 3, 2);
      // Heads of different magnitudes: a neighbour's statistics would show.
      for (int64_t i = 0; i < rows * width; ++i) {
        qkv[i] *= 1 + 50 * static_cast<float>(i / head_dim % 3);
      }
      const std::vector<float> before = qkv;
      const std::vector<double> expected =
          ReferenceRmsNormQueriesAndKeys(before, shape, q_weight, k_weight, 1e-6);
      backend->RmsNormQueriesAndKeys(View(qkv, rows, width), shape, q_view, k_view, 1e-6f);
      INFO(backend->Describe() << " " << rows << " rows, head_dim " << head_dim);
      for (int64_t head = 0; head < rows * 7; ++head) {
        const int64_t at = head * head_dim;
        const double error = RelativeError(
            std::vector<float>(qkv.begin() + at, qkv.begin() + at + head_dim),
            std::vector<double>(expected.begin() + at, expected.begin() + at + head_dim));
        CHECK(error < 1e-6);
      }
      CHECK(std::equal(qkv.end() - 2 * head_dim, qkv.end(), before.end() - 2 * head_dim));
      // The last row alone gives the same bits.
      std::vector<float> alone(before.end() - width, before.end());
      backend->RmsNormQueriesAndKeys(View(alone, 1, width), shape, q_view, k_view, 1e-6f);
      CHECK(std::equal(alone.begin(), alone.end(), qkv.end() - width));
    }
  }
}

TEST_CASE("SiLU agrees with double precision at every magnitude", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (int64_t ffn : {3, 24, 100, 1536}) {
    std::vector<float> gate_up = Gaussian(7 * 2 * ffn, 1, 5);
    gate_up[0] = 200;
    gate_up[1] = -200;
    gate_up[2] = 0;
    const std::vector<float> out = InputReader(backend.get(), ffn).SiluMul(gate_up);
    INFO(backend->Describe() << " ffn " << ffn);
    CHECK(RelativeError(out, ReferenceSiluMul(gate_up, ffn)) < 1e-6);
    CHECK(std::abs(out[1]) < 1e-30f);
  }
}

TEST_CASE("SiLU and RMSNorm pass a NaN on", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  std::vector<float> x(2 * 32, 1.0f);
  x[5] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> normed =
      InputReader(backend.get(), 32).RmsNorm(x, std::vector<float>(32, 1), 1e-5f);
  CHECK(std::isnan(normed[0]));
  CHECK(normed[32] == Approx(1));
  const std::vector<float> gated = InputReader(backend.get(), 16).SiluMul(x);
  CHECK(std::isnan(gated[5]));
  CHECK(gated[16] == Approx(1 / (1 + std::exp(-1.0))));
}

TEST_CASE("RoPE rotates q and k by position and writes k and v to their slots", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const int64_t head_dim = GENERATE(8, 16, 64, 80, 128);
  const AttentionShape shape = {3, 1, head_dim, 1, 0};
  const int64_t rows = 9, width = 5 * head_dim, block_size = 4, num_blocks = 6;
  std::vector<float> qkv = Gaussian(rows * width, 4), cos_sin = Gaussian(20 * head_dim, 5);
  const std::vector<float> before = qkv;
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  for (int64_t i = 0; i < rows; ++i) {
    positions.push_back(static_cast<int32_t>(2 * i + 1));
    slots.push_back(i == 4 ? -1 : (i * 7) % 24);
  }
  const int64_t count = num_blocks * block_size * head_dim;
  auto k_memory = backend->Allocate(BytesOf(backend->kv_dtype(), count));
  auto v_memory = backend->Allocate(BytesOf(backend->kv_dtype(), count));
  REQUIRE((k_memory.ok() && v_memory.ok()));
  const Tensor k((*k_memory)->data(), backend->kv_dtype(), {num_blocks, 1, block_size, head_dim});
  const Tensor v((*v_memory)->data(), backend->kv_dtype(), {num_blocks, 1, block_size, head_dim});
  backend->RopeAndWriteKv(View(qkv, rows, width), shape, View(cos_sin, 20, head_dim),
                          absl::MakeSpan(positions), absl::MakeSpan(slots), k, v);
  // Pages as attention_kernel.h describes them: of 4 slots, keys by depth, in pairs where pairs are
  // multiplied; values by slot, likewise.
  const bool in_pairs = backend->kv_dtype() == DType::kBF16 &&
                        (options.cpu_isa == "avx512-bf16" || options.cpu_isa == "amx");
  const auto element = [&](const Tensor& cache, int64_t index) {
    if (cache.dtype == DType::kF32) return cache.as<float>()[index];
    const uint32_t bits = uint32_t{cache.as<uint16_t>()[index]} << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  };
  const auto key = [&](int64_t slot, int64_t d) {
    const int64_t unit = in_pairs ? 2 : 1, page = slot / 4 * 4 * head_dim;
    return element(k, page + (d / unit * 4 + slot % 4) * unit + d % unit);
  };
  const auto value = [&](int64_t slot, int64_t d) {
    const int64_t unit = in_pairs ? 2 : 1;
    return element(v, (slot / unit * head_dim + d) * unit + slot % unit);
  };
  const double page_error = backend->kv_dtype() == DType::kF32 ? 1e-6 : 1.0 / 256;
  for (int64_t row = 0; row < rows; ++row) {
    const auto angles = cos_sin.begin() + positions[row] * head_dim;
    for (int64_t head = 0; head < 4; ++head) {
      const auto at = before.begin() + row * width + head * head_dim;
      const std::vector<double> rotated = ReferenceRope(
          std::vector<double>(at, at + head_dim), std::vector<double>(angles, angles + head_dim));
      const auto got = qkv.begin() + row * width + head * head_dim;
      INFO(backend->Describe() << " row " << row << " head " << head);
      CHECK(RelativeError(std::vector<float>(got, got + head_dim), rotated) < 1e-6);
      if (head < 3 || slots[row] < 0) continue;
      std::vector<float> keys, values;
      for (int64_t d = 0; d < head_dim; ++d) {
        keys.push_back(key(slots[row], d));
        values.push_back(value(slots[row], d));
      }
      CHECK(RelativeError(keys, rotated) < page_error);
      const auto value_at = before.begin() + row * width + 4 * head_dim;
      CHECK(RelativeError(values, std::vector<float>(value_at, value_at + head_dim)) < page_error);
    }
  }
}

TEST_CASE("gathering and copying move the rows that were asked for", "[kernels]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 2));
  std::vector<float> x = Gaussian(6 * 10, 1), out(3 * 10), host(3 * 4);
  const std::vector<int32_t> indices = {5, 0, 5};
  backend->GatherRows(View(x, 6, 10), absl::MakeSpan(indices), View(out, 3, 10));
  for (int64_t i = 0; i < 30; ++i) CHECK(out[i] == x[indices[i / 10] * 10 + i % 10]);
  backend->CopyToHost(View(out, 3, 10).Cols(2, 4), host.data());
  for (int64_t i = 0; i < 12; ++i) CHECK(host[i] == out[i / 4 * 10 + 2 + i % 4]);
}

}  // namespace
}  // namespace fastgen::testing
