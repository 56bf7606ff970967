#include "engine/text/sentencepiece_tokenizer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/engine/text/tokenizer_files.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

using Ids = std::vector<int32_t>;

std::unique_ptr<Tokenizer> LoadSmall(testing::SentencePieceBy by) {
  return testing::LoadSentencePiece(testing::SourceTestdata() / "tokenizer" / "sentencepiece.model",
                                    by);
}
std::unique_ptr<Tokenizer> LoadSmall() { return LoadSmall(testing::SentencePieceBy::kLibrary); }

Ids Encode(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options) {
  const auto ids = tokenizer.Encode(text, options);
  REQUIRE(ids.ok());
  return *ids;
}

}  // namespace

TEST_CASE("a small sentencepiece model agrees with its reference", "[text][golden]") {
  const auto tokenizer =
      LoadSmall(GENERATE(testing::SentencePieceBy::kChoice, testing::SentencePieceBy::kLibrary));
  CHECK(tokenizer->vocab_size() == 420);
  CHECK(tokenizer->has_byte_fallback());
  CHECK(tokenizer->bos_id() == 1);
  const auto rows =
      testing::ReadGolden(testing::SourceTestdata() / "tokenizer" / "sentencepiece.golden.jsonl");
  REQUIRE(rows.size() == 42);
  for (const testing::GoldenRow& row : rows) {
    CAPTURE(row.text);
    CHECK(Encode(*tokenizer, row.text, {.add_special_tokens = false, .parse_special = false}) ==
          row.ids);
    CHECK(Encode(*tokenizer, row.text, {.parse_special = false}) == row.ids_special);
    CHECK(DecodeAll(*tokenizer, row.ids, true) == row.decoded);
  }
}

TEST_CASE("control pieces are parsed in trusted text only", "[text]") {
  const auto tokenizer =
      LoadSmall(GENERATE(testing::SentencePieceBy::kChoice, testing::SentencePieceBy::kLibrary));
  const std::string text = "[INST]the[/INST]";
  const Ids ids = Encode(*tokenizer, text, {});
  CHECK(ids.front() == 1);
  CHECK(ids[1] == 3);
  CHECK(ids.back() == 4);
  CHECK(tokenizer->IsSpecial(3));
  CHECK(DecodeAll(*tokenizer, ids, false) == "<s>[INST] the[/INST]");
  CHECK(DecodeAll(*tokenizer, ids, true) == "the");
  const ByteRange typed = {6, text.size()};
  const Ids guarded = Encode(*tokenizer, text, {.untrusted = {&typed, 1}});
  CHECK(guarded[1] == 3);
  CHECK(std::find(guarded.begin(), guarded.end(), 4) == guarded.end());
}

TEST_CASE("what is not a sentencepiece model is refused", "[text]") {
  TokenizerSource source;
  source.model = TokenizerSource::Model::kSentencePiece;
  CHECK(MakeTokenizer(source).status().message() == "the sentencepiece model is empty");
  const std::string model =
      testing::ReadFile(testing::SourceTestdata() / "tokenizer" / "sentencepiece.model");
  for (const std::string& bytes :
       {std::string("garbage"), model.substr(0, model.size() / 2), model.substr(0, 10)}) {
    source.sentencepiece_model = bytes;
    const auto tokenizer = MakeTokenizer(source);
    if (tokenizer.ok()) continue;  // a prefix may be a smaller model: then it must still work
    CHECK(tokenizer.status().code() == absl::StatusCode::kInvalidArgument);
  }
  source.sentencepiece_model = "garbage";
  CHECK_THAT(std::string(MakeTokenizer(source).status().message()),
             Catch::Contains("not a sentencepiece model"));
}

TEST_CASE("sentencepiece refuses text that is not UTF-8", "[text]") {
  CHECK(LoadSmall()->Encode("\xFF", {}).status().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace fastgen
