// Checkpoint: the two formats seen through one view, and the preflight.
#include "engine/model/checkpoint.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/weight_names.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using ::fastgen::testing::FileTensor;
using ::fastgen::testing::SafetensorsBytes;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TinyModel;
using ::fastgen::testing::WriteFile;

// The bytes of a matrix in this engine's row order.
std::string RowsInOrder(const MatrixSource& source) {
  const size_t row_bytes = static_cast<size_t>(BytesOf(source.dtype, source.cols));
  std::string bytes;
  for (int64_t row = 0; row < source.rows; ++row) {
    const int64_t at = source.row_order.empty() ? row : source.row_order[static_cast<size_t>(row)];
    bytes.append(static_cast<const char*>(source.data) + static_cast<size_t>(at) * row_bytes,
                 row_bytes);
  }
  return bytes;
}

TEST_CASE("a directory, a sharded one and a GGUF file hold the same tensors",
          "[model][checkpoint]") {
  for (const bool is_tied : {false, true}) {
    TinyModel tiny;
    tiny.config.tied_head = is_tied;
    const TemporaryDirectory directory;
    const TemporaryDirectory sharded;
    tiny.WriteDirectory(directory.path());
    tiny.WriteSharded(sharded.path(), 4);
    const std::string gguf_path = directory.path() / "tiny.gguf";
    tiny.WriteGguf(gguf_path);
    const auto one = Checkpoint::Open(directory.path());
    const auto many = Checkpoint::Open(sharded.path());
    const auto gguf = Checkpoint::Open(gguf_path);
    REQUIRE(one.ok());
    REQUIRE(many.ok());
    REQUIRE(gguf.ok());
    CHECK((*one)->gguf() == nullptr);
    CHECK((*gguf)->gguf() != nullptr);
    CHECK((*one)->dtype_name() == "f32");
    CHECK((*one)->total_bytes() == (*gguf)->total_bytes());
    CHECK((*one)->config().eos_ids == std::vector<int32_t>{1, 2});
    CHECK((*gguf)->config().name == "tiny");
    CHECK((*one)->config().name == directory.path().filename());
    for (const TensorSpec& spec : RequiredTensors(tiny.config)) {
      INFO(spec.name);
      if (spec.shape.size() != 2) continue;
      const std::string rows = RowsInOrder((*one)->Matrix(spec.name));
      CHECK(rows == RowsInOrder((*many)->Matrix(spec.name)));
      CHECK(rows == RowsInOrder((*gguf)->Matrix(spec.name)));
    }
    // Only the rows of q and k are stored in another order.
    const StoredTensor& v = (*gguf)->Tensor("model.layers.1.self_attn.v_proj.weight");
    CHECK((*gguf)->Matrix("model.layers.1.self_attn.v_proj.weight").row_order.empty());
    CHECK(v.bytes == 32 * 64 * 4);
    CHECK((*gguf)->Matrix("model.layers.1.self_attn.k_proj.weight").row_order.size() == 32);
  }
}

TEST_CASE("only files of architecture llama have rows in GGUF's order, of biases too",
          "[model][checkpoint]") {
  const std::string q = "model.layers.1.self_attn.q_proj.";
  const std::string v = "model.layers.1.self_attn.v_proj.";
  const TemporaryDirectory directory;
  const std::string path = directory.path() / "tiny.gguf";
  const TinyModel llama = TinyModel::Of("LlamaForCausalLM");
  llama.WriteGguf(path);
  const auto llama_file = Checkpoint::Open(path);
  REQUIRE(llama_file.ok());
  CHECK((*llama_file)->RowOrder(q + "bias") == (*llama_file)->Matrix(q + "weight").row_order);
  CHECK((*llama_file)->RowOrder(q + "bias").size() == 64);
  CHECK((*llama_file)->RowOrder(v + "bias").empty());
  TinyModel::Of("Qwen2ForCausalLM").WriteGguf(path);
  const auto qwen = Checkpoint::Open(path);
  REQUIRE(qwen.ok());
  CHECK((*qwen)->RowOrder(q + "bias").empty());
  CHECK((*qwen)->Matrix(q + "weight").row_order.empty());
  llama.WriteDirectory(directory.path());
  const auto hf = Checkpoint::Open(directory.path());
  REQUIRE(hf.ok());
  CHECK((*hf)->RowOrder(q + "bias").empty());
}

TEST_CASE("hash of a checkpoint follows its weights", "[model][checkpoint]") {
  const TemporaryDirectory directory;
  TinyModel tiny;
  tiny.WriteDirectory(directory.path());
  const std::string hash = (*Checkpoint::Open(directory.path()))->Hash();
  CHECK(hash.size() == 32);
  CHECK((*Checkpoint::Open(directory.path()))->Hash() == hash);
  tiny.seed = 2;
  tiny.WriteDirectory(directory.path());
  CHECK((*Checkpoint::Open(directory.path()))->Hash() != hash);
}

// Writes a tiny model with a change and returns the refusal.
std::string Refusal(const std::function<void(std::vector<FileTensor>*)>& change,
                    bool is_tied = false) {
  const TemporaryDirectory directory;
  TinyModel tiny;
  tiny.config.tied_head = is_tied;
  tiny.WriteDirectory(directory.path());
  std::vector<FileTensor> tensors = tiny.Tensors();
  change(&tensors);
  WriteFile(directory.path() / "model.safetensors", SafetensorsBytes(tensors));
  const auto checkpoint = Checkpoint::Open(directory.path());
  if (checkpoint.ok()) return "";
  CHECK(absl::StartsWith(checkpoint.status().message(), directory.path().string()));
  return std::string(checkpoint.status().message());
}

TEST_CASE("a tensor that is missing, extra or misshapen is named", "[model][checkpoint]") {
  CHECK(absl::StrContains(Refusal([](auto* t) { t->erase(t->begin() + 4); }),
                          "tensor model.layers.0.self_attn.v_proj.weight is missing"));
  CHECK(absl::StrContains(Refusal([](auto* t) { t->pop_back(); }),
                          "tensor lm_head.weight is missing"));
  CHECK(absl::StrContains(
      Refusal([](auto* t) {
        t->push_back({"model.layers.0.self_attn.q_proj.bias", DType::kF32, {1}, "aaaa"});
      }),
      "tensor 'model.layers.0.self_attn.q_proj.bias' is not part of a LlamaForCausalLM"));
  CHECK(absl::StrContains(
      Refusal([](auto* t) {
        t->push_back({"model.layers.2.mlp.up_proj.weight", DType::kF32, {1}, "aaaa"});
      }),
      "'model.layers.2.mlp.up_proj.weight' is not part"));
  CHECK(absl::StrContains(
      Refusal([](auto* t) {
        std::swap((*t)[2].shape[0], (*t)[3].shape[0]);
        std::swap((*t)[2].bytes, (*t)[3].bytes);
      }),
      "tensor model.layers.0.self_attn.q_proj.weight has shape [32, 64], the model needs [64, "
      "64]"));
}

TEST_CASE("each tensor that is particular to an architecture is needed, in its shape",
          "[model][checkpoint]") {
  const std::pair<const char*, const char*> cases[] = {
      {"LlamaForCausalLM", "model.layers.1.self_attn.o_proj.bias"},
      {"Qwen2ForCausalLM", "model.layers.0.self_attn.q_proj.bias"},
      {"Qwen2ForCausalLM", "model.layers.2.self_attn.k_proj.bias"},
      {"Qwen2ForCausalLM", "model.layers.2.self_attn.v_proj.bias"},
      {"Qwen3ForCausalLM", "model.layers.0.self_attn.q_norm.weight"},
      {"Qwen3ForCausalLM", "model.layers.2.self_attn.k_norm.weight"},
  };
  for (const auto& [architecture, name] : cases) {
    INFO(architecture << " " << name);
    const TemporaryDirectory directory;
    const TinyModel tiny = TinyModel::Of(architecture);
    tiny.WriteDirectory(directory.path());
    REQUIRE(Checkpoint::Open(directory.path()).ok());
    std::vector<FileTensor> without;
    std::vector<FileTensor> misshapen;
    for (FileTensor& tensor : tiny.Tensors()) {
      const bool is_meant = tensor.name == name;
      if (!is_meant) without.push_back(tensor);
      if (is_meant) {
        tensor.shape[0] -= 1;
        tensor.bytes.resize(tensor.bytes.size() - 4);
      }
      misshapen.push_back(tensor);
    }
    const auto refusal = [&](const std::vector<FileTensor>& tensors) {
      WriteFile(directory.path() / "model.safetensors", SafetensorsBytes(tensors));
      return std::string(Checkpoint::Open(directory.path()).status().message());
    };
    CHECK(absl::StrContains(refusal(without), absl::StrCat("tensor ", name, " is missing")));
    CHECK(absl::StrContains(refusal(misshapen), absl::StrCat("tensor ", name, " has shape [")));
  }
}

TEST_CASE("a damaged file of a checkpoint is named with what is wrong", "[model][checkpoint]") {
  const TemporaryDirectory directory;
  TinyModel().WriteSharded(directory.path(), 3);
  REQUIRE(Checkpoint::Open(directory.path()).ok());
  const auto shard = directory.path() / "part-1.safetensors";
  const auto refusal = [&] {
    return std::string(Checkpoint::Open(directory.path()).status().message());
  };
  const auto size = std::filesystem::file_size(shard);
  for (const uintmax_t left : {size - 1, size / 2, uintmax_t{9}, uintmax_t{0}}) {
    std::filesystem::resize_file(shard, left);
    INFO(left << ": " << refusal());
    CHECK(absl::StartsWith(refusal(), shard.string() + ": "));
  }
  std::filesystem::remove(shard);
  CHECK(absl::StrContains(refusal(), "part-1.safetensors: cannot open"));
  WriteFile(directory.path() / "generation_config.json", R"({"top_p":2})");
  CHECK(refusal() ==
        directory.path().string() + ": generation_config.json: top_p is 2, it must be in (0, 1]");
  WriteFile(directory.path() / "config.json", std::string(1000, '['));
  CHECK(absl::StrContains(refusal(), ": config.json is not valid JSON"));
}

TEST_CASE("tensors that nothing reads may be there", "[model][checkpoint]") {
  CHECK(Refusal([](auto* t) {
          t->push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {1}, "aaaa"});
        }).empty());
  CHECK(Refusal(
            [](auto* t) {
              t->push_back({"lm_head.weight", DType::kF32, {1}, "aaaa"});
            },
            /*is_tied=*/true)
            .empty());
}

TEST_CASE("GGUF file with a tensor of another model is refused", "[model][checkpoint]") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() / "x.gguf";
  const auto refusal = [&](FileTensor tensor) {
    testing::GgufWriter writer = TinyModel().Gguf();
    writer.Tensor(std::move(tensor));
    WriteFile(path, writer.Bytes());
    return std::string(Checkpoint::Open(path).status().message());
  };
  for (const char* name : {"blk.1.attn_q.bias", "blk.2.attn_q.weight", "blk.00.attn_q.weight",
                           "blk..attn_q.weight", "blk.", "mystery"}) {
    INFO(name);
    CHECK(absl::StrContains(refusal({name, DType::kF32, {1}, "aaaa"}), "is not part of a Llama"));
  }
  CHECK(absl::StrContains(refusal({"model.norm.weight", DType::kF32, {64}, std::string(256, 'a')}),
                          "tensor 'model.norm.weight' is there twice"));
}

TEST_CASE("what is no checkpoint is refused by path", "[model][checkpoint]") {
  const TemporaryDirectory directory;
  const std::string nothing = directory.path() / "nothing";
  CHECK(Checkpoint::Open(nothing).status().code() == absl::StatusCode::kNotFound);
  CHECK(absl::StrContains(Checkpoint::Open(nothing).status().message(), nothing));
  CHECK(absl::StrContains(Checkpoint::Open(directory.path()).status().message(), "config.json"));
  const std::string text = directory.path() / "text.gguf";
  WriteFile(text, "hello");
  CHECK(absl::StrContains(Checkpoint::Open(text).status().message(), "text.gguf: not a GGUF"));
}

}  // namespace
}  // namespace fastgen
