#include "tests/bench/instruction_probes.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"

namespace fastgen::bench {
namespace {

// Both operands of every product: bytes of 60, which are 0.0115 as f32 and as bf16. No zeros, which
// some processors multiply with less power, and no denormals.
alignas(64) const uint8_t kOperand[64] = {
    60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60,
    60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60,
    60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60};

// Sums that are worked in turn: more than any of these instructions takes cycles.
constexpr int kNumSums = 12;

// clang-format off
#define TWELVE(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11)
#define CLOBBERS "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                 "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
// A function that loads the operand into register 15, zeroes the sums and repeats BODY.
#define SPIN(NAME, LOAD, ZERO, BODY, END)                              \
  void NAME(int64_t steps) {                                           \
    asm volatile(LOAD TWELVE(ZERO)                                     \
                 "1:\n\t" TWELVE(BODY) "dec %0\n\tjnz 1b\n\t" END      \
                 : "+r"(steps) : "r"(kOperand) : CLOBBERS);            \
  }

#define SSE_ZERO(N) "pxor %%xmm" #N ", %%xmm" #N "\n\t"
#define SSE_INT8(N) "movdqa %%xmm15, %%xmm12\n\tpmaddwd %%xmm15, %%xmm12\n\tpaddd %%xmm12, %%xmm" #N "\n\t"
#define SSE_FLOAT(N) "movaps %%xmm15, %%xmm12\n\tmulps %%xmm15, %%xmm12\n\taddps %%xmm12, %%xmm" #N "\n\t"
SPIN(SpinSse2Int8, "movdqa (%1), %%xmm15\n\t", SSE_ZERO, SSE_INT8, "")
SPIN(SpinSse2Float, "movdqa (%1), %%xmm15\n\t", SSE_ZERO, SSE_FLOAT, "")

#define YMM_ZERO(N) "vpxor %%ymm" #N ", %%ymm" #N ", %%ymm" #N "\n\t"
#define AVX2_INT8(N) "vpmaddubsw %%ymm15, %%ymm15, %%ymm12\n\tvpmaddwd %%ymm15, %%ymm12, %%ymm12\n\t" \
                     "vpaddd %%ymm12, %%ymm" #N ", %%ymm" #N "\n\t"
#define YMM_FMA(N) "vfmadd231ps %%ymm15, %%ymm15, %%ymm" #N "\n\t"
#define YMM_VNNI(N) "%{vex%} vpdpbusd %%ymm15, %%ymm15, %%ymm" #N "\n\t"
SPIN(SpinAvx2Int8, "vmovdqa (%1), %%ymm15\n\t", YMM_ZERO, AVX2_INT8, "vzeroupper")
SPIN(SpinFma256, "vmovdqa (%1), %%ymm15\n\t", YMM_ZERO, YMM_FMA, "vzeroupper")
SPIN(SpinAvxVnni, "vmovdqa (%1), %%ymm15\n\t", YMM_ZERO, YMM_VNNI, "vzeroupper")

#define ZMM_ZERO(N) "vpxord %%zmm" #N ", %%zmm" #N ", %%zmm" #N "\n\t"
#define ZMM_FMA(N) "vfmadd231ps %%zmm15, %%zmm15, %%zmm" #N "\n\t"
#define ZMM_VNNI(N) "vpdpbusd %%zmm15, %%zmm15, %%zmm" #N "\n\t"
#define ZMM_BF16(N) "vdpbf16ps %%zmm15, %%zmm15, %%zmm" #N "\n\t"
SPIN(SpinFma512, "vmovdqa64 (%1), %%zmm15\n\t", ZMM_ZERO, ZMM_FMA, "vzeroupper")
SPIN(SpinVnni512, "vmovdqa64 (%1), %%zmm15\n\t", ZMM_ZERO, ZMM_VNNI, "vzeroupper")
SPIN(SpinBf16512, "vmovdqa64 (%1), %%zmm15\n\t", ZMM_ZERO, ZMM_BF16, "vzeroupper")
// clang-format on

#undef SPIN

// ---- AMX ----

constexpr int kTileBytes = 1024;
constexpr int kFedTiles = 64;  // the set that the fed loop walks: 64 KB, four tiles a step

struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// A tile of sums 0-3, two of rows (4, 5) and two of weights (6, 7), zero.
void BeginTiles() {
  static const TileConfiguration configuration;
  asm volatile(
      "ldtilecfg %0\n\t"
      "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t"
      "tilezero %%tmm4\n\ttilezero %%tmm5\n\ttilezero %%tmm6\n\ttilezero %%tmm7"
      :
      : "m"(configuration)
      : "memory");
}

void EndTiles() { asm volatile("tilerelease" ::: "memory"); }

#define BLOCK_ON_REGISTERS(OP)                                         \
  OP " %%tmm6, %%tmm4, %%tmm0\n\t" OP " %%tmm7, %%tmm4, %%tmm1\n\t" OP \
     " %%tmm7, %%tmm5, %%tmm3\n\t" OP " %%tmm6, %%tmm5, %%tmm2\n\t"

#define FED_BLOCK(OP)                                                       \
  "tileloadd (%1,%2,1), %%tmm6\n\ttileloadd 1024(%1,%2,1), %%tmm7\n\t"      \
  "tileloadd 2048(%1,%2,1), %%tmm4\n\t" OP " %%tmm6, %%tmm4, %%tmm0\n\t" OP \
  " %%tmm7, %%tmm4, %%tmm1\n\ttileloadd 3072(%1,%2,1), %%tmm5\n\t" OP       \
  " %%tmm7, %%tmm5, %%tmm3\n\t" OP " %%tmm6, %%tmm5, %%tmm2\n\t"

void SpinAmxInt8(int64_t steps) {
  BeginTiles();
  asm volatile("1:\n\t" BLOCK_ON_REGISTERS("tdpbusd") "dec %0\n\tjnz 1b" : "+r"(steps)::"cc");
  EndTiles();
}

void SpinAmxBf16(int64_t steps) {
  BeginTiles();
  asm volatile("1:\n\t" BLOCK_ON_REGISTERS("tdpbf16ps") "dec %0\n\tjnz 1b" : "+r"(steps)::"cc");
  EndTiles();
}

// Tiles in memory, one set a thread.
const uint8_t* FedSet() {
  alignas(64) thread_local uint8_t set[kFedTiles * kTileBytes];
  if (set[0] == 0) __builtin_memset(set, 60, sizeof(set));
  return set;
}

template <bool kIsBf16>
void SpinFed(int64_t steps) {
  const uint8_t* const set = FedSet();
  BeginTiles();
  for (int64_t i = 0; i < steps; ++i) {
    const uint8_t* tiles = set + i % (kFedTiles / 4) * 4 * kTileBytes;
    const int64_t stride = 64;
    int64_t once = 1;
    if constexpr (kIsBf16) {
      asm volatile(FED_BLOCK("tdpbf16ps") : "+r"(once) : "r"(tiles), "r"(stride) : "memory");
    } else {
      asm volatile(FED_BLOCK("tdpbusd") : "+r"(once) : "r"(tiles), "r"(stride) : "memory");
    }
  }
  EndTiles();
}

#undef BLOCK_ON_REGISTERS
#undef FED_BLOCK

struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Leaf Cpuid(unsigned leaf, unsigned subleaf) {
  Leaf result;
  __get_cpuid_count(leaf, subleaf, &result.a, &result.b, &result.c, &result.d);
  return result;
}

bool Bit(unsigned word, int bit) { return (word >> bit & 1) != 0; }

// Also asks the kernel for the permission that tiles need; it holds for threads started later.
bool HasTiles() {
  static const bool has = [] {
    constexpr int kTileBit = 24, kTileState = 18;
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    if (!Bit(Cpuid(7, 0).d, kTileBit) || !Bit(Cpuid(1, 0).c, 27)) return false;
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!Bit(low, 17) || !Bit(low, kTileState)) return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileState) == 0;
  }();
  return has;
}

}  // namespace

std::string_view InstructionName(Instruction instruction) {
  switch (instruction) {
    case Instruction::kSse2Int8:
      return "sse2 pmaddwd";
    case Instruction::kSse2Float:
      return "sse2 mulps";
    case Instruction::kAvx2Int8:
      return "vpmaddubsw 256";
    case Instruction::kFma256:
      return "fma 256";
    case Instruction::kAvxVnni:
      return "vpdpbusd 256";
    case Instruction::kFma512:
      return "fma 512";
    case Instruction::kVnni512:
      return "vpdpbusd 512";
    case Instruction::kBf16512:
      return "vdpbf16ps 512";
    case Instruction::kAmxInt8:
      return "amx int8";
    case Instruction::kAmxBf16:
      return "amx bf16";
    case Instruction::kAmxInt8Fed:
      return "amx int8 fed";
    case Instruction::kAmxBf16Fed:
      return "amx bf16 fed";
  }
  return "?";
}

bool IsInteger(Instruction instruction) {
  switch (instruction) {
    case Instruction::kSse2Int8:
    case Instruction::kAvx2Int8:
    case Instruction::kAvxVnni:
    case Instruction::kVnni512:
    case Instruction::kAmxInt8:
    case Instruction::kAmxInt8Fed:
      return true;
    default:
      return false;
  }
}

bool HasInstruction(Instruction instruction) {
  // The builtins include the check that the system saves the wide registers.
  __builtin_cpu_init();
  switch (instruction) {
    case Instruction::kSse2Int8:
    case Instruction::kSse2Float:
      return true;
    case Instruction::kAvx2Int8:
      return __builtin_cpu_supports("avx2");
    case Instruction::kFma256:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Instruction::kAvxVnni:
      return __builtin_cpu_supports("avx2") && Bit(Cpuid(7, 1).a, 4);
    case Instruction::kFma512:
      return __builtin_cpu_supports("avx512f");
    case Instruction::kVnni512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
    case Instruction::kBf16512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16");
    case Instruction::kAmxInt8:
    case Instruction::kAmxInt8Fed:
      return HasTiles() && Bit(Cpuid(7, 0).d, 25);
    case Instruction::kAmxBf16:
    case Instruction::kAmxBf16Fed:
      return HasTiles() && Bit(Cpuid(7, 0).d, 22);
  }
  return false;
}

double Spin(Instruction instruction, int64_t steps) {
  CHECK(steps > 0);
  // The loop, and the operations of one step.
  struct Loop {
    void (*spin)(int64_t);
    double ops;
  };
  constexpr double kTileOps = 4.0 * 16 * 16 * 64;  // four products of 16 x 16 x 32 bf16
  const Loop loop = [&]() -> Loop {
    switch (instruction) {
      case Instruction::kSse2Int8:
        return {SpinSse2Int8, kNumSums * 16.0};
      case Instruction::kSse2Float:
        return {SpinSse2Float, kNumSums * 8.0};
      case Instruction::kAvx2Int8:
        return {SpinAvx2Int8, kNumSums * 64.0};
      case Instruction::kFma256:
        return {SpinFma256, kNumSums * 16.0};
      case Instruction::kAvxVnni:
        return {SpinAvxVnni, kNumSums * 64.0};
      case Instruction::kFma512:
        return {SpinFma512, kNumSums * 32.0};
      case Instruction::kVnni512:
        return {SpinVnni512, kNumSums * 128.0};
      case Instruction::kBf16512:
        return {SpinBf16512, kNumSums * 64.0};
      case Instruction::kAmxInt8:
        return {SpinAmxInt8, 2 * kTileOps};
      case Instruction::kAmxBf16:
        return {SpinAmxBf16, kTileOps};
      case Instruction::kAmxInt8Fed:
        return {SpinFed<false>, 2 * kTileOps};
      case Instruction::kAmxBf16Fed:
        return {SpinFed<true>, kTileOps};
    }
    return {nullptr, 0};
  }();
  loop.spin(steps);
  return loop.ops * static_cast<double>(steps);
}

}  // namespace fastgen::bench
