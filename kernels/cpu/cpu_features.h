// Which instruction sets this CPU has, and which path of kernels that allows.
//
// A path is a whole set of kernels compiled with its own flags; nothing outside gemm_<path>.cc and
// row_ops_<path>.cc is compiled for more than the baseline, so a machine without the instructions
// never executes one.
//   generic      any x86-64
//   avx2         AVX2, FMA and F16C: integers by vpmaddubsw
//   avx2-vnni    and AVX-VNNI: by vpdpbusd (Alder Lake, Sierra Forest); the bits of avx2
//   avx512       AVX-512 F, BW, VL, DQ and VNNI; bf16 weights and keys by FMA
//   avx512-bf16  and AVX512_BF16: bf16 by vdpbf16ps
//   amx          and AMX tiles, int8 and bf16: products of many rows, of bf16 weights and of
//                attention by tiles, the rest as avx512-bf16; integers have the bits of all others
// Intel's cores run vdpbf16ps at half the rate of FMA (Sapphire Rapids, 2026-11), AMD's at twice:
// the best of a CPU with both is a matter of its vendor, never of a measurement, because the two
// round differently.
// Thread rule: any thread.
// Tested by tests/kernels/make_backend_test.cc.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fastgen::cpu {

enum class Isa { kGeneric, kAvx2, kAvx2Vnni, kAvx512, kAvx512Bf16, kAmx };
inline constexpr Isa kAllIsas[] = {Isa::kGeneric, Isa::kAvx2,       Isa::kAvx2Vnni,
                                   Isa::kAvx512,  Isa::kAvx512Bf16, Isa::kAmx};

std::string_view IsaName(Isa isa);

// True when CPUID and the operating system's register state allow `isa`.
bool HasIsa(Isa isa);

// "" is the best that the CPU has. INVALID_ARGUMENT for an unknown name, UNAVAILABLE for one the
// CPU lacks.
absl::StatusOr<Isa> ChooseIsa(const std::string& name);

}  // namespace fastgen::cpu
