// Real tokenizers against their reference results. The one in a GGUF file: load_text_test.cc.
#include <catch2/catch.hpp>
#include <memory>
#include <string>

#include "engine/text/tokenizer.h"
#include "tests/engine/text/golden_checks.h"
#include "tests/engine/text/tokenizer_files.h"
#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

std::optional<std::filesystem::path> SharedTokenizers() {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    testing::SkipCase("the shared goldens are not here");
    return std::nullopt;
  }
  return *shared / "tokenizers";
}

}  // namespace

TEST_CASE("real tokenizer.json files agree with their references", "[text][golden]") {
  const auto tokenizers = SharedTokenizers();
  if (!tokenizers.has_value()) return;
  const std::string name = GENERATE("llama3_1", "smollm2", "qwen3", "deepseek_v3", "mistral_v1");
  CAPTURE(name);
  const std::filesystem::path directory = *tokenizers / name;
  const std::unique_ptr<Tokenizer> tokenizer = testing::LoadTokenizer(directory);
  testing::CheckEncodings(*tokenizer, directory / "golden.jsonl", /*parse_special=*/true);
  testing::CheckStreams(*tokenizer, directory / "stream.jsonl",
                        tokenizer->has_byte_fallback() ? testing::StreamPieces::kNoLater
                                                       : testing::StreamPieces::kEqual);
}

TEST_CASE("a Mongolian vowel separator is no white space for a real tokenizer", "[text][golden]") {
  const auto tokenizers = SharedTokenizers();
  if (!tokenizers.has_value()) return;
  const auto ids = testing::LoadTokenizer(*tokenizers / "smollm2")->Encode(" \u180e", {});
  REQUIRE(ids.ok());
  CHECK(*ids == std::vector<int32_t>{15822, 250, 232});
}

TEST_CASE("a real tekken file agrees with its reference", "[text][golden]") {
  const auto tokenizers = SharedTokenizers();
  if (!tokenizers.has_value()) return;
  const std::filesystem::path directory = *tokenizers / "mistral_tekken";
  const auto tokenizer = testing::LoadTekken(directory / "tekken_240718.json");
  testing::CheckEncodings(*tokenizer, directory / "golden.jsonl", /*parse_special=*/false);
  testing::CheckStreams(*tokenizer, directory / "stream.jsonl");
}

TEST_CASE("a real sentencepiece model agrees with its reference, in our BPE and in the library",
          "[text][golden]") {
  const auto tokenizers = SharedTokenizers();
  if (!tokenizers.has_value()) return;
  const std::filesystem::path directory = *tokenizers / "mistral_v3";
  const bool in_library = GENERATE(false, true);
  CAPTURE(in_library);
  const auto tokenizer = testing::LoadSentencePiece(
      directory / "mistral_instruct_tokenizer_240323.model.v3",
      in_library ? testing::SentencePieceBy::kLibrary : testing::SentencePieceBy::kChoice);
  testing::CheckEncodings(*tokenizer, directory / "golden.jsonl", /*parse_special=*/false);
  testing::CheckStreams(*tokenizer, directory / "stream.jsonl");
}

}  // namespace fastgen
