#include "kernels/cpu/cpu_features.h"
#include "tests/kernels/backends_under_test.h"

namespace fastgen::testing {
namespace {

std::string Message(const BackendOptions& options, absl::StatusCode code) {
  const auto backend = MakeBackend(options);
  CHECK(backend.status().code() == code);
  return std::string(backend.status().message());
}

TEST_CASE("options that cannot hold are refused with their name and value", "[kernels]") {
  BackendOptions options;
  options.device = "tpu";
  CHECK(Message(options, absl::StatusCode::kInvalidArgument).find("\"tpu\"") != std::string::npos);
  options = {};
  options.cpu_isa = "avx1024";
  CHECK(Message(options, absl::StatusCode::kInvalidArgument).find("\"avx1024\"") !=
        std::string::npos);
  for (int num_threads : {-1, 100000}) {
    options = {};
    options.num_threads = num_threads;
    CHECK(Message(options, absl::StatusCode::kInvalidArgument).find(std::to_string(num_threads)) !=
          std::string::npos);
  }
  for (cpu::Isa isa : cpu::kAllIsas) {
    if (cpu::HasIsa(isa)) continue;
    options = {};
    options.cpu_isa = std::string(cpu::IsaName(isa));
    CHECK(Message(options, absl::StatusCode::kUnavailable).find(options.cpu_isa) !=
          std::string::npos);
  }
}

TEST_CASE("a backend says what it is and which types it takes", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  CHECK(backend->Describe().find(options.cpu_isa) != std::string::npos);
  CHECK(backend->Describe().find("2 threads") != std::string::npos);
  CHECK(backend->activation_dtype() == DType::kF32);
  CHECK(backend->kv_dtype() ==
        (options.compute_dtype == ComputeDType::kF32 ? DType::kF32 : DType::kBF16));
}

TEST_CASE("memory is zero, aligned, counted and refused when there is none", "[kernels]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  const int64_t free_before = backend->FreeMemoryBytes();
  REQUIRE(free_before > 0);
  {
    // A quarter of what is free: other processes of the machine take and give memory meanwhile.
    const size_t num_bytes = static_cast<size_t>(free_before) / 4 / 4096 * 4096;
    const auto buffer = backend->Allocate(num_bytes);
    REQUIRE(buffer.ok());
    const uint8_t* bytes = static_cast<const uint8_t*>((*buffer)->data());
    CHECK(reinterpret_cast<uintptr_t>(bytes) % 64 == 0);
    CHECK((*buffer)->bytes() == num_bytes);
    CHECK((bytes[0] == 0 && bytes[num_bytes - 1] == 0));
    // Untouched pages count as taken.
    CHECK(backend->FreeMemoryBytes() <= free_before - static_cast<int64_t>(num_bytes) / 2);
  }
  CHECK(backend->Allocate(size_t{1} << 50).status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(backend->Allocate(~size_t{0}).status().code() == absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace fastgen::testing
