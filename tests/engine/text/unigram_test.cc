#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/text/piece_trie.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"
#include "tests/engine/text/random_text.h"
#include "tests/engine/text/tokenizer_files.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

// Without a pre-tokenizer, a text is one word.
const char* const kSmall = R"json({
  "added_tokens": [{"id": 1, "content": "<s>", "special": true}],
  "normalizer": null,
  "pre_tokenizer": null,
  "post_processor": null,
  "decoder": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"},
  "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [
    ["<unk>", 0.0], ["<s>", 0], ["a", -1], ["b", -2], ["ab", -2.5], ["abc", -9], ["_", -1.5]]}
})json";

std::string With(const std::string& part, const std::string& replacement) {
  const std::string json = absl::StrReplaceAll(kSmall, {{part, replacement}});
  REQUIRE(json != kSmall);
  return json;
}

std::string Refusal(const std::string& json) {
  const auto source = ParseTokenizerJson(json, "");
  REQUIRE(source.status().code() == absl::StatusCode::kInvalidArgument);
  return std::string(source.status().message());
}

std::unique_ptr<Tokenizer> Make(const std::string& json) {
  auto source = ParseTokenizerJson(json, "");
  INFO(source.status().ToString());
  REQUIRE(source.ok());
  auto tokenizer = MakeTokenizer(*std::move(source));
  INFO(tokenizer.status().ToString());
  REQUIRE(tokenizer.ok());
  return *std::move(tokenizer);
}

using Ids = std::vector<int32_t>;

Ids Encode(const Tokenizer& tokenizer, const std::string& text, bool parse_special = true) {
  const auto ids = tokenizer.Encode(text, {.parse_special = parse_special});
  REQUIRE(ids.ok());
  return *ids;
}

// The small model with these pieces, in place of its own.
std::string WithVocab(const std::string& vocab) {
  return With(R"(["<s>", 0], ["a", -1], ["b", -2], ["ab", -2.5], ["abc", -9], ["_", -1.5])",
              R"(["<s>", 0])" + vocab);
}

}  // namespace

TEST_CASE("a Unigram tokenizer agrees with its reference", "[text][golden]") {
  const auto directory = testing::SourceTestdata() / "tokenizer_unigram";
  const auto tokenizer = testing::LoadTokenizer(directory);
  CHECK(tokenizer->has_byte_fallback());
  CHECK(tokenizer->bos_id() == 1);
  const auto rows = testing::ReadGolden(directory / "golden.jsonl");
  REQUIRE(rows.size() == 106);
  for (const testing::GoldenRow& row : rows) {
    CAPTURE(row.text);
    CHECK(*tokenizer->Encode(row.text, {.add_special_tokens = false}) == row.ids);
    CHECK(*tokenizer->Encode(row.text, {}) == row.ids_special);
    CHECK(DecodeAll(*tokenizer, row.ids, /*skip_special_tokens=*/false) == row.decoded);
    CHECK(DecodeAll(*tokenizer, row.ids, /*skip_special_tokens=*/true) == row.decoded_skip);
  }
}

TEST_CASE("a word becomes the pieces whose scores have the greatest sum", "[text]") {
  const auto tokenizer = Make(kSmall);
  CHECK(Encode(*tokenizer, "ab") == Ids{4});  // -2.5 above -3
  CHECK(Encode(*tokenizer, "aab") == Ids{2, 4});
  CHECK(Encode(*tokenizer, "abc") == Ids{5});  // a character without a piece is dearer
  CHECK(Encode(*tokenizer, "") == Ids{});
  const auto rare = Make(With(R"(["abc", -9])", R"(["abc", -24])"));
  CHECK(Encode(*rare, "abc") == Ids{5});  // an unknown one costs 10 more than the rarest
}

TEST_CASE("of equal sums the one whose last piece begins first stays", "[text]") {
  const auto tokenizer = Make(WithVocab(R"(, ["a", -1], ["aa", -2], ["b", -1], ["ab", -2])"));
  CHECK(Encode(*tokenizer, "aa") == Ids{3});
  CHECK(Encode(*tokenizer, "aab") == Ids{2, 5});
}

TEST_CASE("characters without a piece are one unknown token in a row", "[text]") {
  const auto tokenizer = Make(kSmall);
  CHECK(Encode(*tokenizer, "xy\u4e2daz") == Ids{0, 2, 0});
  CHECK(Encode(*tokenizer, "x y") == Ids{0});
  // A piece that costs more than its characters is still what they are together.
  const auto joint = Make(WithVocab(R"(, ["a", -1], ["xy", -1e6], ["xyz", -1])"));
  CHECK(Encode(*joint, "xy") == Ids{3});
}

TEST_CASE("byte fallback takes the pieces of bytes where all are there", "[text]") {
  const std::string json =
      absl::StrReplaceAll(WithVocab(R"(, ["a", -1], ["<0xC3>", 0], ["<0xA9>", 0], ["<0x78>", 0])"),
                          {{"\"byte_fallback\": false", "\"byte_fallback\": true"}});
  const auto literal = Make(json);
  CHECK(Encode(*literal, "a\u00e9x") == Ids{2, 3, 4, 5});
  CHECK(Encode(*literal, "\u00e9y") == Ids{0});  // the whole run
  CHECK(DecodeAll(*literal, Ids{2, 3, 4}, true) == "a<0xC3><0xA9>");
  const auto tokenizer = Make(absl::StrReplaceAll(
      json,
      {{R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"})",
        R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]})"}}));
  CHECK(DecodeAll(*tokenizer, Ids{2, 3, 4}, true) == "a\u00e9");
}

TEST_CASE("no word of a text becomes a special token", "[text]") {
  const auto tokenizer = Make(kSmall);
  CHECK(Encode(*tokenizer, "<s>a") == Ids{1, 2});
  CHECK(Encode(*tokenizer, "<s>a", /*parse_special=*/false) == Ids{0, 2});
}

TEST_CASE("Metaspace marks words and the first token loses its marks", "[text]") {
  const auto with = [](const std::string& pre) {
    return Make(With("\"pre_tokenizer\": null", "\"pre_tokenizer\": " + pre));
  };
  const auto metaspace = [](const std::string& scheme, const std::string& split) {
    return R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": ")" + scheme +
           R"(", "split": )" + split + "}";
  };
  CHECK(Encode(*with(metaspace("always", "true")), "a<s>b") == Ids{6, 2, 1, 6, 3});
  CHECK(Encode(*with(metaspace("first", "true")), "a<s>b") == Ids{6, 2, 1, 3});
  CHECK(Encode(*with(metaspace("never", "false")), "a b") == Ids{2, 6, 3});
  const auto words =
      with(R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, )" +
           metaspace("always", "true") + "]}");
  CHECK(Encode(*words, "  a\n\tb ") == Ids{6, 2, 6, 3});
  const auto first =
      with(R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, )" +
           metaspace("first", "true") + "]}");
  CHECK(Encode(*first, "a b") == Ids{6, 2, 3});
  CHECK(Encode(*first, " a b") == Ids{2, 3});

  const auto tokenizer = Make(WithVocab(R"(, ["__a_", -1], ["_b", -1], ["c d", -1])"));
  CHECK(DecodeAll(*tokenizer, Ids{2, 2}, true) == "a  a ");
  CHECK(DecodeAll(*tokenizer, Ids{3, 3}, true) == "b b");
  CHECK(DecodeAll(*tokenizer, Ids{1, 3}, true) == "b");
  CHECK(DecodeAll(*tokenizer, Ids{1, 3}, false) == "<s> b");
  CHECK(DecodeAll(*tokenizer, Ids{4}, true) == "c d");  // its space is no mark
  CHECK(DecodeAll(*tokenizer, Ids{99, 3}, true) == "b");
  const auto never = Make(With("\"always\"", "\"never\""));
  CHECK(DecodeAll(*never, Ids{6, 2}, true) == " a");
}

TEST_CASE("Strip and a repeated character are normalized as in a converted file", "[text]") {
  const auto tokenizer = Make(With("\"normalizer\": null", R"("normalizer": {"type": "Sequence",
      "normalizers": [{"type": "Strip", "strip_left": false, "strip_right": true},
      {"type": "Replace", "pattern": {"Regex": "b{2,}"}, "content": "_"}]})"));
  CHECK(Encode(*tokenizer, "abbba \n\u3000") == Ids{2, 6, 2});
  CHECK(Encode(*tokenizer, "aba") == Ids{4, 2});
  CHECK(Refusal(With("\"normalizer\": null", R"("normalizer": {"type": "Replace",
      "pattern": {"Regex": ".{2,}"}, "content": "_"})")) ==
        "tokenizer.json.normalizer.pattern.Regex is not supported here");
  CHECK(Refusal(With("\"normalizer\": null", R"("normalizer": {"type": "NFKC"})")) ==
        "tokenizer.json.normalizer type 'NFKC' is not supported");
  CHECK(Refusal(With("\"normalizer\": null", R"("normalizer": {"type": "Precompiled"})")) ==
        "tokenizer.json.normalizer.precompiled_charsmap is missing");
  CHECK(Refusal(With("\"normalizer\": null",
                     R"("normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"})")) ==
        "tokenizer.json.normalizer.precompiled_charsmap is not base64");
  CHECK(Refusal(With("\"normalizer\": null",
                     R"("normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAQ="})")) ==
        "tokenizer.json.normalizer.precompiled_charsmap has 2 bytes");
}

TEST_CASE("a Unigram vocabulary that cannot be is refused with its place", "[text]") {
  const std::string vocab = "tokenizer.json.model.vocab";
  CHECK(Refusal(With(R"(["a", -1])", R"(["a"])")) == vocab + "[2] is not a piece and its score");
  CHECK(Refusal(With(R"(["a", -1])", R"(["a", "-1"])")) ==
        vocab + "[2] is not a piece and its score");
  CHECK(Refusal(With(R"(["a", -1])", R"(["a", null])")) ==
        vocab + "[2] is not a piece and its score");
  CHECK(Refusal(With(R"(["a", -1])", R"([7, -1])")) == vocab + "[2] is not a piece and its score");
  CHECK(Refusal(With(R"(["a", -1])", R"({"a": -1})")) ==
        vocab + "[2] is not a piece and its score");
  CHECK(Refusal(With(R"(["a", -1])", R"(["a", -1, 2])")) ==
        vocab + "[2] is not a piece and its score");
  CHECK(Refusal(With(R"(["a", -1])", R"(["a", 1e39])")) ==
        vocab + "[2]: the score 1e+39 is not a number of single precision");
  CHECK_THAT(Refusal(With(R"(["a", -1])", R"(["a", NaN])")),
             Catch::StartsWith("tokenizer.json is not JSON"));
  CHECK(Refusal(With(R"(["a", -1])", R"(["", -1])")) == vocab + "[2] is an empty piece");
  CHECK(Refusal(With(R"(["a", -1])", R"(["b", -1])")) ==
        vocab + "[3]: the piece 'b' stands there twice");
  CHECK(Refusal(With(R"(["a", -1])", "[\"" + std::string(1025, 'a') + "\", -1]")) ==
        vocab + "[2]: the piece has 1025 bytes, more than 1024");
  CHECK(Encode(*Make(With(R"(["a", -1])", "[\"" + std::string(1024, 'x') + "\", -1]")),
               std::string(1024, 'x')) == Ids{2});
  CHECK(Refusal(With("\"unk_id\": 0", "\"unk_id\": 7")) ==
        "tokenizer.json.model.unk_id 7 is outside the vocabulary of 7");
  CHECK(Refusal(With("\"unk_id\": 0", "\"unk_id\": -1")) ==
        "tokenizer.json.model.unk_id: '-1' is not an id in [0, 2097152)");
  CHECK(Refusal(With("\"unk_id\": 0, ", "")) == "tokenizer.json.model.unk_id is missing");
  CHECK(Refusal(With("\"byte_fallback\": false", "\"byte_fallback\": 0")) ==
        "tokenizer.json.model.byte_fallback is not true or false");
  CHECK(Refusal(With("\"vocab\": [", "\"vocab\": {}, \"pieces\": [")) == vocab + " is not a list");
  CHECK(Refusal(With("\"vocab\": [", "\"pieces\": [")) == vocab + " is missing");
  CHECK(Refusal(With("\"id\": 1,", "\"id\": 2,")) ==
        "tokenizer.json.added_tokens[0]: '<s>' has the id 2 of the piece 'a'");
  std::string many = "0";
  for (int i = 0; i < (1 << 21); ++i) many += ",0";
  CHECK(Refusal(With(R"(["<unk>", 0.0])", many)) ==
        vocab + " has 2097159 pieces, more than 2097152");
}

TEST_CASE("components that do not fit a Unigram model are refused by name", "[text]") {
  const std::string decoder =
      R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"})";
  CHECK(Refusal(With(decoder, "null")) == "tokenizer.json.decoder is missing");
  CHECK(Refusal(With(decoder, R"({"type": "ByteLevel"})")) ==
        "tokenizer.json.decoder: ByteLevel with byte_fallback is not supported");
  CHECK(Refusal(With(decoder, R"({"type": "CTC"})")) ==
        "tokenizer.json.decoder type 'CTC' is not supported");
  CHECK(Refusal(With(decoder, R"({"type": "Metaspace", "replacement": "__"})")) ==
        "tokenizer.json.decoder.replacement is not one character");
  CHECK(Refusal(With(decoder,
                     R"({"type": "Sequence", "decoders": [)" + decoder + "," + decoder + "]}")) ==
        "tokenizer.json.decoder.decoders[1]: a second Metaspace is not supported");
  CHECK(
      Refusal(With(decoder,
                   R"({"type": "Sequence", "decoders": [{"type": "Fuse"},)" + decoder + "]}")) ==
      "tokenizer.json.decoder.decoders[1]: Metaspace after ByteFallback or Fuse is not supported");
  CHECK(Refusal(With("\"pre_tokenizer\": null", "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}")) ==
        "tokenizer.json.pre_tokenizer type 'ByteLevel' is not supported");
}

TEST_CASE("a word of a megabyte is cut as its parts are", "[text]") {
  const auto tokenizer = Make(WithVocab(R"(, ["a", -3], ["aaaa", -4], ["b", -1])"));
  const Ids ids = Encode(*tokenizer, std::string(1 << 20, 'a') + "b");
  REQUIRE(ids.size() == (1 << 18) + 1);
  CHECK(ids.front() == 3);
  CHECK(ids.back() == 4);
  CHECK(Encode(*tokenizer, std::string(1 << 20, 'x')) == Ids{0});
}

TEST_CASE("a trie finds what a search through the pieces finds", "[text][property]") {
  testing::RandomText random(5);
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) {
    std::string text(1 + random.Below(6), '\0');
    for (char& c : text) c = "ab\xC3\xFF"[random.Below(4)];
    if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(text);
  }
  std::vector<std::pair<std::string_view, int32_t>> pieces;
  for (size_t i = 0; i < texts.size(); ++i) pieces.emplace_back(texts[i], static_cast<int32_t>(i));
  const PieceTrie trie(pieces);
  for (int i = 0; i < 500; ++i) {
    std::string text(random.Below(8), '\0');
    for (char& c : text) c = "ab\xC3\xFF"[random.Below(4)];
    std::vector<int32_t> expected;
    for (size_t size = 1; size <= text.size(); ++size) {
      const auto found = std::find(texts.begin(), texts.end(), text.substr(0, size));
      if (found != texts.end()) expected.push_back(static_cast<int32_t>(found - texts.begin()));
    }
    std::vector<int32_t> ids;
    trie.ForEachPrefix(text, [&](size_t size, int32_t id) {
      ids.push_back(texts[static_cast<size_t>(id)].size() == size ? id : -1);
    });
    CAPTURE(text);
    CHECK(ids == expected);
  }
  CHECK(trie.Find("") == -1);
  CHECK(PieceTrie({}).Find("a") == -1);
}

}  // namespace fastgen
