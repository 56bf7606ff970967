// LoadWeights: what is stacked on what, what progress says, what is refused.
#include "engine/model/weights.h"

#include <catch2/catch.hpp>
#include <string>

#include "absl/strings/match.h"
#include "tests/engine/model/stub_backend.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using ::fastgen::testing::FileTensor;
using ::fastgen::testing::StubBackend;
using ::fastgen::testing::StubMatrix;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TinyModel;

std::string Stored(const PackedMatrix& matrix) {
  return static_cast<const StubMatrix&>(matrix).stored;
}

std::string BytesOf(const TinyModel& tiny, const std::string& name) {
  for (const FileTensor& tensor : tiny.Tensors()) {
    if (tensor.name == name) return tensor.bytes;
  }
  return "absent";
}

TEST_CASE("q, k and v are stacked in order, gate and up too, from either format",
          "[model][weights]") {
  TinyModel tiny;
  tiny.matrix_dtype = DType::kBF16;
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  const std::string gguf = directory.path() / "tiny.gguf";
  tiny.WriteGguf(gguf);
  for (const std::string& path : {directory.path().string(), gguf}) {
    const auto checkpoint = Checkpoint::Open(path);
    REQUIRE(checkpoint.ok());
    StubBackend backend;
    const auto weights = LoadWeights(**checkpoint, &backend, {});
    REQUIRE(weights.ok());
    REQUIRE(weights->layers.size() == 2);
    const std::string prefix = "model.layers.1.";
    const LayerWeights& layer = weights->layers[1];
    CHECK(layer.qkv->rows() == tiny.config.qkv_width());
    CHECK(Stored(*layer.qkv) == BytesOf(tiny, prefix + "self_attn.q_proj.weight") +
                                    BytesOf(tiny, prefix + "self_attn.k_proj.weight") +
                                    BytesOf(tiny, prefix + "self_attn.v_proj.weight"));
    CHECK(Stored(*layer.gate_up) == BytesOf(tiny, prefix + "mlp.gate_proj.weight") +
                                        BytesOf(tiny, prefix + "mlp.up_proj.weight"));
    CHECK(Stored(*layer.down) == BytesOf(tiny, prefix + "mlp.down_proj.weight"));
    CHECK(Stored(*layer.attention_out) == BytesOf(tiny, prefix + "self_attn.o_proj.weight"));
    CHECK(Stored(weights->head()) == BytesOf(tiny, "lm_head.weight"));
    CHECK(std::string(static_cast<const char*>(layer.ffn_norm->data()), layer.ffn_norm->bytes()) ==
          BytesOf(tiny, prefix + "post_attention_layernorm.weight"));
    CHECK(weights->bytes() == (*checkpoint)->total_bytes());
  }
}

TEST_CASE("norm weights become fp32 exactly from every float type", "[model][weights]") {
  const float expected[] = {1.5f, -0.25f, 65504.0f, 0x1p-24f, 0.0f, -0x1p-14f};
  const uint16_t f16[] = {0x3e00, 0xb400, 0x7bff, 0x0001, 0x0000, 0x8400};
  std::string stored;
  for (int i = 0; i < 64; ++i) stored += testing::LittleEndian(f16[i % 6]);
  TinyModel tiny;
  std::vector<FileTensor> tensors = tiny.Tensors();
  for (FileTensor& tensor : tensors) {
    if (tensor.name != "model.norm.weight") continue;
    tensor.dtype = DType::kF16;
    tensor.bytes = stored;
  }
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  testing::WriteFile(directory.path() / "model.safetensors", testing::SafetensorsBytes(tensors));
  const auto checkpoint = Checkpoint::Open(directory.path());
  REQUIRE(checkpoint.ok());
  StubBackend backend;
  const auto weights = LoadWeights(**checkpoint, &backend, {});
  REQUIRE(weights.ok());
  const float* values = static_cast<const float*>(weights->final_norm->data());
  for (int i = 0; i < 64; ++i) CHECK(values[i] == expected[i % 6]);
}

TEST_CASE("a tied head is the embedding's matrix, packed once", "[model][weights]") {
  TinyModel tiny;
  tiny.config.tied_head = true;
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  const auto checkpoint = Checkpoint::Open(directory.path());
  REQUIRE(checkpoint.ok());
  StubBackend backend;
  const auto weights = LoadWeights(**checkpoint, &backend, {});
  REQUIRE(weights.ok());
  CHECK(&weights->head() == weights->embedding.get());
  CHECK(weights->bytes() == (*checkpoint)->total_bytes());
}

TEST_CASE("progress rises to all bytes", "[model][weights]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  const auto checkpoint = Checkpoint::Open(directory.path());
  REQUIRE(checkpoint.ok());
  StubBackend backend;
  int64_t last = 0;
  int num_calls = 0;
  bool is_rising = true;
  const auto progress = [&](int64_t done, int64_t total) {
    is_rising = is_rising && done > last && done <= total && total == (*checkpoint)->total_bytes();
    last = done;
    ++num_calls;
  };
  REQUIRE(LoadWeights(**checkpoint, &backend, progress).ok());
  CHECK(is_rising);
  CHECK(last == (*checkpoint)->total_bytes());
  CHECK(num_calls > 10);
}

TEST_CASE("weights that do not fit are refused with both figures, before packing",
          "[model][weights]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  const auto checkpoint = Checkpoint::Open(directory.path());
  REQUIRE(checkpoint.ok());
  StubBackend backend;
  backend.free_memory_bytes = 1000;
  backend.pack_status = absl::InternalError("packed all the same");
  const absl::Status status = LoadWeights(**checkpoint, &backend, {}).status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(absl::StrContains(status.message(), std::to_string((*checkpoint)->total_bytes())));
  CHECK(absl::StrContains(status.message(), "1000"));
}

std::vector<WeightForm> FormsOf(const PackedMatrix& matrix) {
  return static_cast<const StubMatrix&>(matrix).forms;
}

TEST_CASE("a form that is asked for goes to the matrices that it is for", "[model][weights]") {
  TinyModel tiny;
  tiny.config.num_layers = 4;
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  const auto checkpoint = Checkpoint::Open(directory.path());
  REQUIRE(checkpoint.ok());
  struct Case {
    WeightForm asked, vocabulary, attention, outer_ffn, inner_ffn;
  };
  using enum WeightForm;
  for (const Case& c :
       {Case{kAsStored, kAsStored, kAsStored, kAsStored, kAsStored},
        Case{kBf16, kBf16, kBf16, kBf16, kBf16},
        Case{kInt8Group32, kInt8Group32, kInt8Group32, kInt8Group32, kInt8Group32},
        Case{kInt8Group128, kInt8Group128, kInt8Group128, kInt8Group128, kInt8Group128},
        Case{kInt4Group32, kInt8Group32, kInt4Group32, kInt4Group32, kInt4Group32},
        Case{kInt4Group128, kInt8Group128, kInt4Group128, kInt4Group128, kInt4Group128},
        Case{kFp8Rows, kBf16, kBf16, kBf16, kFp8Rows}}) {
    INFO(FormName(c.asked));
    StubBackend backend;
    const auto weights = LoadWeights(**checkpoint, &backend, {}, c.asked);
    REQUIRE(weights.ok());
    CHECK(FormsOf(*weights->embedding) == std::vector<WeightForm>{c.vocabulary});
    CHECK(FormsOf(*weights->untied_head) == std::vector<WeightForm>{c.vocabulary});
    for (size_t i = 0; i < 4; ++i) {
      const LayerWeights& layer = weights->layers[i];
      const WeightForm ffn = i == 0 || i == 3 ? c.outer_ffn : c.inner_ffn;
      CHECK(FormsOf(*layer.qkv) == std::vector<WeightForm>(3, c.attention));
      CHECK(FormsOf(*layer.attention_out) == std::vector<WeightForm>{c.attention});
      CHECK(FormsOf(*layer.gate_up) == std::vector<WeightForm>(2, ffn));
      CHECK(FormsOf(*layer.down) == std::vector<WeightForm>{ffn});
    }
  }
}

TEST_CASE("what the weights are says what was stored and what became of it", "[model][weights]") {
  TinyModel tiny;
  tiny.matrix_dtype = tiny.embedding_dtype = DType::kBF16;
  const TemporaryDirectory directory;
  tiny.WriteDirectory(directory.path());
  const auto checkpoint = Checkpoint::Open(directory.path());
  REQUIRE(checkpoint.ok());
  CHECK(DescribeWeights(**checkpoint, WeightForm::kAsStored) == "bf16");
  CHECK(DescribeWeights(**checkpoint, WeightForm::kBf16) == "bf16");
  CHECK(DescribeWeights(**checkpoint, WeightForm::kInt4Group128) == "int4-g128 (from bf16)");
  CHECK(DescribeWeights(**checkpoint, WeightForm::kFp8Rows) == "fp8 (from bf16)");
}

TEST_CASE("weights that fit only in the form asked for are taken in it", "[model][weights]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  const auto checkpoint = Checkpoint::Open(directory.path());
  REQUIRE(checkpoint.ok());
  StubBackend backend;
  backend.free_memory_bytes = (*checkpoint)->total_bytes() * 3 / 4;  // of fp32
  CHECK_FALSE(LoadWeights(**checkpoint, &backend, {}).ok());
  CHECK(LoadWeights(**checkpoint, &backend, {}, WeightForm::kBf16).ok());
  backend.free_memory_bytes = (*checkpoint)->total_bytes() / 4;
  const auto bf16 = LoadWeights(**checkpoint, &backend, {}, WeightForm::kBf16);
  CHECK(bf16.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(LoadWeights(**checkpoint, &backend, {}, WeightForm::kInt4Group32).ok());
}

TEST_CASE("a matrix that the backend refuses is named", "[model][weights]") {
  const TemporaryDirectory directory;
  TinyModel().WriteDirectory(directory.path());
  const auto checkpoint = Checkpoint::Open(directory.path());
  REQUIRE(checkpoint.ok());
  StubBackend backend;
  backend.pack_status = absl::InvalidArgumentError("no kernel for this");
  const absl::Status status = LoadWeights(**checkpoint, &backend, {}).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(
      absl::StrContains(status.message(), "tensor model.embed_tokens.weight: no kernel for this"));
}

}  // namespace
}  // namespace fastgen
