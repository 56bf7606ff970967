#include <cstring>
#include <set>

#include "tests/kernels/backends_under_test.h"

namespace fastgen::testing {
namespace {

constexpr int64_t kKvHeads = 3, kBlockSize = 16, kHeadDim = 64;

// A cache whose every byte tells its block and its place in it.
struct Cache {
  Cache(Backend* backend, int64_t num_blocks, bool on_host, uint8_t salt)
      : block_bytes(BytesOf(backend->kv_dtype(), kKvHeads * kBlockSize * kHeadDim)) {
    const size_t bytes = static_cast<size_t>(num_blocks * block_bytes);
    auto taken = on_host ? backend->AllocateHost(bytes) : backend->Allocate(bytes);
    REQUIRE(taken.ok());
    buffer = *std::move(taken);
    tensor =
        Tensor(buffer->data(), backend->kv_dtype(), {num_blocks, kKvHeads, kBlockSize, kHeadDim});
    for (int64_t i = 0; i < num_blocks * block_bytes; ++i) {
      tensor.as<uint8_t>()[i] = static_cast<uint8_t>(i * 31 + i / block_bytes * 7 + salt);
    }
  }

  std::string Block(int64_t block) const {
    return std::string(tensor.as<char>() + block * block_bytes, static_cast<size_t>(block_bytes));
  }
  std::vector<std::string> Blocks() const {
    std::vector<std::string> blocks;
    for (int64_t i = 0; i < tensor.rows(); ++i) blocks.push_back(Block(i));
    return blocks;
  }

  int64_t block_bytes;
  std::unique_ptr<Buffer> buffer;
  Tensor tensor;
};

// `count` different numbers below `limit`, in no order.
std::vector<int32_t> Some(int64_t count, int64_t limit, uint32_t seed) {
  std::vector<int32_t> numbers(static_cast<size_t>(limit));
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int32_t>(i);
  std::shuffle(numbers.begin(), numbers.end(), std::mt19937(seed));
  numbers.resize(static_cast<size_t>(count));
  return numbers;
}

TEST_CASE("blocks are copied whole between a cache and a host pool, both ways", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  // One block runs on the caller alone, 40 are 240 KiB or more and are spread over the threads.
  for (int64_t count : {0, 1, 40}) {
    for (bool to_host : {false, true}) {
      const Cache source(backend.get(), 50, !to_host, 1),
          destination(backend.get(), 90, to_host, 2);
      const std::vector<std::string> before = source.Blocks();
      std::vector<std::string> expected = destination.Blocks();
      const std::vector<int32_t> to = Some(count, 90, 3);
      std::vector<BlockCopy> copies;
      for (int64_t i = 0; i < count; ++i) {
        // A source block may be read more than once.
        copies.push_back({static_cast<int32_t>(i * 7 % 20), to[static_cast<size_t>(i)]});
        expected[static_cast<size_t>(copies.back().to)] = before[static_cast<size_t>(i * 7 % 20)];
      }
      backend->CopyBlocks(absl::MakeSpan(copies), source.tensor, destination.tensor);
      REQUIRE(backend->Synchronize().ok());
      CHECK(destination.Blocks() == expected);
      CHECK(source.Blocks() == before);
    }
  }
}

TEST_CASE("blocks are copied within one cache", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const Cache cache(backend.get(), 100, false, 5);
  std::vector<std::string> expected = cache.Blocks();
  std::vector<BlockCopy> copies;
  for (int32_t i = 0; i < 45; ++i) {
    copies.push_back({2 * i, 99 - 2 * i});  // even blocks onto odd ones
    expected[static_cast<size_t>(99 - 2 * i)] = expected[static_cast<size_t>(2 * i)];
  }
  backend->CopyBlocks(absl::MakeSpan(copies), cache.tensor, cache.tensor);
  REQUIRE(backend->Synchronize().ok());
  CHECK(cache.Blocks() == expected);
}

TEST_CASE("blocks of a cache that is a view into a larger one are copied in place", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  // Layer 1 of two that lie side by side, block by block.
  const Cache both(backend.get(), 20, false, 5), pool(backend.get(), 4, true, 6);
  Tensor layer = both.tensor;
  layer.dims[0] = 10;
  layer.row_stride *= 2;
  layer.data = both.tensor.as<char>() + both.block_bytes;
  std::vector<std::string> expected = both.Blocks();
  expected[2 * 7 + 1] = pool.Block(3);
  const BlockCopy copy = {3, 7};
  backend->CopyBlocks({&copy, 1}, pool.tensor, layer);
  REQUIRE(backend->Synchronize().ok());
  CHECK(both.Blocks() == expected);
}

TEST_CASE("poisoned blocks are NaN throughout and their neighbours untouched", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  for (int64_t count : {0, 1, 40}) {
    const Cache cache(backend.get(), 60, false, 9);
    std::vector<std::string> expected = cache.Blocks();
    const std::vector<int32_t> blocks = Some(count, 60, 4);
    for (int32_t block : blocks)
      expected[static_cast<size_t>(block)].assign(cache.block_bytes, '\xff');
    backend->PoisonBlocks(absl::MakeSpan(blocks), cache.tensor);
    REQUIRE(backend->Synchronize().ok());
    CHECK(cache.Blocks() == expected);
  }
}

TEST_CASE("attention gives NaN exactly where it reads a poisoned key", "[kernels]") {
  const BackendOptions options = GENERATE(from_range(Backends()));
  const auto backend = Open(options);
  const AttentionShape shape = {kKvHeads, kKvHeads, kHeadDim, 0.1f, 0};
  Cache k(backend.get(), 3, false, 0), v(backend.get(), 3, false, 0);
  std::memset(k.tensor.data, 0, k.buffer->bytes());
  std::memset(v.tensor.data, 0, v.buffer->bytes());
  std::vector<float> q(kKvHeads * kHeadDim, 1), out(kKvHeads * kHeadDim);
  const std::vector<int32_t> starts = {0, 1}, context = {20};
  const auto attend = [&](std::vector<int32_t> blocks) {
    backend->PagedAttention(
        View(q, 1, kKvHeads * kHeadDim), shape,
        {absl::MakeSpan(starts), absl::MakeSpan(context), absl::MakeSpan(blocks), 2}, k.tensor,
        v.tensor, View(out, 1, kKvHeads * kHeadDim));
    REQUIRE(backend->Synchronize().ok());
    return out[0];
  };
  const int32_t freed = 1;
  backend->PoisonBlocks({&freed, 1}, k.tensor);
  backend->PoisonBlocks({&freed, 1}, v.tensor);
  CHECK(attend({0, 2}) == 0);
  CHECK(std::isnan(attend({0, 1})));
  // A block that was poisoned, taken again and written up to the context: what is stale in it lies
  // past the context and is not read.
  std::vector<float> qkv(4 * 3 * kKvHeads * kHeadDim), cos_sin(kHeadDim);
  const std::vector<int32_t> positions(4);
  std::vector<int64_t> slots;
  for (int64_t i = 0; i < 4; ++i) slots.push_back(kBlockSize + i);
  backend->RopeAndWriteKv(View(qkv, 4, 3 * kKvHeads * kHeadDim), shape, View(cos_sin, 1, kHeadDim),
                          absl::MakeSpan(positions), absl::MakeSpan(slots), k.tensor, v.tensor);
  CHECK(attend({0, 1}) == 0);
}

TEST_CASE("host memory is zero, counted, and refused beyond what there is", "[kernels]") {
  const auto backend = Open(OptionsFor("", ComputeDType::kAuto, 1));
  const int64_t free_before = backend->FreeHostMemoryBytes();
  REQUIRE(free_before > 0);
  const int64_t bytes = free_before / 4;
  {
    auto buffer = backend->AllocateHost(static_cast<size_t>(bytes));
    REQUIRE(buffer.ok());
    CHECK((*buffer)->bytes() == static_cast<size_t>(bytes));
    CHECK(reinterpret_cast<uintptr_t>((*buffer)->data()) % 64 == 0);
    CHECK(static_cast<const char*>((*buffer)->data())[bytes - 1] == 0);
    // Untouched pages count as taken. Other processes take and give memory meanwhile.
    CHECK(backend->FreeHostMemoryBytes() <= free_before - bytes / 2);
    // On this backend it is the memory that the device has no longer.
    CHECK(backend->host_is_device());
    CHECK(backend->FreeMemoryBytes() <= free_before - bytes / 2);
  }
  CHECK(backend->AllocateHost(size_t{1} << 60).status().code() ==
        absl::StatusCode::kResourceExhausted);
  CHECK(backend->AllocateHost(~size_t{0}).status().code() == absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace fastgen::testing
