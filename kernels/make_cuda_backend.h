// The CUDA backend's entrance: defined by kernels/cuda, or by no_cuda.cc in a build without it.
// Thread rule: call once, at start-up.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/make_backend.h"

namespace fastgen {

// UNAVAILABLE when this build or this machine has no CUDA device.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendOptions& options);

}  // namespace fastgen
