// Which instruction sets this CPU has, and which path of kernels that allows.
//
// A path is a whole set of kernels compiled with its own flags; nothing outside gemm_<path>.cc and
// row_ops_<path>.cc is compiled for more than the baseline, so a machine without the instructions
// never executes one.
//   avx512: F, BW, VL, DQ, VNNI and BF16.   avx2: AVX2, FMA and F16C.   generic: any x86-64.
// Thread rule: any thread.
// Tested by tests/kernels/make_backend_test.cc.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fastgen::cpu {

enum class Isa { kGeneric, kAvx2, kAvx512 };

std::string_view IsaName(Isa isa);

// True when CPUID and the operating system's register state allow `isa`.
bool HasIsa(Isa isa);

// "" is the best that the CPU has. INVALID_ARGUMENT for an unknown name, UNAVAILABLE for one the
// CPU lacks.
absl::StatusOr<Isa> ChooseIsa(const std::string& name);

// Cores in the affinity mask of this process, at least 1.
int NumUsableCores();

}  // namespace fastgen::cpu
