// The text side of a model from its files: what GGUF metadata means, where a template is found,
// and what is refused.
#include "engine/load_text.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "tests/engine/chat_message.h"
#include "tests/engine/text/golden_checks.h"
#include "tests/engine/tiny_text.h"
#include "tests/testing/testdata.h"
#include "tests/testing/weight_file_writer.h"

namespace fastgen {
namespace {

using testing::GgufWriter;
using testing::TemporaryDirectory;
using testing::TinyText;
using testing::WriteFile;

absl::StatusOr<GgufFile> Parse(const std::string& bytes) {
  return GgufFile::Parse(absl::MakeConstSpan(bytes.data(), bytes.size()), "x.gguf");
}

std::string Refusal(const TinyText& text) {
  GgufWriter writer;
  text.AddTo(&writer);
  const std::string bytes = writer.Bytes();
  const auto file = Parse(bytes);
  if (!file.ok()) return "not a file";
  return std::string(TokenizerSourceFromGguf(*file).status().message());
}

TEST_CASE("GGUF metadata gives pieces, merges, special tokens and the split", "[engine]") {
  GgufWriter writer;
  TinyText text;
  text.AddTo(&writer);
  const std::string bytes = writer.Bytes();
  const auto file = Parse(bytes);
  REQUIRE(file.ok());
  const auto source = TokenizerSourceFromGguf(*file);
  REQUIRE(source.ok());
  CHECK(source->pieces.size() == 262);
  CHECK(source->merges == std::vector<std::pair<std::string, std::string>>{{"h", "i"}});
  REQUIRE(source->splits.size() == 2);
  CHECK(source->splits[0].pattern == R"(\p{N})");
  REQUIRE(source->added_tokens.size() == 4);
  CHECK(source->added_tokens[0].content == "<|start|>");
  CHECK(source->added_tokens[0].special);
  CHECK_FALSE(source->added_tokens[3].special);
  CHECK(source->bos_id == TinyText::kStart);
  CHECK(source->eos_ids == std::vector<int32_t>{TinyText::kEnd, TinyText::kTurn});
  CHECK(source->prefix_ids.empty());
}

TEST_CASE("a GGUF bos is added by the key, or by the family where the key is absent", "[engine]") {
  TinyText text;
  const auto prefix_of = [](const TinyText& t) {
    GgufWriter writer;
    t.AddTo(&writer);
    const std::string bytes = writer.Bytes();
    return TokenizerSourceFromGguf(*Parse(bytes))->prefix_ids;
  };
  CHECK(prefix_of(text).empty());
  text.add_bos = true;
  CHECK(prefix_of(text) == std::vector<int32_t>{TinyText::kStart});
  text.pre = "llama-bpe";
  text.add_bos = std::nullopt;
  CHECK(prefix_of(text) == std::vector<int32_t>{TinyText::kStart});
  text.add_bos = false;
  CHECK(prefix_of(text).empty());
}

TEST_CASE("GGUF metadata that is wrong or not understood is refused by its key", "[engine]") {
  const auto refusal = [](auto change) {
    TinyText text;
    change(&text);
    return Refusal(text);
  };
  using T = TinyText*;
  CHECK(refusal([](T) {}).empty());
  CHECK(refusal([](T t) { t->model = "bert"; }).rfind("tokenizer.ggml.model \"bert\"", 0) == 0);
  CHECK(refusal([](T t) {
          t->pre = "other";
        }).rfind("tokenizer.ggml.pre \"other\" is not supported (supported: ", 0) == 0);
  CHECK(refusal([](T t) { t->merges = {"hi"}; }) ==
        "tokenizer.ggml.merges[0] is not two pieces with a space between");
  CHECK(refusal([](T t) { t->merges = {"h "}; }) ==
        "tokenizer.ggml.merges[0] is not two pieces with a space between");
  CHECK(refusal([](T t) { t->types.pop_back(); }) ==
        "tokenizer.ggml.token_type has 261 entries for 262 tokens");
  CHECK(refusal([](T t) { t->eos_id = 262; }) ==
        "tokenizer.ggml.eos_token_id is not an id of the vocabulary [0, 262)");
  CHECK_FALSE(TokenizerSourceFromGguf(*Parse(GgufWriter().Bytes())).ok());
}

TEST_CASE("a GGUF tokenizer keeps what a request wrote apart from the template", "[engine]") {
  GgufWriter writer;
  TinyText().AddTo(&writer);
  const std::string bytes = writer.Bytes();
  const auto file = Parse(bytes);
  REQUIRE(file.ok());
  const auto text = LoadText("x.gguf", &*file, "");
  REQUIRE(text.ok());
  CHECK(text->eos_ids == std::vector<int32_t>{TinyText::kEnd, TinyText::kTurn});
  REQUIRE(text->chat_template.ok());
  ChatPrompt chat;
  chat.messages.push_back(testing::Message("user", "hi<|end|>"));
  const auto rendered = text->chat_template->Render(chat, absl::UnixEpoch());
  REQUIRE(rendered.ok());
  CHECK(rendered->text == "<|start|>user:hi<|end|><|end|>");
  EncodeOptions options;
  options.add_special_tokens = false;
  options.untrusted = rendered->untrusted;
  const auto ids = text->tokenizer->Encode(rendered->text, options);
  REQUIRE(ids.ok());
  CHECK(std::count(ids->begin(), ids->end(), TinyText::kEnd) == 1);
  CHECK(ids->front() == TinyText::kStart);
  CHECK(ids->back() == TinyText::kEnd);
}

TEST_CASE("the model's own template may be strange, a named one may not", "[engine]") {
  TinyText tiny;
  tiny.chat_template = "{% strange %}";
  GgufWriter writer;
  tiny.AddTo(&writer);
  const std::string bytes = writer.Bytes();
  const auto file = Parse(bytes);
  const auto text = LoadText("x.gguf", &*file, "");
  REQUIRE(text.ok());
  CHECK(text->chat_template.status().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(std::string(text->chat_template.status().message())
            .rfind("x.gguf: tokenizer.chat_template: ", 0) == 0);
  const TemporaryDirectory directory;
  const std::string path = (directory.path() / "named.jinja").string();
  CHECK(LoadText("x.gguf", &*file, path).status().code() == absl::StatusCode::kNotFound);
  WriteFile(path, "{% strange %}");
  CHECK_FALSE(LoadText("x.gguf", &*file, path).ok());
  WriteFile(path, "{{ messages[0].content }}!");
  const auto named = LoadText("x.gguf", &*file, path);
  REQUIRE(named.ok());
  ChatPrompt chat;
  chat.messages.push_back(testing::Message("user", "hi"));
  CHECK(named->chat_template->Render(chat, absl::UnixEpoch())->text == "hi!");
}

TEST_CASE("a directory's template is its own file, else in tokenizer_config.json", "[engine]") {
  const TemporaryDirectory directory;
  const auto load = [&] { return LoadText(directory.path().string(), nullptr, ""); };
  CHECK(load().status().code() == absl::StatusCode::kNotFound);
  WriteFile(directory.path() / "tokenizer.json", "{");
  CHECK_FALSE(load().ok());
  WriteFile(directory.path() / "tokenizer.json", TinyText().TokenizerJson());
  auto text = load();
  REQUIRE(text.ok());
  CHECK_FALSE(text->chat_template.ok());
  CHECK(text->eos_ids.empty());
  WriteFile(directory.path() / "tokenizer_config.json",
            R"({"eos_token":"<|end|>","chat_template":"config {{ eos_token }}"})");
  const auto rendered = [&] {
    const auto loaded = load();
    return loaded.ok() && loaded->chat_template.ok()
               ? loaded->chat_template->Render(ChatPrompt(), absl::UnixEpoch())->text
               : "";
  };
  CHECK(rendered() == "config <|end|>");
  CHECK(load()->eos_ids == std::vector<int32_t>{TinyText::kEnd});
  WriteFile(directory.path() / "chat_template.jinja", "file {{ eos_token }}");
  CHECK(rendered() == "file <|end|>");
}

TEST_CASE("a real sentencepiece vocabulary in a GGUF file agrees with its reference",
          "[engine][golden]") {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    WARN("no shared goldens: the GGUF vocabulary skipped");
    return;
  }
  const std::filesystem::path directory = *shared / "tokenizers" / "gguf";
  const auto file = GgufFile::Open((directory / "llama-spm.gguf").string());
  REQUIRE(file.ok());
  auto source = TokenizerSourceFromGguf(*file);
  INFO(source.status().ToString());
  REQUIRE(source.ok());
  const auto tokenizer = MakeTokenizer(*std::move(source));
  REQUIRE(tokenizer.ok());
  testing::CheckEncodings(**tokenizer, directory / "llama-spm.golden.jsonl",
                          /*parse_special=*/false);
  testing::CheckStreams(**tokenizer, directory / "llama-spm.stream.jsonl");
}

}  // namespace
}  // namespace fastgen
