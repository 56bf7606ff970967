#include "tests/bench/ceilings.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/check.h"

namespace fastgen::bench {
namespace {

constexpr double kProbeSeconds = 1.5e-3;
constexpr int64_t kProbeBytes = int64_t{48} << 20;
constexpr double kRunSeconds = 3e-3;  // of a figure's runs, at least
constexpr int kMinRuns = 3;
constexpr int kMaxRuns = 15;
constexpr int kTypicalRuns = 9;

// What is read must be used.
std::atomic<int64_t> sink{0};

__attribute__((target("avx2"))) int64_t ReadAvx2(const uint8_t* data, int64_t bytes) {
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

int64_t ReadSse2(const uint8_t* data, int64_t bytes) {
  __m128i sums[4] = {};
  for (int64_t i = 0; i < bytes; i += 64) {
    for (int j = 0; j < 4; ++j) {
      sums[j] = _mm_xor_si128(sums[j],
                              _mm_load_si128(reinterpret_cast<const __m128i*>(data + i + 16 * j)));
    }
  }
  return _mm_cvtsi128_si64(
      _mm_xor_si128(_mm_xor_si128(sums[0], sums[1]), _mm_xor_si128(sums[2], sums[3])));
}

int64_t ReadBytes(const uint8_t* data, int64_t bytes) {
  return __builtin_cpu_supports("avx2") ? ReadAvx2(data, bytes) : ReadSse2(data, bytes);
}

}  // namespace

PathInstructions InstructionsOf(const std::string& isa) {
  using I = Instruction;
  if (isa == "avx2") return {I::kAvx2Int8, I::kFma256, I::kFma256, I::kFma256};
  if (isa == "avx2-vnni") return {I::kAvxVnni, I::kFma256, I::kFma256, I::kFma256};
  if (isa == "avx512") return {I::kVnni512, I::kFma512, I::kFma512, I::kFma512};
  if (isa == "avx512-bf16") return {I::kVnni512, I::kBf16512, I::kFma512, I::kBf16512};
  if (isa == "amx") return {I::kAmxInt8Fed, I::kAmxBf16Fed, I::kFma512, I::kFma512};
  return {};
}

Ceilings::Ceilings(const BenchTeam* team, int64_t working_set_bytes, double figure_seconds)
    : team_(team), set_bytes_(working_set_bytes), figure_seconds_(figure_seconds) {
  void* memory =
      mmap(nullptr, set_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED) << "no " << set_bytes_ << " bytes for the read probe";
  madvise(memory, set_bytes_, MADV_HUGEPAGE);
  std::memset(memory, 1, set_bytes_);
  set_ = static_cast<uint8_t*>(memory);
}

Ceilings::~Ceilings() { munmap(set_, set_bytes_); }

double Ceilings::ProbeRead() {
  const int64_t bytes = std::min(kProbeBytes, set_bytes_);
  if (next_ + bytes > set_bytes_) next_ = 0;
  const uint8_t* const data = set_ + next_;
  next_ += bytes;
  const int64_t part = bytes / team_->num_threads() / 128 * 128;
  const double seconds =
      team_->Run([&](int thread) { sink += ReadBytes(data + thread * part, part); });
  return static_cast<double>(part * team_->num_threads()) / seconds * 1e-9;
}

double Ceilings::Probe(Instruction instruction) {
  int64_t& steps = steps_[static_cast<size_t>(instruction)];
  if (steps == 0) {
    constexpr int64_t kTrySteps = 2000;
    const auto once = [&] { return team_->Time([&] { Spin(instruction, kTrySteps); }).seconds; };
    once();
    steps = std::max<int64_t>(
        kTrySteps, static_cast<int64_t>(kTrySteps * kProbeSeconds / std::max(once(), 1e-7)));
  }
  std::vector<double> ops(team_->num_threads());
  const double seconds = team_->Run([&](int thread) { ops[thread] = Spin(instruction, steps); });
  double total = 0;
  for (double part : ops) total += part;
  return total / seconds * 1e-9;
}

double Ceilings::Read() {
  if (read_ == 0) {
    std::vector<double> rates;
    for (int i = 0; i < kTypicalRuns; ++i) rates.push_back(ProbeRead());
    read_ = Median(rates);
  }
  return read_;
}

double Ceilings::Peak(Instruction instruction) {
  double& peak = peaks_[static_cast<size_t>(instruction)];
  if (peak == 0) {
    std::vector<double> rates;
    for (int i = 0; i < kTypicalRuns; ++i) rates.push_back(Probe(instruction));
    peak = Median(rates);
  }
  return peak;
}

int Ceilings::CallsPerRun(const std::function<void()>& call) const {
  call();
  const double seconds = team_->Time(call).seconds;
  return std::max(1, static_cast<int>(kRunSeconds / std::max(seconds, 1e-7)));
}

Figure Ceilings::Measure(const Work& work) {
  const int calls = CallsPerRun(work.call);
  Figure figure;
  figure.is_read = work.bytes / Read() >= work.ops / Peak(work.instruction);
  std::vector<double> times, rates, fractions, shares;
  double spent = 0;
  for (int run = 0; run < kMaxRuns && (run < kMinRuns || spent < figure_seconds_); ++run) {
    const double rate = figure.is_read ? ProbeRead() : Probe(work.instruction);
    // The probe has let the backend's threads go to sleep: what wakes them does not count.
    if (calls > 1) work.call();
    const Elapsed elapsed = team_->Time([&] {
      for (int i = 0; i < calls; ++i) work.call();
    });
    const double seconds = elapsed.seconds / calls;
    times.push_back(seconds);
    rates.push_back(rate);
    fractions.push_back((figure.is_read ? work.bytes : work.ops) * 1e-9 / rate / seconds);
    shares.push_back(elapsed.core_share);
    spent += elapsed.seconds;
  }
  figure.seconds = Median(times);
  figure.ceiling = Median(rates);
  figure.fraction = Median(fractions);
  figure.core_share = Median(shares);
  return figure;
}

double Ceilings::MedianSeconds(const std::function<void()>& call) const {
  const int calls = CallsPerRun(call);
  std::vector<double> times;
  double spent = 0;
  for (int run = 0; run < kMaxRuns && (run < kMinRuns || spent < figure_seconds_); ++run) {
    const double seconds = team_
                               ->Time([&] {
                                 for (int i = 0; i < calls; ++i) call();
                               })
                               .seconds;
    times.push_back(seconds / calls);
    spent += seconds;
  }
  return Median(times);
}

}  // namespace fastgen::bench
