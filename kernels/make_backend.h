// Chooses the one backend of the process.
// Thread rule: call once, at start-up.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace fastgen {

enum class ComputeDType {
  kAuto,  // the backend's serving precision: bf16 KV, int8 activations where weights are integer
  kF32,   // fp32 activations, KV and products, no rounding in between: the mode that goldens are held to
};

struct BackendOptions {
  std::string device = "cpu";  // "cpu"; "cuda" where it was built
  ComputeDType compute_dtype = ComputeDType::kAuto;
  int num_threads = 0;         // 0: one per core that this process may use
  std::string cpu_isa;         // "": the best that CPUID reports, or a name of cpu_features.h
};

// INVALID_ARGUMENT naming the option, its value and what is allowed; UNAVAILABLE when the device is not there or was
// not built.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const BackendOptions& options);

}  // namespace fastgen
