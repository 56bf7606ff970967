// PlanMemory: what is chosen, what is exact, what is refused.
#include "engine/model/memory_plan.h"

#include <catch2/catch.hpp>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/kv_cache.h"
#include "engine/model/workspace.h"
#include "tests/engine/model/stub_backend.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using ::fastgen::testing::StubBackend;
using ::fastgen::testing::TinyModel;

constexpr int64_t kMiB = 1 << 20;

ModelConfig LongConfig() {
  ModelConfig config = TinyModel().config;
  config.max_position = 8192;
  return config;
}

MemoryRequest SmallRequest() {
  MemoryRequest request;
  request.max_num_seqs = 4;
  request.max_num_batched_tokens = 64;
  request.block_size = 16;
  return request;
}

// Two layers, two heads of 16, keys and values, 2 bytes: 256 bytes a token, 4096 a block of 16.
constexpr int64_t kBlockBytes = 4096;

TEST_CASE("KV is enough for the usual length of every sequence", "[model][memory]") {
  StubBackend backend;
  MemoryRequest request = SmallRequest();
  request.max_num_seqs = 16;
  const auto plan = PlanMemory(LongConfig(), backend, 123, request);
  REQUIRE(plan.ok());
  CHECK(plan->num_blocks == 16 * kUsualLength / 16);
  CHECK(plan->kv_bytes == plan->num_blocks * kBlockBytes);
  CHECK(plan->max_model_len == 8192);
  CHECK(plan->weights_bytes == 123);
  CHECK(plan->block_size == 16);
  CHECK(plan->max_num_seqs == 16);
  CHECK(plan->max_num_batched_tokens == 64);
  CHECK(plan->max_logit_rows == 32);
}

TEST_CASE("KV holds one sequence of the model's length at least", "[model][memory]") {
  StubBackend backend;
  const auto plan = PlanMemory(LongConfig(), backend, 0, SmallRequest());
  REQUIRE(plan.ok());
  CHECK(plan->num_blocks == 8192 / 16);
  // A sequence of a short model needs no usual length.
  const auto short_plan = PlanMemory(TinyModel().config, backend, 0, SmallRequest());
  REQUIRE(short_plan.ok());
  CHECK(short_plan->num_blocks == 4 * 256 / 16);
}

TEST_CASE("fp32 KV takes twice the bytes", "[model][memory]") {
  StubBackend backend;
  backend.kv = DType::kF32;
  const auto plan = PlanMemory(LongConfig(), backend, 0, SmallRequest());
  REQUIRE(plan.ok());
  CHECK(plan->kv_bytes == plan->num_blocks * 2 * kBlockBytes);
}

TEST_CASE("what is allocated is what was planned, to the byte", "[model][memory]") {
  StubBackend backend;
  const ModelConfig config = TinyModel().config;
  const auto plan = PlanMemory(config, backend, 0, SmallRequest());
  REQUIRE(plan.ok());
  const auto workspace = Workspace::Create(config, *plan, &backend);
  REQUIRE(workspace.ok());
  const Tensor tensors[] = {workspace->residual,  workspace->logit_rows, workspace->qkv,
                            workspace->attention, workspace->gate_up,    workspace->logit_input,
                            workspace->logits,    workspace->cos_sin};
  int64_t bytes = 0;
  for (const Tensor& tensor : tensors) bytes += BytesOf(tensor.dtype, tensor.num_elements());
  CHECK(bytes == plan->workspace_bytes);
  CHECK(workspace->logits.rows() == plan->max_logit_rows);
  CHECK(workspace->cos_sin.rows() == 256);
  // KvCache checks the same of itself.
  const auto cache = KvCache::Create(config, *plan, &backend);
  REQUIRE(cache.ok());
  CHECK(cache->keys(1).dims == std::array<int64_t, 4>{plan->num_blocks, 2, 16, 16});
}

TEST_CASE("little memory shortens the context unless one was asked for", "[model][memory]") {
  const ModelConfig config = LongConfig();
  StubBackend backend;
  MemoryRequest request = SmallRequest();
  const int64_t workspace = PlanMemory(config, backend, 0, request)->workspace_bytes;
  backend.free_memory_bytes = workspace + kReserveBytes + 200 * kBlockBytes;
  const auto plan = PlanMemory(config, backend, 0, request);
  REQUIRE(plan.ok());
  CHECK(plan->num_blocks == 100);
  CHECK(plan->max_model_len == 1600);
  CHECK(plan->workspace_bytes < workspace);

  // One that was asked for may take all of it.
  request.max_model_len = 150 * 16;
  const auto asked = PlanMemory(config, backend, 0, request);
  REQUIRE(asked.ok());
  CHECK(asked->max_model_len == 150 * 16);
  CHECK(asked->num_blocks == 150);
  request.max_model_len = 8192;
  const absl::Status status = PlanMemory(config, backend, 0, request).status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(absl::StrContains(status.message(), "one sequence of max_model_len 8192 needs 2097152"));
}

TEST_CASE("KV that was asked for is taken in whole blocks", "[model][memory]") {
  StubBackend backend;
  MemoryRequest request = SmallRequest();
  request.kv_cache_bytes = 10 * kBlockBytes + kBlockBytes / 2;
  const auto plan = PlanMemory(LongConfig(), backend, 0, request);
  REQUIRE(plan.ok());
  CHECK(plan->num_blocks == 10);
  CHECK(plan->kv_bytes == 10 * kBlockBytes);
  CHECK(plan->max_model_len == 160);

  request.kv_cache_bytes = kBlockBytes - 1;
  CHECK(absl::StrContains(PlanMemory(LongConfig(), backend, 0, request).status().message(),
                          "one block of 16 tokens needs 4096"));
  request.kv_cache_bytes = backend.free_memory_bytes;
  const absl::Status status = PlanMemory(LongConfig(), backend, 0, request).status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(absl::StrContains(status.message(), "kv_cache_bytes needs 1099511627776 bytes"));
}

TEST_CASE("memory that holds no workspace is refused with figures", "[model][memory]") {
  StubBackend backend;
  backend.free_memory_bytes = kMiB;
  const absl::Status status = PlanMemory(LongConfig(), backend, 0, SmallRequest()).status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(absl::StrContains(status.message(), "1048576 bytes (1 MiB) are available"));
}

// A chunk of 256 tokens: 16 blocks of 16.
constexpr int64_t kChunkBytes = 16 * kBlockBytes;

TEST_CASE("a host tier is taken in whole chunks", "[model][memory]") {
  StubBackend backend;
  MemoryRequest request = SmallRequest();
  const auto none = PlanMemory(LongConfig(), backend, 0, request);
  CHECK(none->num_host_blocks == 0);
  CHECK(none->host_kv_bytes == 0);
  request.host_kv_bytes = 3 * kChunkBytes + kChunkBytes / 2;
  const auto plan = PlanMemory(LongConfig(), backend, 0, request);
  REQUIRE(plan.ok());
  CHECK(plan->num_host_blocks == 48);
  CHECK(plan->host_kv_bytes == 3 * kChunkBytes);
  CHECK(plan->num_blocks == none->num_blocks);
  request.block_size = 64;
  CHECK(PlanMemory(LongConfig(), backend, 0, request)->num_host_blocks == 12);
}

TEST_CASE("a host tier of less than a chunk is refused with the arithmetic", "[model][memory]") {
  StubBackend backend;
  MemoryRequest request = SmallRequest();
  request.host_kv_bytes = kChunkBytes;
  CHECK(PlanMemory(LongConfig(), backend, 0, request)->num_host_blocks == 16);
  request.host_kv_bytes = kChunkBytes - 1;
  const absl::Status status = PlanMemory(LongConfig(), backend, 0, request).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(status.message() == "host_kv_bytes is 65535, one chunk of 256 tokens needs 65536");
}

TEST_CASE("a host tier beyond the host's memory is refused with the arithmetic",
          "[model][memory]") {
  StubBackend backend;
  backend.free_host_memory_bytes = 10 * kMiB;
  MemoryRequest request = SmallRequest();
  request.host_kv_bytes = 10 * kMiB;
  CHECK(PlanMemory(LongConfig(), backend, 0, request).ok());
  request.host_kv_bytes = 10 * kMiB + 1;
  const absl::Status status = PlanMemory(LongConfig(), backend, 0, request).status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(absl::StrContains(status.message(),
                          "host_kv_bytes needs 10485761 bytes (10 MiB), 10485760 bytes (10 MiB) "
                          "are available"));
}

TEST_CASE("where the device is the host, both tiers come out of one memory", "[model][memory]") {
  const ModelConfig config = LongConfig();
  StubBackend backend;
  backend.is_host_device = true;
  MemoryRequest request = SmallRequest();
  request.max_model_len = 160;
  request.kv_cache_bytes = 10 * kBlockBytes;
  const int64_t fixed = PlanMemory(config, backend, 0, request)->workspace_bytes + kReserveBytes;
  backend.free_memory_bytes = fixed + 10 * kBlockBytes + 2 * kChunkBytes;
  backend.free_host_memory_bytes = backend.free_memory_bytes;
  request.host_kv_bytes = 2 * kChunkBytes;
  const auto plan = PlanMemory(config, backend, 0, request);
  REQUIRE(plan.ok());
  CHECK(plan->num_blocks == 10);
  CHECK(plan->num_host_blocks == 32);
  CHECK(plan->workspace_bytes + kReserveBytes + plan->kv_bytes + plan->host_kv_bytes ==
        backend.free_memory_bytes);
  request.host_kv_bytes += 1;
  const absl::Status status = PlanMemory(config, backend, 0, request).status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(absl::StrContains(
      status.message(),
      absl::StrCat(backend.free_memory_bytes, " bytes (", backend.free_memory_bytes >> 20,
                   " MiB) free, less ", fixed + 10 * kBlockBytes)));
}

TEST_CASE("where the device is the host, KV that is chosen leaves the host tier its memory",
          "[model][memory]") {
  const ModelConfig config = LongConfig();
  StubBackend backend;
  backend.is_host_device = true;
  MemoryRequest request = SmallRequest();
  const int64_t workspace = PlanMemory(config, backend, 0, request)->workspace_bytes;
  backend.free_memory_bytes = workspace + kReserveBytes + 2 * kChunkBytes + 200 * kBlockBytes;
  backend.free_host_memory_bytes = backend.free_memory_bytes;
  request.host_kv_bytes = 2 * kChunkBytes;
  const auto plan = PlanMemory(config, backend, 0, request);
  REQUIRE(plan.ok());
  CHECK(plan->num_blocks == 100);  // half of what is left
  CHECK(plan->num_host_blocks == 32);
  // On a device of its own they do not meet.
  backend.is_host_device = false;
  CHECK(PlanMemory(config, backend, 0, request)->num_blocks == 116);
}

TEST_CASE("a context above the model's is refused", "[model][memory]") {
  StubBackend backend;
  MemoryRequest request = SmallRequest();
  request.max_model_len = 8193;
  const absl::Status status = PlanMemory(LongConfig(), backend, 0, request).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(absl::StrContains(status.message(), "max_model_len is 8193, the model's context is 8192"));
}

TEST_CASE("logit rows follow the number of sequences within bounds", "[model][memory]") {
  StubBackend backend;
  MemoryRequest request = SmallRequest();
  request.max_num_batched_tokens = 4096;
  request.max_num_seqs = 100;
  CHECK(PlanMemory(LongConfig(), backend, 0, request)->max_logit_rows == 100);
  request.max_num_seqs = 1000;
  CHECK(PlanMemory(LongConfig(), backend, 0, request)->max_logit_rows == 256);
  request.max_num_seqs = 1;
  CHECK(PlanMemory(LongConfig(), backend, 0, request)->max_logit_rows == 32);
  request.max_num_batched_tokens = 8;
  CHECK(PlanMemory(LongConfig(), backend, 0, request)->max_logit_rows == 8);
}

}  // namespace
}  // namespace fastgen
