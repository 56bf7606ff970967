#include "kernels/cpu/cpu_features.h"

#include <sched.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen::cpu {

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kGeneric:
      return "generic";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "?";
}

bool HasIsa(Isa isa) {
  // The builtins include the XGETBV check that the kernel saves the wide registers.
  __builtin_cpu_init();
  switch (isa) {
    case Isa::kGeneric:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::kAvx512:
      return HasIsa(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512bf16");
  }
  return false;
}

absl::StatusOr<Isa> ChooseIsa(const std::string& name) {
  constexpr std::array<Isa, 3> kBestFirst = {Isa::kAvx512, Isa::kAvx2, Isa::kGeneric};
  for (Isa isa : kBestFirst) {
    if (name.empty() && HasIsa(isa)) return isa;
    if (name != IsaName(isa)) continue;
    if (HasIsa(isa)) return isa;
    return absl::UnavailableError(
        absl::StrCat("cpu_isa \"", name,
                     "\": this CPU lacks instructions that it needs (avx512: f, bw, vl, dq, ",
                     "vnni, bf16; avx2: avx2, fma, f16c)"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "cpu_isa \"", name, "\" is not one of \"avx512\", \"avx2\", \"generic\" or empty"));
}

int NumUsableCores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return 1;
  return std::max(1, CPU_COUNT(&mask));
}

}  // namespace fastgen::cpu
