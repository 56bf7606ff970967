// KvMoves and HostKvCache: what is moved in which order, and what is refused.
#include "engine/model/kv_moves.h"

#include "engine/model/host_kv_cache.h"
#include "tests/engine/model/stub_backend.h"
#include "tests/testing/aborts.h"
#include "tests/testing/tiny_model.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace fastgen {
namespace {

using ::fastgen::testing::Aborts;
using ::fastgen::testing::StubBackend;
using ::fastgen::testing::TinyModel;

MemoryPlan Limits() {
  MemoryPlan plan;
  plan.num_blocks = 6;
  plan.num_host_blocks = 4;
  plan.block_size = 16;
  return plan;
}

// Writes down what is moved; views are told apart by their first dimension.
class RecordingBackend final : public StubBackend {
 public:
  void CopyBlocks(absl::Span<const BlockCopy> copies, Tensor source, Tensor destination) override {
    absl::StrAppend(&log, "copy ", source.rows(), "->", destination.rows());
    for (const BlockCopy& copy : copies) absl::StrAppend(&log, " ", copy.from, ":", copy.to);
    absl::StrAppend(&log, "\n");
  }
  void PoisonBlocks(absl::Span<const int32_t> blocks, Tensor cache) override {
    absl::StrAppend(&log, "poison ", cache.rows());
    for (int32_t block : blocks) absl::StrAppend(&log, " ", block);
    absl::StrAppend(&log, "\n");
  }
  std::string log;
};

Tensor View(int64_t blocks) { return Tensor(nullptr, DType::kBF16, {blocks, 2, 16, 16}); }

TEST_CASE("pages go out, are poisoned, come in and are copied, in this order", "[model][moves]") {
  StepPlan plan;
  plan.copies = {{0, 5}};
  plan.page_ins = {{2, 1}, {3, 0}};
  plan.poisoned_blocks = {1, 4};
  plan.page_outs = {{4, 0}, {1, 3}};
  plan.swap_outs = {{3, 1}};
  KvMoves moves(Limits());
  moves.Build(plan);
  CHECK_FALSE(moves.empty());
  RecordingBackend backend;
  moves.Apply(View(6), View(4), &backend);
  CHECK(backend.log ==
        "copy 6->4 4:0 1:3 3:1\n"
        "poison 6 1 4\n"
        "copy 4->6 2:1 3:0\n"
        "copy 6->6 0:5\n");
}

TEST_CASE("a step without moves issues none", "[model][moves]") {
  KvMoves moves(Limits());
  StepPlan plan;
  plan.copies = {{0, 1}};
  moves.Build(plan);
  moves.Build(StepPlan());
  CHECK(moves.empty());
  RecordingBackend backend;
  moves.Apply(View(6), View(4), &backend);
  CHECK(backend.log.empty());
}

TEST_CASE("moves that are impossible are CHECKed", "[model][moves]") {
  struct Case {
    std::vector<KvBlockMove> page_outs, page_ins, copies;
    std::vector<int32_t> poisoned_blocks;
  };
  const auto aborts = [](const Case& c) {
    StepPlan plan;
    plan.page_outs = c.page_outs;
    plan.page_ins = c.page_ins;
    plan.copies = c.copies;
    plan.poisoned_blocks = c.poisoned_blocks;
    KvMoves moves(Limits());
    return Aborts([&] { moves.Build(plan); });
  };
  // The ends of the ranges are possible; one more is not.
  CHECK_FALSE(aborts({{{5, 3}}, {{3, 5}}, {{0, 1}}, {5}}));
  CHECK(aborts({{{6, 3}}, {}, {}, {}}));
  CHECK(aborts({{{5, 4}}, {}, {}, {}}));
  CHECK(aborts({{{-1, 3}}, {}, {}, {}}));
  CHECK(aborts({{}, {{4, 5}}, {}, {}}));
  CHECK(aborts({{}, {{3, 6}}, {}, {}}));
  CHECK(aborts({{}, {{3, -1}}, {}, {}}));
  CHECK(aborts({{}, {}, {{6, 0}}, {}}));
  CHECK(aborts({{}, {}, {{0, 6}}, {}}));
  CHECK(aborts({{}, {}, {}, {6}}));
  CHECK(aborts({{}, {}, {}, {-1}}));
  // What a copy in any order would make of these is anyone's guess.
  CHECK(aborts({{{1, 2}, {3, 2}}, {}, {}, {}}));
  CHECK(aborts({{}, {{1, 2}, {3, 2}}, {}, {}}));
  CHECK(aborts({{}, {}, {{0, 2}, {1, 2}}, {}}));
  CHECK(aborts({{}, {}, {{0, 1}, {1, 2}}, {}}));
  CHECK(aborts({{}, {}, {{1, 1}}, {}}));
  // One source may have many copies, and the tiers number their blocks alone.
  CHECK_FALSE(aborts({{{1, 1}, {1, 2}}, {{1, 1}, {1, 2}}, {{0, 1}, {0, 2}}, {}}));
}

TEST_CASE("fills and swaps of one step are to different host blocks", "[model][moves]") {
  const auto aborts = [](const std::vector<KvBlockMove>& swap_outs) {
    StepPlan plan;
    plan.page_outs = {{1, 2}};
    plan.swap_outs = swap_outs;
    KvMoves moves(Limits());
    return Aborts([&] { moves.Build(plan); });
  };
  CHECK_FALSE(aborts({{1, 3}}));
  CHECK(aborts({{3, 2}}));
  CHECK(aborts({{6, 3}}));
  CHECK(aborts({{3, 4}}));
}

TEST_CASE("moves to a host tier that is not there are CHECKed", "[model][moves]") {
  MemoryPlan limits = Limits();
  limits.num_host_blocks = 0;
  KvMoves moves(limits);
  StepPlan plan;
  plan.page_outs = {{0, 0}};
  CHECK(Aborts([&] { moves.Build(plan); }));
}

TEST_CASE("the host tier has a buffer a layer and side, of the plan's bytes", "[model][moves]") {
  const ModelConfig config = TinyModel().config;  // two layers, two heads of 16
  StubBackend backend;
  MemoryPlan plan = Limits();
  plan.host_kv_bytes = 4 * 4096;
  const auto cache = HostKvCache::Create(config, plan, &backend);
  REQUIRE(cache.ok());
  CHECK(cache->keys(0).dims == std::array<int64_t, 4>{4, 2, 16, 16});
  CHECK(cache->values(1).dims == std::array<int64_t, 4>{4, 2, 16, 16});
  CHECK(cache->keys(1).dtype == DType::kBF16);
  CHECK(cache->keys(0).data != cache->values(0).data);
  CHECK(cache->values(0).data != cache->keys(1).data);
  plan.num_host_blocks = 0;
  plan.host_kv_bytes = 0;
  const auto none = HostKvCache::Create(config, plan, &backend);
  REQUIRE(none.ok());
  CHECK(none->keys(0).data == nullptr);
}

}  // namespace
}  // namespace fastgen
