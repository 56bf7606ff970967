#include "tests/engine/text/golden_checks.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "base/unicode.h"
#include "engine/text/detokenizer.h"
#include "tests/engine/text/tokenizer_files.h"

namespace fastgen::testing {

void CheckEncodings(const Tokenizer& tokenizer, const std::filesystem::path& golden,
                    bool parse_special) {
  const auto rows = ReadGolden(golden);
  REQUIRE(rows.size() == 295);
  for (const GoldenRow& row : rows) {
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

void CheckStreams(const Tokenizer& tokenizer, const std::filesystem::path& stream,
                  StreamPieces expected) {
  const auto rows = ReadStream(stream);
  REQUIRE(rows.size() == 60);
  for (const StreamRow& row : rows) {
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
    if (expected == StreamPieces::kEqual) {
      CHECK(pieces == row.pieces);
      continue;
    }
    REQUIRE(pieces.size() == row.pieces.size());
    size_t num_given = 0;
    size_t num_expected = 0;
    bool is_late = false;
    for (size_t i = 0; i < pieces.size(); ++i) {
      num_given += pieces[i].size();
      num_expected += row.pieces[i].size();
      is_late = is_late || num_given < num_expected;
    }
    CHECK_FALSE(is_late);
  }
}

}  // namespace fastgen::testing
