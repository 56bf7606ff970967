#include "kernels/make_backend.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/cpu_topology.h"
#include "kernels/make_cuda_backend.h"

namespace fastgen {
namespace {

constexpr int kMaxThreads = 1024;

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const BackendOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_threads ", options.num_threads, " is not in [0, ", kMaxThreads, "]"));
  }
  ASSIGN_OR_RETURN(const cpu::Isa isa, cpu::ChooseIsa(options.cpu_isa));
  const std::vector<cpu::Core> cores = cpu::UsableCores();
  const int num_threads =
      options.num_threads > 0 ? options.num_threads : static_cast<int>(cores.size());
  // With another number of threads than cores the operating system knows better where they go.
  std::vector<std::vector<int>> cpus;
  if (cores.size() == static_cast<size_t>(num_threads)) cpus = cpu::NodeCpus(cores);
  return std::unique_ptr<Backend>(
      std::make_unique<cpu::CpuBackend>(isa, options.compute_dtype, num_threads, cpus));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const BackendOptions& options) {
  if (options.device == "cpu") return MakeCpuBackend(options);
  if (options.device == "cuda") return MakeCudaBackend(options);
  return absl::InvalidArgumentError(
      absl::StrCat("device \"", options.device, "\" is not one of \"cpu\", \"cuda\""));
}

}  // namespace fastgen
