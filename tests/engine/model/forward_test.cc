// The whole forward pass on our own tiny models: against the double-precision oracle, and against
// itself however the work is cut.
#include "tests/engine/model/batch_under_test.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <catch2/catch.hpp>
#include <cmath>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "tests/testing/reference_forward.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using ::fastgen::testing::Chunk;
using ::fastgen::testing::ModelUnderTest;
using ::fastgen::testing::RandomIds;
using ::fastgen::testing::ReferenceModel;
using ::fastgen::testing::ScatteredBlocks;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TestModelOptions;
using ::fastgen::testing::TinyModel;

// Differences from the oracle, relative to the standard deviation of its logits.
struct Deviation {
  double max = 0;
  double rms = 0;
};

Deviation Compare(const std::vector<float>& logits, const std::vector<double>& reference) {
  REQUIRE(logits.size() == reference.size());
  double mean = 0;
  for (double logit : reference) mean += logit / static_cast<double>(reference.size());
  double variance = 0;
  double squares = 0;
  Deviation deviation;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double difference = logits[i] - reference[i];
    // A NaN must not pass.
    deviation.max = std::abs(difference) <= deviation.max ? deviation.max : std::abs(difference);
    squares += difference * difference;
    variance += (reference[i] - mean) * (reference[i] - mean);
  }
  const double std = std::sqrt(variance / static_cast<double>(logits.size()));
  deviation.max /= std;
  deviation.rms = std::sqrt(squares / static_cast<double>(logits.size())) / std;
  return deviation;
}

// A tiny model on disk with an oracle.
struct OnDisk {
  explicit OnDisk(const TinyModel& tiny) {
    path = directory.path() / "tiny.gguf";
    tiny.WriteGguf(path);
  }
  ReferenceModel Reference() const { return ReferenceModel::Load(**Checkpoint::Open(path)); }
  TemporaryDirectory directory;
  std::string path;
};

TinyModel OfType(DType dtype) {
  TinyModel tiny;
  tiny.matrix_dtype = dtype;
  tiny.embedding_dtype = dtype;
  if (Info(dtype).block_elements == 256) {
    // Rows are whole blocks of 256.
    tiny.config.hidden = 256;
    tiny.config.ffn = 256;
    tiny.config.q_heads = 16;
    tiny.config.kv_heads = 4;
  }
  return tiny;
}

TEST_CASE("fp32 logits agree with the oracle for every tensor type", "[model][forward]") {
  const DType dtype = GENERATE(
      DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
      DType::kQ5_1, DType::kQ8_0, DType::kIQ4_NL, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
      DType::kQ5_K, DType::kQ6_K, DType::kIQ4_XS);
  INFO(Info(dtype).name);
  const OnDisk model(OfType(dtype));
  ModelUnderTest tested(model.path, {});
  const std::vector<int32_t> ids = RandomIds(70, 1, 80);
  const Deviation deviation = Compare(tested.Logits(ids), model.Reference().Logits(ids));
  CHECK(deviation.max < 1e-4);
}

TEST_CASE("serving logits stay near the oracle for every tensor type", "[model][forward]") {
  const DType dtype = GENERATE(
      DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
      DType::kQ5_1, DType::kQ8_0, DType::kIQ4_NL, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
      DType::kQ5_K, DType::kQ6_K, DType::kIQ4_XS);
  INFO(Info(dtype).name);
  const OnDisk model(OfType(dtype));
  TestModelOptions options;
  options.compute_dtype = ComputeDType::kAuto;
  ModelUnderTest tested(model.path, options);
  const std::vector<int32_t> ids = RandomIds(70, 1, 80);
  const Deviation deviation = Compare(tested.Logits(ids), model.Reference().Logits(ids));
  // Float weights: the bf16 bounds of the recorded models. Integer weights: activations are int8 in
  // groups; over rows of only 64 that gave rms 0.06 and at most 0.8 on 2026-11-22. A wrong scale or
  // sign gives about 1.
  CHECK(deviation.rms < (IsBlockType(dtype) ? 0.1 : 0.05));
  CHECK(deviation.max < (IsBlockType(dtype) ? 1.2 : 0.35));
}

TEST_CASE("fp32 logits agree with the oracle for every RoPE and head", "[model][forward]") {
  TinyModel tiny;
  tiny.config.tied_head = GENERATE(false, true);
  RopeScaling& scaling = tiny.config.rope_scaling;
  scaling.kind =
      GENERATE(RopeScaling::Kind::kNone, RopeScaling::Kind::kLinear, RopeScaling::Kind::kLlama3);
  scaling.factor = 4;
  scaling.original_max_position = 32;
  tiny.config.kv_heads = GENERATE(1, 4);
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  const ReferenceModel reference = ReferenceModel::Load(**Checkpoint::Open(directory.path()));
  ModelUnderTest tested(directory.path(), {});
  const std::vector<int32_t> ids = RandomIds(90, 2, 80);
  CHECK(Compare(tested.Logits(ids), reference.Logits(ids)).max < 1e-4);
}

// Every architecture with what is particular to it: see TinyModel::Of.
const char* const kArchitectures[] = {"LlamaForCausalLM", "MistralForCausalLM",
                                      "MinistralForCausalLM", "Qwen2ForCausalLM",
                                      "Qwen3ForCausalLM"};

TEST_CASE("every architecture agrees with the oracle, in both formats and modes",
          "[model][forward]") {
  const std::string name =
      GENERATE(from_range(std::begin(kArchitectures), std::end(kArchitectures)));
  const bool is_serving = GENERATE(false, true);
  INFO(name << (is_serving ? " serving" : " fp32"));
  TinyModel tiny = TinyModel::Of(name);
  tiny.matrix_dtype = DType::kBF16;
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  std::vector<std::string> paths = {directory.path()};
  if (name != "MinistralForCausalLM") {  // for which GGUF has no name
    paths.push_back(directory.path() / "tiny.gguf");
    TinyModel uniform = tiny;
    if (name == "Qwen3ForCausalLM") uniform.config.layer_windows = {};
    uniform.WriteGguf(paths.back());
  }
  const std::vector<int32_t> ids = RandomIds(90, 12, 80);
  TestModelOptions options;
  options.compute_dtype = is_serving ? ComputeDType::kAuto : ComputeDType::kF32;
  for (const std::string& path : paths) {
    const ReferenceModel reference = ReferenceModel::Load(**Checkpoint::Open(path));
    const Deviation deviation =
        Compare(ModelUnderTest(path, options).Logits(ids), reference.Logits(ids));
    INFO(path);
    CHECK(deviation.rms < (is_serving ? 0.05 : 2e-5));
    CHECK(deviation.max < (is_serving ? 0.35 : 1e-4));
  }
}

TEST_CASE("what is particular to an architecture changes the logits", "[model][forward]") {
  // What is left out by both the model and the oracle would agree above.
  const auto logits = [](const TinyModel& tiny) {
    const TemporaryDirectory directory;
    tiny.WriteDirectory(directory.path());
    return ModelUnderTest(directory.path(), {}).Logits(RandomIds(60, 12, 80));
  };
  const auto distance = [&](const TinyModel& a, const TinyModel& b) {
    const std::vector<float> wanted = logits(a);
    return Compare(logits(b), std::vector<double>(wanted.begin(), wanted.end())).rms;
  };
  const TinyModel llama = TinyModel::Of("LlamaForCausalLM");
  TinyModel other = llama;
  other.config.has_qkv_bias = other.config.has_out_bias = false;
  CHECK(distance(llama, other) > 0.1);
  const TinyModel ministral = TinyModel::Of("MinistralForCausalLM");
  for (const std::vector<int64_t>& windows :
       {std::vector<int64_t>{24, 24, 24}, {0, 24, 24}, {23, 0, 23}, {0, 0, 24}}) {
    other = ministral;
    other.config.layer_windows = windows;
    CHECK(distance(ministral, other) > 0.01);
  }
  const TinyModel qwen2 = TinyModel::Of("Qwen2ForCausalLM");
  other = qwen2;
  other.config.rope_scaling = {};
  CHECK(distance(qwen2, other) > 0.1);
}

TEST_CASE("frequency divisors of a GGUF file are used", "[model][forward]") {
  testing::GgufWriter writer = TinyModel().Gguf();
  std::string divisors;
  for (int i = 0; i < 8; ++i) divisors += testing::LittleEndian(1.0f + static_cast<float>(i));
  writer.Tensor({"rope_freqs.weight", DType::kF32, {8}, divisors});
  const TemporaryDirectory directory;
  const std::string path = directory.path() / "x.gguf";
  testing::WriteFile(path, writer.Bytes());
  const OnDisk plain{TinyModel()};
  const std::vector<int32_t> ids = RandomIds(40, 3, 80);
  const std::vector<double> reference = ReferenceModel::Load(**Checkpoint::Open(path)).Logits(ids);
  CHECK(Compare(ModelUnderTest(path, {}).Logits(ids), reference).max < 1e-4);
  CHECK(Compare(ModelUnderTest(plain.path, {}).Logits(ids), reference).max > 0.1);
}

TEST_CASE("the same weights give the same logits from either format", "[model][forward]") {
  const std::string name =
      GENERATE("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM");
  INFO(name);
  TinyModel tiny = TinyModel::Of(name);
  if (name == "Qwen3ForCausalLM") tiny.config.layer_windows = {};  // GGUF cannot say it
  const OnDisk gguf(tiny);
  tiny.WriteDirectory(gguf.directory.path());
  const std::vector<int32_t> ids = RandomIds(60, 4, 80);
  CHECK(ModelUnderTest(gguf.path, {}).Logits(ids) ==
        ModelUnderTest(gguf.directory.path(), {}).Logits(ids));
}

// Modes and weights whose results must not depend on how work is cut.
struct Mode {
  ComputeDType compute_dtype;
  DType weights;
};
std::vector<Mode> Modes() {
  return {{ComputeDType::kF32, DType::kF32},
          {ComputeDType::kF32, DType::kQ4_1},
          {ComputeDType::kAuto, DType::kBF16},
          {ComputeDType::kAuto, DType::kQ4_1},
          {ComputeDType::kAuto, DType::kQ8_0}};
}

TEST_CASE("logits do not depend on how a prompt is cut into chunks", "[model][forward]") {
  const Mode mode = GENERATE(from_range(Modes()));
  INFO(Info(mode.weights).name);
  const OnDisk model(OfType(mode.weights));
  TestModelOptions options;
  options.compute_dtype = mode.compute_dtype;
  ModelUnderTest tested(model.path, options);
  const std::vector<int32_t> ids = RandomIds(150, 5, 80);
  const std::vector<float> whole = tested.Logits(ids);
  const std::vector<std::vector<int32_t>> cuts = {{1},  {7}, {16}, {17}, {3, 64, 1, 1, 33, 5},
                                                  {149}};
  for (const std::vector<int32_t>& cut : cuts) {
    INFO("first chunk " << cut.front());
    CHECK(tested.Logits(ids, cut) == whole);
  }
}

// Runs sequences together, each on scattered blocks, and compares with each alone.
void CheckIndependence(ModelUnderTest* model) {
  ModelUnderTest& tested = *model;
  const size_t vocab = 80;
  const std::vector<int> lengths = {45, 1, 33, 100, 17, 16};
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> alone;
  for (size_t i = 0; i < lengths.size(); ++i) {
    ids.push_back(RandomIds(lengths[i], static_cast<uint32_t>(10 + i), 80));
    alone.push_back(tested.Logits(ids.back()));
  }
  // All prompts but their last third in one step, then that rest, one id a step: decode rows of
  // some beside chunks of others.
  std::vector<std::vector<int32_t>> blocks;
  for (size_t i = 0; i < ids.size(); ++i) {
    blocks.push_back(ScatteredBlocks(static_cast<int32_t>(8 * i), 8));
  }
  std::vector<int32_t> fed(ids.size(), 0);
  std::vector<std::vector<float>> together(ids.size());
  for (int step = 0; step < 200; ++step) {
    std::vector<Chunk> chunks;
    std::vector<size_t> owners;
    for (size_t i = 0; i < ids.size(); ++i) {
      const int32_t length = lengths[i];
      if (fed[i] == length) continue;
      const int32_t end = fed[i] == 0 ? std::max(1, length * 2 / 3) : fed[i] + 1;
      chunks.push_back({ids[i], fed[i], end, blocks[i]});
      owners.push_back(i);
      fed[i] = end;
    }
    if (chunks.empty()) break;
    const std::vector<float> logits = tested.Step(chunks);
    size_t at = 0;
    for (size_t c = 0; c < chunks.size(); ++c) {
      const size_t count = static_cast<size_t>(chunks[c].end - chunks[c].begin) * vocab;
      std::vector<float>& out = together[owners[c]];
      out.insert(out.end(), logits.begin() + static_cast<int64_t>(at),
                 logits.begin() + static_cast<int64_t>(at + count));
      at += count;
    }
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    INFO("sequence " << i << " of length " << lengths[i]);
    CHECK(together[i] == alone[i]);
  }
}

TEST_CASE("logits of a sequence do not depend on the others in the step or on its blocks",
          "[model][forward]") {
  const Mode mode = GENERATE(from_range(Modes()));
  INFO(Info(mode.weights).name);
  const OnDisk model(OfType(mode.weights));
  TestModelOptions options;
  options.compute_dtype = mode.compute_dtype;
  ModelUnderTest tested(model.path, options);
  CheckIndependence(&tested);
}

TEST_CASE("no architecture's logits depend on the batch, the chunks or the threads",
          "[model][forward]") {
  const std::string name =
      GENERATE(from_range(std::begin(kArchitectures), std::end(kArchitectures)));
  INFO(name);
  TinyModel tiny = TinyModel::Of(name);
  tiny.matrix_dtype = DType::kBF16;
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  for (const ComputeDType compute_dtype : {ComputeDType::kF32, ComputeDType::kAuto}) {
    TestModelOptions options;
    options.compute_dtype = compute_dtype;
    ModelUnderTest tested(directory.path(), options);
    CheckIndependence(&tested);
    const std::vector<int32_t> ids = RandomIds(150, 5, 80);
    const std::vector<float> whole = tested.Logits(ids);
    // Cuts before, at and behind the borders of blocks (16) and of the window (24).
    for (const std::vector<int32_t>& cut :
         {std::vector<int32_t>{1}, {23}, {24}, {25}, {16}, {70, 1, 3}, {149}}) {
      INFO("first chunk " << cut.front());
      CHECK(tested.Logits(ids, cut) == whole);
    }
    options.num_threads = 1;
    CHECK(ModelUnderTest(directory.path(), options).Logits(ids) == whole);
  }
}

TEST_CASE("logits do not depend on the number of threads or the block size", "[model][forward]") {
  const Mode mode = GENERATE(from_range(Modes()));
  const OnDisk model(OfType(mode.weights));
  TestModelOptions options;
  options.compute_dtype = mode.compute_dtype;
  const std::vector<int32_t> ids = RandomIds(80, 6, 80);
  const std::vector<float> two = ModelUnderTest(model.path, options).Logits(ids);
  options.num_threads = 1;
  CHECK(ModelUnderTest(model.path, options).Logits(ids) == two);
  options.num_threads = 3;
  CHECK(ModelUnderTest(model.path, options).Logits(ids) == two);
}

TEST_CASE("every instruction set agrees with the oracle", "[model][forward]") {
  const std::string isa = GENERATE("amx", "avx512-bf16", "avx512", "avx2-vnni", "avx2", "generic");
  BackendOptions probe;
  probe.cpu_isa = isa;
  if (!MakeBackend(probe).ok()) {
    WARN(isa << " is not on this machine: skipped");
    return;
  }
  const Mode mode = GENERATE(from_range(Modes()));
  INFO(isa << " " << Info(mode.weights).name);
  const OnDisk model(OfType(mode.weights));
  TestModelOptions options;
  options.cpu_isa = isa;
  options.compute_dtype = mode.compute_dtype;
  ModelUnderTest tested(model.path, options);
  const std::vector<int32_t> ids = RandomIds(60, 7, 80);
  const Deviation deviation = Compare(tested.Logits(ids), model.Reference().Logits(ids));
  CHECK(deviation.rms < (mode.compute_dtype == ComputeDType::kF32 ? 1e-5 : 0.1));
  CHECK(tested.Logits(ids, {13, 1}) == tested.Logits(ids));
}

TEST_CASE("what a block held before does not matter, not even NaN", "[model][forward]") {
  TinyModel tiny;
  const Mode mode = GENERATE(from_range(Modes()));
  if (mode.weights != DType::kF32 && mode.weights != DType::kBF16) return;
  tiny.matrix_dtype = mode.weights;
  std::vector<testing::FileTensor> tensors = tiny.Tensors();
  // Token 79's embedding is NaN: so are its keys and values.
  const std::string nan = testing::LittleEndian(std::numeric_limits<float>::quiet_NaN());
  for (int i = 0; i < 64; ++i)
    tensors[0].bytes.replace((79 * 64 + static_cast<size_t>(i)) * 4, 4, nan);
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  testing::WriteFile(directory.path() / "model.safetensors", testing::SafetensorsBytes(tensors));
  TestModelOptions options;
  options.compute_dtype = mode.compute_dtype;
  const std::vector<int32_t> ids = RandomIds(37, 8, 79);
  const std::vector<float> fresh = ModelUnderTest(directory.path(), options).Logits(ids);
  ModelUnderTest tested(directory.path(), options);
  const std::vector<float> poisoned = tested.Logits(std::vector<int32_t>(64, 79));
  CHECK(std::isnan(poisoned[0]));
  CHECK(tested.Logits(ids) == fresh);
  CHECK(tested.Logits(ids, {1}) == fresh);
}

}  // namespace
}  // namespace fastgen
