// The text side of a model from its files: what GGUF metadata means, where a template is found,
// and what is refused.
#include "engine/load_text.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "engine/text/tekken.h"
#include "engine/text/tokenizer_json.h"
#include "tests/engine/chat_message.h"
#include "tests/engine/text/golden_checks.h"
#include "tests/engine/text/tokenizer_files.h"
#include "tests/engine/tiny_text.h"
#include "tests/testing/skip.h"
#include "tests/testing/temporary_directory.h"
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

TEST_CASE("a GGUF control token that ends turns is an end, whatever the keys say", "[engine]") {
  GgufWriter writer;
  TinyText text;
  text.pieces.push_back("<|im_end|>");
  text.types.push_back(3);  // control
  text.pieces.push_back("<|eot_id|>");
  text.types.push_back(4);  // user-defined: it may be typed
  text.AddTo(&writer);
  const std::string bytes = writer.Bytes();
  const auto file = Parse(bytes);
  REQUIRE(file.ok());
  const auto source = TokenizerSourceFromGguf(*file);
  REQUIRE(source.ok());
  CHECK(source->eos_ids ==
        std::vector<int32_t>{TinyText::kEnd, TinyText::kTurn, TinyText::kVocab});
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
    testing::SkipCase("the shared goldens are not here");
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

// The metadata that a converter would write for a byte-level tokenizer.
std::string GgufOf(const TokenizerSource& source, const std::string& pre) {
  constexpr int32_t kNormal = 1;
  constexpr int32_t kControl = 3;
  constexpr int32_t kUserDefined = 4;
  constexpr int32_t kUnused = 5;
  std::vector<std::string> tokens = source.pieces;
  std::vector<int32_t> types(tokens.size(), kNormal);
  for (const AddedToken& token : source.added_tokens) {
    const size_t id = static_cast<size_t>(token.id);
    if (id >= tokens.size()) {
      tokens.resize(id + 1, "[unused]");
      types.resize(id + 1, kUnused);
    }
    tokens[id] = token.content;
    types[id] = token.special ? kControl : kUserDefined;
  }
  std::vector<std::string> merges;
  for (const auto& [left, right] : source.merges) merges.push_back(left + " " + right);
  GgufWriter writer;
  writer.String("tokenizer.ggml.model", "gpt2");
  writer.String("tokenizer.ggml.pre", pre);
  writer.StringArray("tokenizer.ggml.tokens", tokens);
  writer.I32Array("tokenizer.ggml.token_type", types);
  writer.StringArray("tokenizer.ggml.merges", merges);
  if (source.bos_id.has_value()) {
    writer.U32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(*source.bos_id));
  }
  writer.Bool("tokenizer.ggml.add_bos_token", !source.prefix_ids.empty());
  return writer.Bytes();
}

TEST_CASE("a byte-level tokenizer in GGUF metadata gives the ids of its tokenizer.json",
          "[engine][golden]") {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    testing::SkipCase("the shared goldens are not here");
    return;
  }
  struct Family {
    std::string name;
    std::string pre;
  };
  const Family family = GENERATE(Family{"llama3_1", "llama-bpe"}, Family{"qwen3", "qwen2"},
                                 Family{"smollm2", "smollm"}, Family{"deepseek_v3", "deepseek-v3"});
  CAPTURE(family.name);
  const std::filesystem::path directory = *shared / "tokenizers" / family.name;
  const auto json = ParseTokenizerJson(testing::ReadFile(directory / "tokenizer.json"),
                                       testing::ReadFile(directory / "tokenizer_config.json"));
  REQUIRE(json.ok());
  const std::string bytes = GgufOf(*json, family.pre);
  const auto file = Parse(bytes);
  REQUIRE(file.ok());
  auto source = TokenizerSourceFromGguf(*file);
  INFO(source.status().ToString());
  REQUIRE(source.ok());
  const auto tokenizer = MakeTokenizer(*std::move(source));
  REQUIRE(tokenizer.ok());
  testing::CheckEncodings(**tokenizer, directory / "golden.jsonl", /*parse_special=*/true);
}

TEST_CASE("the GGUF split of tekken is the one that tekken files carry", "[engine][golden]") {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    testing::SkipCase("the shared goldens are not here");
    return;
  }
  const auto tekken = ParseTekken(
      testing::ReadFile(*shared / "tokenizers" / "mistral_tekken" / "tekken_240718.json"));
  REQUIRE(tekken.ok());
  TinyText text;
  text.pre = "tekken";
  GgufWriter writer;
  text.AddTo(&writer);
  const std::string bytes = writer.Bytes();
  const auto source = TokenizerSourceFromGguf(*Parse(bytes));
  REQUIRE(source.ok());
  REQUIRE(source->splits.size() == 1);
  CHECK(source->splits[0].pattern == tekken->splits[0].pattern);
  CHECK(source->ignore_merges);
}

// A sentencepiece vocabulary in GGUF metadata: <unk>, <s>, </s>, the mark, "a", the mark and "a".
struct TinyPieces {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"};
  std::vector<float> scores = {0, 0, 0, -1, -2, -3};
  std::vector<int32_t> types = {2, 3, 3, 1, 1, 1};
  std::optional<bool> add_bos;
  std::optional<bool> add_space_prefix;
  bool removes_spaces = false;

  std::string Bytes() const {
    GgufWriter writer;
    writer.String("tokenizer.ggml.model", "llama");
    if (!tokens.empty()) writer.StringArray("tokenizer.ggml.tokens", tokens);
    if (!scores.empty()) writer.F32Array("tokenizer.ggml.scores", scores);
    if (!types.empty()) writer.I32Array("tokenizer.ggml.token_type", types);
    writer.U32("tokenizer.ggml.bos_token_id", 1);
    writer.U32("tokenizer.ggml.eos_token_id", 2);
    if (add_bos.has_value()) writer.Bool("tokenizer.ggml.add_bos_token", *add_bos);
    if (add_space_prefix.has_value()) {
      writer.Bool("tokenizer.ggml.add_space_prefix", *add_space_prefix);
    }
    if (removes_spaces) writer.Bool("tokenizer.ggml.remove_extra_whitespaces", true);
    return writer.Bytes();
  }
};

TEST_CASE("a sentencepiece vocabulary in GGUF metadata adds what its keys say", "[engine]") {
  const auto encode = [](const TinyPieces& pieces) {
    const std::string bytes = pieces.Bytes();
    auto source = TokenizerSourceFromGguf(*Parse(bytes));
    REQUIRE(source.ok());
    CHECK(source->eos_ids == std::vector<int32_t>{2});
    return MakeTokenizer(*std::move(source)).value()->Encode("a a", {}).value();
  };
  TinyPieces pieces;
  CHECK(encode(pieces) == std::vector<int32_t>{1, 5, 5});
  pieces.add_bos = false;
  CHECK(encode(pieces) == std::vector<int32_t>{5, 5});
  pieces.add_space_prefix = false;
  CHECK(encode(pieces) == std::vector<int32_t>{4, 5});
}

TEST_CASE("a sentencepiece vocabulary that is wrong or not understood is refused by its key",
          "[engine]") {
  const auto refusal = [](auto change) {
    TinyPieces pieces;
    change(&pieces);
    const std::string bytes = pieces.Bytes();
    return std::string(TokenizerSourceFromGguf(*Parse(bytes)).status().message());
  };
  using P = TinyPieces*;
  CHECK(refusal([](P) {}).empty());
  CHECK(refusal([](P p) { p->tokens.clear(); }) ==
        "tokenizer.ggml.tokens is not an array of strings");
  CHECK(refusal([](P p) { p->scores.clear(); }) ==
        "tokenizer.ggml.scores is not an array of numbers");
  CHECK(refusal([](P p) { p->scores.pop_back(); }) ==
        "tokenizer.ggml.scores has 5 entries for 6 tokens");
  CHECK(refusal([](P p) { p->types.clear(); }) ==
        "tokenizer.ggml.token_type is not an array of integers");
  CHECK(refusal([](P p) { p->types[3] = 7; }) == "tokenizer.ggml.token_type[3] 7 is not in [1, 6]");
  CHECK(refusal([](P p) { p->tokens[4] = "\u2581"; }) ==
        "tokenizer.ggml.tokens: piece 4 ('\\xe2\\x96\\x81') stands there twice");
  CHECK(refusal([](P p) { p->types[0] = 1; }) ==
        "tokenizer.ggml.tokens: there is no unknown piece");
  CHECK(refusal([](P p) { p->removes_spaces = true; }) ==
        "tokenizer.ggml.remove_extra_whitespaces true is not supported");
  CHECK(refusal([](P p) {
          p->types[5] = 5;
        }).rfind("tokenizer.ggml.token_type: unused tokens (5)", 0) == 0);
}

TEST_CASE("a directory's tokenizer is the first of the files that may hold it", "[engine]") {
  const TemporaryDirectory directory;
  const auto load = [&] { return LoadText(directory.path().string(), nullptr, ""); };
  CHECK(load().status().message() ==
        directory.path().string() +
            ": no tokenizer (looked for tokenizer.json, tekken.json, tokenizer.model.v3, "
            "tokenizer.model)");
  const std::string model =
      testing::ReadFile(testing::SourceTestdata() / "tokenizer" / "sentencepiece.model");
  WriteFile(directory.path() / "tokenizer.model", model);
  const auto text = load();
  REQUIRE(text.ok());
  CHECK(text->tokenizer->vocab_size() == 420);
  CHECK(text->eos_ids == std::vector<int32_t>{2});
  CHECK(text->tokenizer->Encode("a", {})->front() == 1);
  // What the configuration says counts; a token that it adds is found in trusted text.
  WriteFile(directory.path() / "tokenizer_config.json",
            R"({"add_bos_token": false, "add_eos_token": true, "eos_token": "<|turn|>",
                "added_tokens_decoder": {"420": {"content": "<|turn|>", "special": true}}})");
  const auto configured = load();
  REQUIRE(configured.ok());
  CHECK(configured->tokenizer->vocab_size() == 421);
  CHECK(configured->eos_ids == std::vector<int32_t>{420});
  CHECK(configured->tokenizer->IsSpecial(420));
  CHECK(configured->tokenizer->Encode("<|turn|>", {}).value() == std::vector<int32_t>{420, 420});
  WriteFile(directory.path() / "tokenizer_config.json",
            R"({"added_tokens_decoder": {"1": {"content": "<x>"}}})");
  CHECK(load().status().message() ==
        directory.path().string() +
            "/tokenizer.model: tokenizer_config.json.added_tokens_decoder: '<x>' has the id 1 of "
            "the piece '<s>'");
  WriteFile(directory.path() / "tokenizer_config.json",
            R"({"added_tokens_decoder": {"-1": {"content": "<x>"}}})");
  CHECK_THAT(std::string(load().status().message()), Catch::Contains("'-1' is not an id in [0, "));
  WriteFile(directory.path() / "tokenizer_config.json", "{}");
  WriteFile(directory.path() / "tokenizer.model.v3", "garbage");
  CHECK_THAT(std::string(load().status().message()),
             Catch::Contains("/tokenizer.model.v3: not a sentencepiece model: "));
  WriteFile(directory.path() / "tekken.json", "{}");
  CHECK(load().status().message() ==
        directory.path().string() + "/tekken.json: tekken.json.config is missing");
  WriteFile(directory.path() / "tokenizer.json", TinyText().TokenizerJson());
  CHECK(load().ok());
}

TEST_CASE("a real tekken.json serves a directory", "[engine][golden]") {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    testing::SkipCase("the shared goldens are not here");
    return;
  }
  const TemporaryDirectory directory;
  std::filesystem::create_symlink(
      std::filesystem::absolute(*shared / "tokenizers" / "mistral_tekken" / "tekken_240718.json"),
      directory.path() / "tekken.json");
  const auto text = LoadText(directory.path().string(), nullptr, "");
  REQUIRE(text.ok());
  CHECK(text->tokenizer->vocab_size() == 131072);
  CHECK(text->tokenizer->bos_id() == 1);
  CHECK(text->eos_ids == std::vector<int32_t>{2});
}

TEST_CASE("a chat_template.json is one more place for the template", "[engine]") {
  const TemporaryDirectory directory;
  WriteFile(directory.path() / "tokenizer.json", TinyText().TokenizerJson());
  WriteFile(directory.path() / "tokenizer_config.json", R"({"chat_template": "config"})");
  WriteFile(directory.path() / "chat_template.json", R"({"chat_template": "json"})");
  const auto rendered = [&] {
    const auto loaded = LoadText(directory.path().string(), nullptr, "");
    return loaded.ok() && loaded->chat_template.ok()
               ? loaded->chat_template->Render(ChatPrompt(), absl::UnixEpoch())->text
               : std::string(loaded.status().message());
  };
  CHECK(rendered() == "json");
  WriteFile(directory.path() / "chat_template.json",
            R"({"chat_template": [{"name": "tools", "template": "t"},
                                  {"name": "default", "template": "named"}]})");
  CHECK(rendered() == "named");
  WriteFile(directory.path() / "chat_template.json", "[");
  CHECK_THAT(rendered(), Catch::Contains("/chat_template.json: chat_template.json is not JSON"));
}

}  // namespace
}  // namespace fastgen
