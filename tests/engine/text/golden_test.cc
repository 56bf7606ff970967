// Real tokenizers against their reference results.
#include <catch2/catch.hpp>
#include <string>

#include "base/unicode.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/text/tokenizer_files.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

void CheckEncodings(const Tokenizer& tokenizer, const std::filesystem::path& golden,
                    bool parse_special) {
  const auto rows = testing::ReadGolden(golden);
  REQUIRE(rows.size() == 295);
  for (const testing::GoldenRow& row : rows) {
    CAPTURE(row.text);
    EncodeOptions options;
    options.parse_special = parse_special;
    options.add_special_tokens = false;
    const auto ids = tokenizer.Encode(row.text, options);
    REQUIRE(ids.ok());
    CHECK(*ids == row.ids);
    options.add_special_tokens = true;
    const auto ids_special = tokenizer.Encode(row.text, options);
    REQUIRE(ids_special.ok());
    CHECK(*ids_special == row.ids_special);
    CHECK(DecodeAll(tokenizer, row.ids, /*skip_special_tokens=*/false) == row.decoded);
    CHECK(DecodeAll(tokenizer, row.ids, /*skip_special_tokens=*/true) == row.decoded_skip);
  }
}

void CheckStreams(const Tokenizer& tokenizer, const std::filesystem::path& stream) {
  const auto rows = testing::ReadStream(stream);
  REQUIRE(rows.size() == 60);
  for (const testing::StreamRow& row : rows) {
    CAPTURE(row.decoded);
    DetokenizerOptions options;
    options.skip_special_tokens = row.skip_special_tokens;
    Detokenizer detokenizer(&tokenizer, options);
    std::vector<std::string> pieces;
    for (const int32_t id : row.ids) pieces.push_back(detokenizer.Push(id));
    pieces.push_back(detokenizer.Flush());
    std::string text;
    bool every_piece_is_utf8 = true;
    for (const std::string& piece : pieces) {
      every_piece_is_utf8 = every_piece_is_utf8 && IsValidUtf8(piece);
      text += piece;
    }
    CHECK(text == row.decoded);
    CHECK(every_piece_is_utf8);
    CHECK(pieces == row.pieces);
  }
}

}  // namespace

TEST_CASE("real byte-level tokenizers agree with their references", "[text][golden]") {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    WARN("no shared goldens: real tokenizers skipped");
    return;
  }
  const std::string name = GENERATE("llama3_1", "smollm2", "qwen3", "deepseek_v3");
  CAPTURE(name);
  const std::filesystem::path directory = *shared / "tokenizers" / name;
  const std::unique_ptr<Tokenizer> tokenizer = testing::LoadTokenizer(directory);
  CheckEncodings(*tokenizer, directory / "golden.jsonl", /*parse_special=*/true);
  CheckStreams(*tokenizer, directory / "stream.jsonl");
}

TEST_CASE("a real sentencepiece model agrees with its reference", "[text][golden]") {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    WARN("no shared goldens: the sentencepiece model skipped");
    return;
  }
  const std::filesystem::path directory = *shared / "tokenizers" / "mistral_v3";
  TokenizerSource source;
  source.model = TokenizerSource::Model::kSentencePieceBpe;
  source.sentencepiece_model =
      testing::ReadFile(directory / "mistral_instruct_tokenizer_240323.model.v3");
  auto tokenizer = MakeTokenizer(std::move(source));
  REQUIRE(tokenizer.ok());
  CheckEncodings(**tokenizer, directory / "golden.jsonl", /*parse_special=*/false);
  CheckStreams(**tokenizer, directory / "stream.jsonl");
}

}  // namespace fastgen
