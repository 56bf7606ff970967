// kernels_bench: the CPU backend's products against what this machine can do, probed in the same
// process.
//
//   kernels_bench [--isa avx512|avx2|generic] [--threads N] [--fp32] [--quick]
// Prints, for matrices of the default model and of a larger one, GB/s of weights at 1 row as a
// fraction of a read probe and GOP/s at more rows as a fraction of an instruction probe (a
// multiply-add counts as 2), then the other ops' times. With --threads 1 times are the thread's
// processor time, so that a busy machine does not count. Matrices rotate through more memory than
// the caches hold, as a model's layers do. A figure is the median of short runs; on a shared
// machine run it several times. Not a test: nothing fails.
#include <immintrin.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "kernels/make_backend.h"
#include "tests/testing/block_scales.h"

namespace fastgen {
namespace {

constexpr int64_t kWorkingSetBytes = 128 << 20;

double Now(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// The clock of this run: wall time, or the only thread's processor time.
clockid_t bench_clock = CLOCK_MONOTONIC;

double Seconds(const std::function<void()>& work) {
  const double start = Now(bench_clock);
  work();
  return Now(bench_clock) - start;
}

double MedianSeconds(int runs, const std::function<void()>& work) {
  work();
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) times.push_back(Seconds(work));
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[runs / 2];
}

void OnThreads(int num_threads, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 1; i < num_threads; ++i) threads.emplace_back(work, i);
  work(0);
  for (std::thread& thread : threads) thread.join();
}

// ---- probes ----

__attribute__((target("avx2"))) int64_t SumBytes(const uint8_t* data, int64_t bytes) {
  __m256i sums[4] = {};
  for (int64_t i = 0; i < bytes; i += 128) {
    for (int j = 0; j < 4; ++j) {
      sums[j] = _mm256_xor_si256(
          sums[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 32 * j)));
    }
  }
  return _mm256_extract_epi64(
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3])), 0);
}

// GB/s of `num_threads` linear streams.
double ReadProbe(Backend* backend, int num_threads) {
  const int64_t bytes = 256 << 20;
  auto buffer = backend->Allocate(bytes);
  CHECK(buffer.ok());
  uint8_t* data = static_cast<uint8_t*>((*buffer)->data());
  std::memset(data, 1, bytes);
  volatile int64_t sink = 0;
  const double seconds = MedianSeconds(7, [&] {
    OnThreads(num_threads, [&](int i) {
      const int64_t part = bytes / num_threads / 128 * 128;
      sink = sink + SumBytes(data + i * part, part);
    });
  });
  return static_cast<double>(bytes) / seconds * 1e-9;
}

__attribute__((target("avx512f,avx512vnni"))) void SpinVnni(int64_t steps) {
  __m512i sums[12];
  // Both loops must unroll, or the sums live in memory.
#pragma GCC unroll 12
  for (auto& sum : sums) sum = _mm512_set1_epi32(1);
  const __m512i a = _mm512_set1_epi8(3);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, a, a);
      asm volatile("" : "+v"(sum));
    }
  }
}

__attribute__((target("avx512f,avx512bf16"))) void SpinBf16(int64_t steps) {
  __m512 sums[12];
  // Both loops must unroll, or the sums live in memory.
#pragma GCC unroll 12
  for (auto& sum : sums) sum = _mm512_set1_ps(1);
  const __m512bh a = (__m512bh)_mm512_set1_epi8(3);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, a, a);
      asm volatile("" : "+v"(sum));
    }
  }
}

__attribute__((target("avx2,fma"))) void SpinFma(int64_t steps) {
  __m256 sums[12];
  // Both loops must unroll, or the sums live in memory.
#pragma GCC unroll 12
  for (auto& sum : sums) sum = _mm256_set1_ps(1);
  const __m256 a = _mm256_set1_ps(0.5f);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm256_fmadd_ps(sum, a, a);
      asm volatile("" : "+x"(sum));
    }
  }
}

// GOP/s of an instruction that does `ops` on each of 12 registers a step.
double SpinProbe(int num_threads, int ops, void (*spin)(int64_t)) {
  const int64_t steps = 1000000;
  const double seconds =
      MedianSeconds(7, [&] { OnThreads(num_threads, [&](int) { spin(steps); }); });
  return 12.0 * ops * static_cast<double>(steps) * num_threads / seconds * 1e-9;
}

// ---- products ----

struct Shape {
  const char* name;
  DType dtype;
  int64_t rows;
  int64_t cols;
};

std::vector<uint8_t> RandomWeights(const Shape& shape) {
  std::mt19937 random(7);
  std::vector<uint8_t> bytes(BytesOf(shape.dtype, shape.rows * shape.cols));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  // Small positive scales or values whatever the format: 0x20.. is about 2^-7 as f16, 2^-63 as bf16
  // and f32.
  const size_t stride = static_cast<size_t>(Info(shape.dtype).block_bytes);
  const std::vector<int> halves =
      IsBlockType(shape.dtype) ? testing::BlockScaleOffsets(shape.dtype) : std::vector<int>{0};
  for (size_t i = 0; i < bytes.size(); i += stride) {
    for (int at : halves) bytes[i + static_cast<size_t>(at) + 1] = 0x20;
    if (shape.dtype == DType::kF32) bytes[i + 3] = 0x20;
  }
  return bytes;
}

struct Machine {
  double read_gbps = 0;
  double int8_gops = 0;
  double bf16_gops = 0;
  double fma_gops = 0;
};

void BenchShape(Backend* backend, const Machine& machine, const Shape& shape, bool quick) {
  const std::vector<uint8_t> weights = RandomWeights(shape);
  std::vector<std::unique_ptr<PackedMatrix>> copies;
  const int64_t bytes = BytesOf(shape.dtype, shape.rows * shape.cols);
  do {
    const MatrixSource source = {weights.data(), shape.dtype, shape.rows, shape.cols, {}};
    auto matrix = backend->PackMatrix({&source, 1});
    CHECK(matrix.ok());
    copies.push_back(*std::move(matrix));
  } while (static_cast<int64_t>(copies.size()) * bytes < kWorkingSetBytes);
  const bool integer = IsBlockType(shape.dtype);
  const double peak = integer                       ? machine.int8_gops
                      : shape.dtype == DType::kBF16 ? machine.bf16_gops
                                                    : machine.fma_gops;
  std::printf("%-10s %5ld x %5ld %-6s", shape.name, shape.rows, shape.cols,
              std::string(Info(shape.dtype).name).c_str());
  for (int64_t rows : {1, 2, 4, 8, 16, 32, 64, 128, 512}) {
    if (quick && rows != 1 && rows != 8 && rows != 32 && rows != 128) continue;
    std::vector<float> x(rows * shape.cols), out(rows * shape.rows);
    std::mt19937 random(3);
    for (float& value : x) value = static_cast<float>(random() % 2001) * 1e-3f - 1;
    const double ops = 2.0 * static_cast<double>(rows * shape.rows * shape.cols);
    // About 5 ms a run.
    const int calls = std::max(
        1, static_cast<int>(5e-3 / std::max(ops / 300e9, static_cast<double>(bytes) / 25e9)));
    size_t next = 0;
    const double seconds =
        MedianSeconds(9,
                      [&] {
                        for (int i = 0; i < calls; ++i, ++next) {
                          backend->MatMul(Tensor(x.data(), DType::kF32, {rows, shape.cols}),
                                          *copies[next % copies.size()], Tensor(), Tensor(),
                                          Tensor(out.data(), DType::kF32, {rows, shape.rows}));
                        }
                      }) /
        calls;
    if (rows == 1) {
      const double gbps = static_cast<double>(copies[0]->bytes()) / seconds * 1e-9;
      std::printf(" | M1 %5.1f us %4.1f GB/s (%.2f)", seconds * 1e6, gbps,
                  gbps / machine.read_gbps);
    } else {
      const double gops = ops / seconds * 1e-9;
      std::printf(" | M%ld %3.0f (%.2f)", rows, gops, gops / peak);
    }
    std::fflush(stdout);
  }
  std::printf("\n");
}

// ---- attention and the small ops ----

void BenchAttention(Backend* backend, int64_t num_sequences, int64_t context, int64_t queries) {
  const AttentionShape shape = {9, 3, 64, 0.125f, 0};
  const int64_t block_size = 64, blocks_per = (context + block_size - 1) / block_size;
  const int64_t num_blocks = num_sequences * blocks_per;
  const int64_t element = Info(backend->kv_dtype()).block_bytes;
  auto k = backend->Allocate(num_blocks * 3 * block_size * 64 * element);
  auto v = backend->Allocate(num_blocks * 3 * block_size * 64 * element);
  CHECK(k.ok() && v.ok());
  std::vector<int32_t> starts, contexts, table;
  for (int64_t s = 0; s <= num_sequences; ++s) starts.push_back(static_cast<int32_t>(s * queries));
  for (int64_t s = 0; s < num_sequences; ++s) contexts.push_back(static_cast<int32_t>(context));
  for (int64_t b = 0; b < num_blocks; ++b) table.push_back(static_cast<int32_t>(b));
  const int64_t rows = num_sequences * queries;
  std::vector<float> q(rows * 576, 0.01f), out(rows * 576);
  const Tensor k_cache((*k)->data(), backend->kv_dtype(), {num_blocks, 3, block_size, 64});
  const Tensor v_cache((*v)->data(), backend->kv_dtype(), {num_blocks, 3, block_size, 64});
  std::memset((*k)->data(), 0, (*k)->bytes());
  std::memset((*v)->data(), 0, (*v)->bytes());
  const double seconds = MedianSeconds(9, [&] {
    backend->PagedAttention(
        Tensor(q.data(), DType::kF32, {rows, 576}), shape,
        {absl::MakeSpan(starts), absl::MakeSpan(contexts), absl::MakeSpan(table), blocks_per},
        k_cache, v_cache, Tensor(out.data(), DType::kF32, {rows, 576}));
  });
  const double bytes = static_cast<double>(num_sequences * context * 3 * 64 * 2 * element);
  const double keys =
      queries == 1 ? static_cast<double>(context) : static_cast<double>(context) - queries / 2.0;
  std::printf(
      "attention %3ld seq x %4ld queries, context %4ld: %8.1f us, %5.1f GB/s of KV, %4.0f "
      "GFLOP/s\n",
      num_sequences, queries, context, seconds * 1e6, bytes / seconds * 1e-9,
      4.0 * 576 * keys * static_cast<double>(rows) / seconds * 1e-9);
}

void BenchSmallOps(Backend* backend, int64_t rows) {
  std::vector<float> hidden(rows * 576, 0.5f), weight(576, 1), wide(rows * 3072, 0.5f),
      ffn(rows * 1536);
  const double norm = MedianSeconds(99, [&] {
    backend->RmsNorm(Tensor(hidden.data(), DType::kF32, {rows, 576}),
                     Tensor(weight.data(), DType::kF32, {576}), 1e-5f,
                     Tensor(hidden.data(), DType::kF32, {rows, 576}));
  });
  const double silu = MedianSeconds(99, [&] {
    backend->SiluMul(Tensor(wide.data(), DType::kF32, {rows, 3072}),
                     Tensor(ffn.data(), DType::kF32, {rows, 1536}));
  });
  const int64_t vocab = 49152;
  std::vector<float> logits(rows * vocab);
  std::mt19937 random(5);
  for (float& logit : logits) logit = static_cast<float>(random() % 20001) * 1e-3f - 10;
  std::vector<SampleRow> samples(rows);
  std::vector<SampleResult> results(rows);
  const auto sample = [&] {
    return MedianSeconds(9,
                         [&] {
                           backend->SampleRows(Tensor(logits.data(), DType::kF32, {rows, vocab}),
                                               absl::MakeSpan(samples), absl::MakeSpan(results));
                         }) *
           1e6;
  };
  const double greedy = sample();
  for (SampleRow& row : samples) row.temperature = 0.7f;
  const double plain = sample();
  for (SampleRow& row : samples) row.top_p = 0.95f;
  const double top_p = sample();
  for (SampleRow& row : samples) row.top_k = 50;
  const double both = sample();
  std::printf(
      "rows %3ld: norm %.1f us, silu-mul %.1f, sample greedy %.1f, temperature %.1f, top-p %.1f, "
      "top-k+p %.1f\n",
      rows, norm * 1e6, silu * 1e6, greedy, plain, top_p, both);
}

int Main(int argc, char** argv) {
  BackendOptions options;
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--quick") {
      quick = true;
    } else if (flag == "--isa" && i + 1 < argc) {
      options.cpu_isa = argv[++i];
    } else if (flag == "--threads" && i + 1 < argc) {
      options.num_threads = std::atoi(argv[++i]);
    } else if (flag == "--fp32") {
      options.compute_dtype = ComputeDType::kF32;
    } else {
      std::fprintf(stderr, "usage: kernels_bench [--isa NAME] [--threads N] [--fp32] [--quick]\n");
      return 2;
    }
  }
  auto made = MakeBackend(options);
  if (!made.ok()) {
    std::fprintf(stderr, "%s\n", made.status().ToString().c_str());
    return 1;
  }
  Backend* backend = made->get();
  Backend::Limits limits;
  limits.max_rows = 1024;
  limits.max_cols = 8192;
  limits.max_context = 8192;
  limits.max_sequences = 64;
  limits.max_logit_rows = 64;
  limits.vocab = 49152;
  limits.attention = {9, 3, 64, 0.125f, 0};
  limits.block_size = 64;
  CHECK(backend->Reserve(limits).ok());
  const int threads = options.num_threads > 0
                          ? options.num_threads
                          : static_cast<int>(std::thread::hardware_concurrency());
  if (threads == 1) bench_clock = CLOCK_THREAD_CPUTIME_ID;
  Machine machine;
  machine.read_gbps = ReadProbe(backend, threads);
  machine.fma_gops = SpinProbe(threads, 16, SpinFma);
  machine.int8_gops = machine.bf16_gops = machine.fma_gops;
  if (__builtin_cpu_supports("avx512vnni")) machine.int8_gops = SpinProbe(threads, 128, SpinVnni);
  if (__builtin_cpu_supports("avx512bf16")) machine.bf16_gops = SpinProbe(threads, 64, SpinBf16);
  std::printf(
      "%s\nprobes: read %.1f GB/s, vpdpbusd %.0f GOP/s, vdpbf16ps %.0f GFLOP/s, fma (256 bits) "
      "%.0f GFLOP/s\n",
      backend->Describe().c_str(), machine.read_gbps, machine.int8_gops, machine.bf16_gops,
      machine.fma_gops);
  const std::vector<Shape> shapes = {
      {"qkv", DType::kQ4_1, 960, 576},      {"o", DType::kQ4_1, 576, 576},
      {"gate_up", DType::kQ4_1, 3072, 576}, {"down", DType::kQ4_1, 576, 1536},
      {"head", DType::kQ8_0, 49152, 576},   {"large", DType::kQ4_1, 2048, 8192},
      {"large", DType::kQ4_0, 8192, 2048},  {"large", DType::kQ5_0, 8192, 2048},
      {"large", DType::kQ5_1, 8192, 2048},  {"large", DType::kQ8_0, 8192, 2048},
      {"large", DType::kQ2_K, 8192, 2048},  {"large", DType::kQ3_K, 8192, 2048},
      {"large", DType::kQ4_K, 8192, 2048},  {"large", DType::kQ5_K, 8192, 2048},
      {"large", DType::kQ6_K, 8192, 2048},  {"large", DType::kIQ4_NL, 8192, 2048},
      {"large", DType::kIQ4_XS, 8192, 2048}, {"large", DType::kBF16, 8192, 2048},
      {"large", DType::kF16, 8192, 2048},   {"large", DType::kF32, 8192, 2048}};
  for (const Shape& shape : shapes) BenchShape(backend, machine, shape, quick);
  for (int64_t sequences : {1, 8, 32}) BenchAttention(backend, sequences, 512, 1);
  BenchAttention(backend, 1, 4096, 1);
  BenchAttention(backend, 1, 512, 512);
  BenchAttention(backend, 1, 2048, 512);
  for (int64_t rows : {1, 8, 32}) BenchSmallOps(backend, rows);
  return 0;
}

}  // namespace
}  // namespace fastgen

int main(int argc, char** argv) { return fastgen::Main(argc, argv); }
