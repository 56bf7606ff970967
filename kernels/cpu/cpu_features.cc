#include "kernels/cpu/cpu_features.h"

#include <cpuid.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "kernels/cpu/tile_permission.h"

namespace fastgen::cpu {

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kGeneric:
      return "generic";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx2Vnni:
      return "avx2-vnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512-bf16";
    case Isa::kAmx:
      return "amx";
  }
  return "?";
}

namespace {

// CPUID leaf 7, sub-leaf 1, EAX bit 4; GCC 12 has no name for it.
bool HasAvxVnni() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
}

std::array<Isa, std::size(kAllIsas)> BestFirst() {
  const bool is_bf16_fast = __builtin_cpu_is("amd");
  return {Isa::kAmx,
          is_bf16_fast ? Isa::kAvx512Bf16 : Isa::kAvx512,
          is_bf16_fast ? Isa::kAvx512 : Isa::kAvx512Bf16,
          Isa::kAvx2Vnni,
          Isa::kAvx2,
          Isa::kGeneric};
}

}  // namespace

bool HasIsa(Isa isa) {
  // The builtins include the XGETBV check that the kernel saves the wide registers.
  __builtin_cpu_init();
  switch (isa) {
    case Isa::kGeneric:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::kAvx2Vnni:
      return HasIsa(Isa::kAvx2) && HasAvxVnni();
    case Isa::kAvx512:
      return HasIsa(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
    case Isa::kAvx512Bf16:
      return HasIsa(Isa::kAvx512) && __builtin_cpu_supports("avx512bf16");
    case Isa::kAmx:
      return HasIsa(Isa::kAvx512Bf16) && TilesPermitted();
  }
  return false;
}

absl::StatusOr<Isa> ChooseIsa(const std::string& name) {
  __builtin_cpu_init();
  std::string names;
  for (Isa isa : BestFirst()) {
    if (name.empty() && HasIsa(isa)) return isa;
    absl::StrAppend(&names, "\"", ToAbsl(IsaName(isa)), "\", ");
    if (name != IsaName(isa)) continue;
    if (HasIsa(isa)) return isa;
    return absl::UnavailableError(absl::StrCat(
        "cpu_isa \"", name,
        "\": this CPU lacks instructions that it needs (avx2: avx2, fma, f16c; ",
        "avx2-vnni: and avx_vnni; avx512: and avx512 f, bw, vl, dq, vnni; avx512-bf16: and ",
        "avx512_bf16; amx: and amx_tile, amx_int8, amx_bf16, and Linux 5.16); leave it empty for "
        "the ",
        "best that it has"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("cpu_isa \"", name, "\" is not one of ", names, "or empty"));
}

}  // namespace fastgen::cpu
