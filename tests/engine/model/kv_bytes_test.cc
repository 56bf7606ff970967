// What decoding leaves in the cache is what a prompt of the same ids leaves: every byte of the keys
// and values of every layer, however the prompt is cut and whoever is beside it in the step.
//
// Blocks that are full are compared whole, so nothing here knows how a block is arranged.
#include <string>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "tests/engine/model/batch_under_test.h"
#include "tests/testing/skip.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/testdata.h"
#include "tests/testing/tiny_model.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

using ::fastgen::testing::ArgMax;
using ::fastgen::testing::Chunk;
using ::fastgen::testing::ModelUnderTest;
using ::fastgen::testing::RandomIds;
using ::fastgen::testing::ScatteredBlocks;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TestModelOptions;
using ::fastgen::testing::TinyModel;

constexpr int32_t kNumDecoded = 200;

// A sequence that has been run: its ids, the logits after each and its pages.
struct Run {
  std::vector<int32_t> ids;
  std::vector<float> logits;
  std::vector<std::vector<uint8_t>> blocks;  // those that are full
};

class Runs {
 public:
  explicit Runs(ModelUnderTest* tested) : tested_(*tested) {}

  // Feeds `prompt` at once, then 200 ids one by one, each the best after the one before; on blocks
  // of its own.
  Run Decode(const std::vector<int32_t>& prompt) {
    Run run;
    run.ids = prompt;
    const int32_t length = static_cast<int32_t>(prompt.size()) + kNumDecoded;
    const std::vector<int32_t> blocks = TakeBlocks(length);
    for (int32_t begin = 0; begin < length;) {
      const int32_t end = static_cast<int32_t>(run.ids.size());
      Add(tested_.Step({{run.ids, begin, end, blocks}}), &run);
      begin = end;
      const size_t vocab = static_cast<size_t>(tested_.config().vocab);
      if (end < length) {
        run.ids.push_back(
            ArgMax(absl::MakeSpan(run.logits).subspan(run.logits.size() - vocab, vocab)));
      }
    }
    ReadBlocks(blocks, length, &run);
    return run;
  }

  // Feeds `ids` in chunks of the given sizes (the last repeats), on blocks of its own. Where there
  // are `neighbour` ids, one row of theirs precedes each chunk.
  Run Feed(const std::vector<int32_t>& ids, const std::vector<int32_t>& sizes,
           const std::vector<int32_t>& neighbour = {}) {
    Run run;
    run.ids = ids;
    const int32_t length = static_cast<int32_t>(ids.size());
    const std::vector<int32_t> blocks = TakeBlocks(length);
    const int32_t num_neighbour = static_cast<int32_t>(neighbour.size());
    const std::vector<int32_t> neighbour_blocks = TakeBlocks(num_neighbour);
    size_t step = 0;
    for (int32_t begin = 0; begin < length; ++step) {
      const int32_t end = std::min(length, begin + sizes[std::min(step, sizes.size() - 1)]);
      const int32_t at = static_cast<int32_t>(step);
      std::vector<Chunk> chunks;
      if (at < num_neighbour) chunks.push_back({neighbour, at, at + 1, neighbour_blocks});
      chunks.push_back({ids, begin, end, blocks});
      const std::vector<float> logits = tested_.Step(chunks);
      const int64_t skipped = at < num_neighbour ? tested_.config().vocab : 0;
      Add({logits.begin() + skipped, logits.end()}, &run);
      begin = end;
    }
    ReadBlocks(blocks, length, &run);
    return run;
  }

 private:
  std::vector<int32_t> TakeBlocks(int32_t length) {
    const int32_t count = (length + tested_.plan().block_size - 1) / tested_.plan().block_size;
    const std::vector<int32_t> blocks = ScatteredBlocks(next_block_, count);
    next_block_ += count;
    REQUIRE(next_block_ <= tested_.plan().num_blocks);
    return blocks;
  }
  static void Add(const std::vector<float>& logits, Run* run) {
    run->logits.insert(run->logits.end(), logits.begin(), logits.end());
  }
  void ReadBlocks(const std::vector<int32_t>& blocks, int32_t length, Run* run) {
    for (int32_t i = 0; i < length / tested_.plan().block_size; ++i) {
      run->blocks.push_back(tested_.BlockBytes(blocks[static_cast<size_t>(i)]));
    }
  }

  ModelUnderTest& tested_;
  int32_t next_block_ = 0;
};

void CheckSame(const Run& got, const Run& expected) {
  REQUIRE(got.blocks.size() == expected.blocks.size());
  for (size_t i = 0; i < got.blocks.size(); ++i) {
    INFO("block " << i);
    // Not ==, which would print the bytes.
    const bool same_bytes = got.blocks[i] == expected.blocks[i];
    CHECK(same_bytes);
  }
  const bool same_logits = got.logits == expected.logits;
  CHECK(same_logits);
}

// Every cut, alone and beside another sequence.
void CheckAllCuts(ModelUnderTest* tested, const std::vector<int32_t>& prompt,
                  const std::vector<std::vector<int32_t>>& cuts) {
  Runs runs(tested);
  const Run decoded = runs.Decode(prompt);
  REQUIRE(decoded.blocks.size() >= 3);
  // The cache holds what was computed, not what it held at the start.
  REQUIRE(decoded.blocks[0] != decoded.blocks[1]);
  for (const std::vector<int32_t>& cut : cuts) {
    INFO("first chunk " << cut.front());
    CheckSame(runs.Feed(decoded.ids, cut), decoded);
  }
  const std::vector<int32_t> neighbour = RandomIds(60, 77, tested->config().vocab);
  INFO("beside another sequence");
  CheckSame(runs.Feed(decoded.ids, {5, 1, 1, 40, 2}, neighbour), decoded);
}

std::vector<std::string> Paths() {
  std::vector<std::string> paths;
  for (cpu::Isa isa : cpu::kAllIsas) {
    if (cpu::HasIsa(isa)) paths.emplace_back(cpu::IsaName(isa));
  }
  return paths;
}

TestModelOptions OptionsFor(const std::string& path, ComputeDType compute_dtype,
                            int32_t block_size) {
  TestModelOptions options;
  options.cpu_isa = path;
  options.compute_dtype = compute_dtype;
  options.block_size = block_size;
  options.kv_cache_bytes = 16 << 20;
  return options;
}

TEST_CASE("200 decoded tokens leave the bytes that they leave as a prompt, on every path",
          "[model][kv_bytes]") {
  const std::string path = GENERATE(from_range(Paths()));
  const auto [dtype, compute_dtype] = GENERATE(
      std::pair(DType::kBF16, ComputeDType::kAuto), std::pair(DType::kQ4_1, ComputeDType::kAuto),
      std::pair(DType::kQ8_0, ComputeDType::kAuto), std::pair(DType::kF16, ComputeDType::kAuto),
      std::pair(DType::kQ4_1, ComputeDType::kF32));
  const int32_t block_size = GENERATE(16, 64);
  INFO(path << " " << Info(dtype).name << " blocks of " << block_size);
  TinyModel tiny;
  tiny.matrix_dtype = tiny.embedding_dtype = dtype;
  const TemporaryDirectory directory;
  const std::string file = directory.path() / "tiny.gguf";
  tiny.WriteGguf(file);
  ModelUnderTest tested(file, OptionsFor(path, compute_dtype, block_size));
  CheckAllCuts(&tested, RandomIds(9, 1, 80), {{209}, {1}, {7}, {17}, {3, 64, 1, 1, 33, 5}});
}

TEST_CASE("decoded tokens leave a prompt's bytes in every architecture and rounded form",
          "[model][kv_bytes]") {
  const auto [name, form] = GENERATE(std::pair("MistralForCausalLM", WeightForm::kAsStored),
                                     std::pair("MinistralForCausalLM", WeightForm::kInt4Group32),
                                     std::pair("Qwen2ForCausalLM", WeightForm::kInt8Group32),
                                     std::pair("Qwen3ForCausalLM", WeightForm::kAsStored),
                                     std::pair("Qwen3ForCausalLM", WeightForm::kFp8Rows));
  INFO(name << " " << FormName(form));
  TinyModel tiny = TinyModel::Of(name);
  tiny.matrix_dtype = tiny.embedding_dtype = DType::kBF16;
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  TestModelOptions options = OptionsFor("", ComputeDType::kAuto, 16);
  options.weights_form = form;
  ModelUnderTest tested(directory.path(), options);
  CheckAllCuts(&tested, RandomIds(9, 2, 80), {{209}, {1}, {11}, {23, 1, 24, 25}});
}

TEST_CASE("200 tokens that the default model decodes leave the bytes of the same prompt",
          "[model][kv_bytes][smollm2]") {
  const auto model = testing::DefaultModel();
  if (!model.has_value()) {
    testing::SkipCase("the default model is not here");
    return;
  }
  const std::string path = GENERATE("", "avx2");
  if (path == "avx2" && !cpu::HasIsa(cpu::Isa::kAvx2)) {
    WARN("this CPU has no AVX2: its path is left out");
    return;
  }
  TestModelOptions options = OptionsFor(path, ComputeDType::kAuto, 64);
  options.kv_cache_bytes = 96 << 20;
  ModelUnderTest tested(*model, options);
  // 57 and 200 ids: four full blocks of 64.
  CheckAllCuts(&tested, RandomIds(57, 3, tested.config().vocab), {{257}});
}

}  // namespace
}  // namespace fastgen
