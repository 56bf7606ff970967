// Stands in for kernels/cuda in a build without the CUDA Toolkit.
#include "kernels/make_cuda_backend.h"

namespace fastgen {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendOptions&) {
  return absl::UnavailableError(
      "device 'cuda': this build has no CUDA backend; use --device cpu");
}

}  // namespace fastgen
