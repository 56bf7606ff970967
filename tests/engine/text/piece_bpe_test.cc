// BPE over characters with byte fallback, and what stands around it: marks for spaces, splits whose
// matches join their neighbours.
#include <catch2/catch.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "engine/text/bpe_tokenizer.h"
#include "engine/text/tokenizer.h"

namespace fastgen {
namespace {

using Ids = std::vector<int32_t>;

// <unk> 0, <s> 1, 256 bytes from 2 on, then the pieces.
constexpr int32_t kFirstByte = 2;
constexpr int32_t kFirstPiece = 258;

TokenizerSource Source(const std::vector<std::string>& pieces) {
  TokenizerSource source;
  source.model = TokenizerSource::Model::kPieceBpe;
  source.pieces = {"<unk>", "<s>"};
  source.byte_fallback = {0, 0};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    source.pieces.push_back(name);
    source.byte_fallback.push_back(1);
  }
  source.pieces.insert(source.pieces.end(), pieces.begin(), pieces.end());
  source.byte_fallback.resize(source.pieces.size());
  source.added_tokens = {{.content = "<s>", .id = 1, .special = true}};
  source.decoder_replacements = {{"\u2581", " "}};
  source.unknown_id = 0;
  source.merge_order = TokenizerSource::MergeOrder::kByScore;
  source.scores.assign(source.pieces.size(), 0);
  return source;
}

std::unique_ptr<Tokenizer> Make(const TokenizerSource& source) {
  auto tokenizer = MakeTokenizer(source);
  INFO(tokenizer.status().ToString());
  REQUIRE(tokenizer.ok());
  return *std::move(tokenizer);
}

Ids Encode(const TokenizerSource& source, const std::string& text) {
  const auto ids = Make(source)->Encode(text, {.add_special_tokens = false});
  REQUIRE(ids.ok());
  return *ids;
}

std::string Refusal(const TokenizerSource& source) {
  return std::string(MakeTokenizer(source).status().message());
}

// What each id of `text` stands for, with bars between.
std::string Words(const TokenizerSource& source, const std::string& text) {
  const auto tokenizer = Make(source);
  const auto ids = tokenizer->Encode(text, {.add_special_tokens = false});
  REQUIRE(ids.ok());
  std::string words;
  for (const int32_t id : *ids) {
    words += (words.empty() ? "" : "|") + std::string(tokenizer->TokenBytes(id));
  }
  return words;
}

}  // namespace

TEST_CASE("characters merge by score, the leftmost first among equals", "[text]") {
  TokenizerSource source = Source({"a", "b", "c", "ab", "bc", "abc"});
  const int32_t ab = kFirstPiece + 3;
  CHECK(Encode(source, "abc") == Ids{ab + 2});
  CHECK(Encode(source, "bcab") == Ids{ab + 1, ab});
  source.pieces.back() = "zzz";
  CHECK(Encode(source, "abc") == Ids{ab, kFirstPiece + 2});
  source.scores[static_cast<size_t>(ab) + 1] = 1;
  CHECK(Encode(source, "abc") == Ids{kFirstPiece, ab + 1});
}

TEST_CASE("a character without a piece becomes its bytes, unless a merge takes it in", "[text]") {
  TokenizerSource source = Source({"a", "ax"});
  CHECK(Encode(source, "ab") == Ids{kFirstPiece, kFirstByte + 'b'});
  CHECK(Encode(source, "\u20ac") == Ids{kFirstByte + 0xE2, kFirstByte + 0x82, kFirstByte + 0xAC});
  CHECK(Encode(source, "xax") == Ids{kFirstByte + 'x', kFirstPiece + 1});
  CHECK(Make(source)->has_byte_fallback());
  // A typed "<0x41>" is six characters.
  CHECK(Encode(source, "<0x41>").size() == 6);
}

TEST_CASE("without bytes, unknown characters in a row may be one token", "[text]") {
  TokenizerSource source = Source({"a"});
  source.byte_fallback.assign(source.pieces.size(), 0);
  CHECK(Encode(source, "xyaz") == Ids{0, 0, kFirstPiece, 0});
  source.fuse_unknown = true;
  CHECK(Encode(source, "xyaz") == Ids{0, kFirstPiece, 0});
  CHECK_FALSE(Make(source)->has_byte_fallback());
  source.unknown_id.reset();
  CHECK(Encode(source, "xyaz") == Ids{kFirstPiece});
}

TEST_CASE("a mark is put before each text between special tokens", "[text]") {
  TokenizerSource source = Source({"\u2581", "a", "\u2581a"});
  source.normalizer = {{NormalizerStep::Kind::kPrepend, "", "\u2581"},
                       {NormalizerStep::Kind::kReplace, " ", "\u2581"}};
  source.drop_first_space = true;
  CHECK(Words(source, "a a") == " a| a");
  CHECK(Words(source, " a") == " | a");
  CHECK(Words(source, "a<s>a") == " a|<s>| a");
  const auto tokenizer = Make(source);
  CHECK(DecodeAll(*tokenizer, *tokenizer->Encode("a  a", {}), true) == "a  a");
}

TEST_CASE("a metaspace is put where the scheme says", "[text]") {
  TokenizerSource source = Source({"\u2581", "a", "\u2581a", "a\u2581"});
  source.scores[kFirstPiece + 3] = 1;
  source.metaspace = Metaspace();
  CHECK(Words(source, "a") == " a");
  CHECK(Words(source, " a") == " a");  // it is there already
  CHECK(Words(source, "a<s>a") == " a|<s>| a");
  source.metaspace->prepend = Metaspace::Prepend::kFirst;
  CHECK(Words(source, "a<s>a") == " a|<s>|a");
  CHECK(Words(source, "<s>a") == "<s>|a");
  source.metaspace->prepend = Metaspace::Prepend::kNever;
  CHECK(Words(source, "a") == "a");
  CHECK(Words(source, "a a") == "a |a");
  source.splits = {{"\u2581", SplitStep::Behavior::kMergedWithNext}};
  CHECK(Words(source, "a a") == "a| a");
}

TEST_CASE("splits do with their matches as they are told", "[text]") {
  using Behavior = SplitStep::Behavior;
  TokenizerSource source = Source({"a", "b", "-", "a-", "-b", "--", "--b", "a--", "ab"});
  source.scores[kFirstPiece + 5] = 1;  // "--" first
  const auto words = [&](Behavior behavior, bool invert, const std::string& text) {
    source.splits = {{"-", behavior, invert}};
    return Words(source, text);
  };
  CHECK(words(Behavior::kIsolated, false, "a--b") == "a|-|-|b");
  CHECK(words(Behavior::kIsolated, true, "a--b") == "a|-|-|b");
  CHECK(words(Behavior::kRemoved, false, "a--b") == "a|b");
  CHECK(words(Behavior::kRemoved, true, "a--b") == "-|-");
  CHECK(words(Behavior::kMergedWithPrevious, false, "a--b") == "a-|-|b");
  CHECK(words(Behavior::kMergedWithNext, false, "a--b") == "a|-|-b");
  CHECK(words(Behavior::kContiguous, false, "a--b") == "a|--|b");
  CHECK(words(Behavior::kMergedWithPrevious, false, "-a") == "-|a");
  CHECK(words(Behavior::kMergedWithNext, false, "a-") == "a|-");
  CHECK(words(Behavior::kMergedWithPrevious, true, "a-b") == "a|-b");
}

TEST_CASE("an unknown id may decode to a text of its own", "[text]") {
  TokenizerSource source = Source({"a"});
  CHECK(Make(source)->TokenBytes(0) == "<unk>");
  source.unknown_text = " \u2047 ";
  CHECK(Make(source)->TokenBytes(0) == " \u2047 ");
}

TEST_CASE("pieces that do not hold together are refused by name", "[text]") {
  TokenizerSource source = Source({"a", "\xFF"});
  CHECK(Refusal(source) == "piece 259 ('\\xff') is not UTF-8");
  source = Source({"a"});
  source.pieces[kFirstByte + 7] = "q";
  source.byte_fallback[kFirstByte + 7] = 0;
  CHECK(Refusal(source) == "the vocabulary has byte pieces, but none for byte 7");
  source = Source({"a"});
  source.byte_fallback.back() = 1;
  CHECK(Refusal(source) == "byte piece 258 ('a') is not <0xXX>");
  source = Source({"a"});
  source.scores.pop_back();
  CHECK(Refusal(source) == "there are 258 scores for 259 pieces");
  source = Source({"a"});
  source.scores[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK(Refusal(source) == "the score of piece 3 is not a number");
  source = Source({"a", "<0x01>a"});
  source.merge_order = TokenizerSource::MergeOrder::kListed;
  source.merges = {{"<0x01>", "a"}};
  CHECK(Refusal(source) == "merge 0: the byte piece '<0x01>' in a merge is not supported");
}

}  // namespace fastgen
