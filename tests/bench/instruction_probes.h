// What this machine's instructions can do at most: loops of nothing but one multiply instruction on
// registers, in inline assembly, so that no compiler choice and no flag has a part in them.
//
// Operations: a multiply-add counts as 2. int8 without dot products is what AVX2 has, `vpmaddubsw`,
// `vpmaddwd` and `vpaddd` for 32 multiply-adds. AMX has two ceilings: on registers, and "fed", a
// 2 x 2 block of tiles that loads its operands from a set of 64 KB, which is what a product can
// reach. AMX is entered only where CPUID, XGETBV and the kernel's permission (arch_prctl) allow it.
// Thread rule: any thread; a Spin touches only its own registers and stack.
// Tested by the smoke run of kernels_bench (tests/bench/CMakeLists.txt).
#pragma once

#include <cstdint>
#include <string_view>

namespace fastgen::bench {

enum class Instruction {
  kSse2Int8,    // pmaddwd, paddd
  kSse2Float,   // mulps, addps
  kAvx2Int8,    // vpmaddubsw, vpmaddwd, vpaddd, 256 bits
  kFma256,      // vfmadd231ps, 256 bits
  kAvxVnni,     // vpdpbusd, 256 bits, VEX form
  kFma512,      // vfmadd231ps, 512 bits
  kVnni512,     // vpdpbusd, 512 bits
  kBf16512,     // vdpbf16ps, 512 bits
  kAmxInt8,     // tdpbusd on registers
  kAmxBf16,     // tdpbf16ps on registers
  kAmxInt8Fed,  // tdpbusd with its loads
  kAmxBf16Fed,  // tdpbf16ps with its loads
};
inline constexpr int kNumInstructions = 12;

std::string_view InstructionName(Instruction instruction);
// False: its operations are of floats.
bool IsInteger(Instruction instruction);
// True when CPUID and the operating system allow it.
bool HasInstruction(Instruction instruction);
// Runs `steps` of the loop on this thread; returns the operations done. REQUIRES: HasInstruction.
double Spin(Instruction instruction, int64_t steps);

}  // namespace fastgen::bench
