// Engine::Create on tiny models that the test writes itself: the whole path from files to text, and
// what is refused at start.
#include "engine/engine.h"

// base/check.h and Catch2 both name a CHECK; the last one is meant.
#include "tests/testing/recording_sink.h"
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

#include "tests/engine/chat_message.h"
#include "tests/engine/tiny_text.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using testing::RecordingSink;
using testing::TemporaryDirectory;
using testing::TinyModel;
using testing::TinyText;
using testing::WriteFile;

EngineOptions Options(const std::string& model_path) {
  EngineOptions options;
  options.model_path = model_path;
  options.backend.compute_dtype = ComputeDType::kF32;
  options.backend.num_threads = 1;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 32;
  options.block_size = 16;
  options.kv_cache_bytes = 1 << 20;
  return options;
}

TinyModel Model() {
  TinyModel model;
  model.config.vocab = TinyText::kVocab;
  return model;
}

std::string WriteGguf(const TemporaryDirectory& directory) {
  testing::GgufWriter writer = Model().Gguf();
  TinyText text;
  text.bos_id = text.eos_id = std::nullopt;  // the model's metadata has them
  text.AddTo(&writer);
  const std::string path = (directory.path() / "tiny.gguf").string();
  WriteFile(path, writer.Bytes());
  return path;
}

RecordingSink::Record Generate(Engine* engine, GenerateRequest request) {
  auto sink = std::make_shared<RecordingSink>();
  const absl::Status status = engine->Submit(std::move(request), sink);
  INFO(status.ToString());
  REQUIRE(status.ok());
  return sink->WaitForEnd();
}

GenerateRequest Chat(std::string request_id) {
  GenerateRequest request;
  request.request_id = std::move(request_id);
  ChatPrompt chat;
  chat.messages.push_back(testing::Message("user", "hi there"));
  request.prompt = chat;
  request.sampling.temperature = 0;
  request.stopping.max_tokens = 20;
  return request;
}

TEST_CASE("a GGUF file and a directory of the same model give the same answer", "[engine]") {
  const TemporaryDirectory gguf_directory;
  const TemporaryDirectory directory;
  Model().WriteDirectory(directory.path());
  WriteFile(directory.path() / "tokenizer.json", TinyText().TokenizerJson());
  WriteFile(directory.path() / "tokenizer_config.json",
            R"({"bos_token":"<|start|>","eos_token":"<|end|>"})");
  WriteFile(directory.path() / "chat_template.jinja", TinyText().chat_template);

  int64_t loaded = 0;
  int64_t total = 0;
  const auto from_gguf =
      Engine::Create(Options(WriteGguf(gguf_directory)), [&](int64_t done, int64_t all) {
        loaded = done;
        total = all;
      });
  INFO(from_gguf.status().ToString());
  REQUIRE(from_gguf.ok());
  CHECK(loaded == total);
  CHECK(total > 0);
  const auto from_directory = Engine::Create(Options(directory.path().string()), nullptr);
  INFO(from_directory.status().ToString());
  REQUIRE(from_directory.ok());

  const ModelInfo& info = (*from_gguf)->model_info();
  CHECK(info.name == "tiny");
  CHECK(info.architecture == "LlamaForCausalLM");
  CHECK(info.vocab_size == TinyText::kVocab);
  CHECK(info.context_length == 256);
  CHECK(info.has_chat_template);
  CHECK(!info.eos_token.empty());
  CHECK(std::find(info.eos_ids.begin(), info.eos_ids.end(), TinyText::kEnd) != info.eos_ids.end());
  CHECK((*from_gguf)->memory_report().num_blocks > 0);
  CHECK((*from_gguf)->memory_report().block_size == 16);

  const RecordingSink::Record first = Generate(from_gguf->get(), Chat("a"));
  const RecordingSink::Record second = Generate(from_directory->get(), Chat("a"));
  CHECK(first.accepted->prompt_token_ids.front() == TinyText::kStart);
  CHECK(first.accepted->prompt_token_ids == second.accepted->prompt_token_ids);
  CHECK_FALSE(first.ids().empty());
  CHECK(first.ids() == second.ids());
  CHECK(first.text() == second.text());
  CHECK((*from_gguf)->RenderChat(std::get<ChatPrompt>(Chat("a").prompt))->text ==
        "<|start|>user:hi there<|end|>");
}

TEST_CASE("a host tier is taken at start, reported, and empty", "[engine]") {
  const TemporaryDirectory directory;
  EngineOptions options = Options(WriteGguf(directory));
  options.host_kv_bytes = 4 << 20;
  const auto engine = Engine::Create(options, nullptr);
  INFO(engine.status().ToString());
  REQUIRE(engine.ok());
  const MemoryReport& memory = (*engine)->memory_report();
  CHECK(memory.num_host_blocks > 0);
  CHECK(memory.host_kv_bytes > 0);
  CHECK(memory.host_kv_bytes <= options.host_kv_bytes);
  const EngineStats stats = (*engine)->stats();
  CHECK(stats.num_host_blocks == memory.num_host_blocks);
  CHECK(stats.num_free_host_blocks == memory.num_host_blocks);
  CHECK_FALSE(Generate(engine->get(), Chat("a")).ids().empty());
}

TEST_CASE("what does not load is refused with a sentence that names it", "[engine]") {
  const TemporaryDirectory directory;
  const auto message = [](const EngineOptions& options) {
    return std::string(Engine::Create(options, nullptr).status().message());
  };
  CHECK_FALSE(message(Options("")).empty());
  const std::string missing = (directory.path() / "missing.gguf").string();
  CHECK(message(Options(missing)).find(missing) != std::string::npos);
  const std::string path = WriteGguf(directory);
  EngineOptions options = Options(path);
  options.max_num_seqs = 0;
  CHECK(message(options) == "max_num_seqs: 0 is outside [1, 4096]");
  options = Options(path);
  options.max_num_batched_tokens = 2;
  CHECK(message(options).rfind("max_num_batched_tokens: 2 is below max_num_seqs (4)", 0) == 0);
  options = Options(path);
  options.block_size = 17;
  CHECK(message(options) == "block_size: 17 is not 16, 32, 64 or 128");
  options = Options(path);
  options.max_queued_tokens = 0;
  CHECK(message(options) == "max_queued_tokens: 0 is outside [1, 1000000000]");
  options = Options(path);
  options.max_steps_in_flight = 3;
  CHECK(message(options) == "max_steps_in_flight: 3 is outside [1, 2]");
  options = Options(path);
  options.deadline_margin = absl::Seconds(11);
  CHECK(message(options) == "deadline_margin: 11s is outside [0, 10s]");
  options = Options(path);
  options.host_kv_bytes = -1;
  CHECK(message(options) == "host_kv_bytes: -1 is negative; 0 turns it off");
  options = Options(path);
  options.host_kv_bytes = 5;  // not one chunk
  CHECK(message(options).find("5") != std::string::npos);
  options = Options(path);
  options.backend.device = "abacus";
  CHECK(message(options).find("abacus") != std::string::npos);
  options = Options(path);
  options.max_model_len = 1 << 20;
  CHECK_FALSE(Engine::Create(options, nullptr).ok());
}

}  // namespace
}  // namespace fastgen
