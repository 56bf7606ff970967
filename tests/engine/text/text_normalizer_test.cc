#include "engine/text/text_normalizer.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace fastgen {
namespace {

using Kind = NormalizerStep::Kind;

TextNormalizer Make(std::vector<NormalizerStep> steps) {
  auto normalizer = TextNormalizer::Create(std::move(steps));
  REQUIRE(normalizer.ok());
  return *std::move(normalizer);
}

std::string Refusal(std::vector<NormalizerStep> steps) {
  return std::string(TextNormalizer::Create(std::move(steps)).status().message());
}

// The untrusted parts of the result, each in brackets.
std::string Marked(const NormalizedText& text) {
  std::string marked;
  size_t at = 0;
  for (const ByteRange& range : text.untrusted) {
    marked += text.text.substr(at, range.begin - at) + "[" +
              text.text.substr(range.begin, range.end - range.begin) + "]";
    at = range.end;
  }
  return marked + text.text.substr(at);
}

const NormalizerStep kNfc = {Kind::kNfc, "", ""};
const NormalizerStep kPrefix = {Kind::kPrepend, "", "_"};
const NormalizerStep kSpaces = {Kind::kReplace, " ", "_"};

}  // namespace

TEST_CASE("normalizers apply in order", "[text]") {
  CHECK(Make({kPrefix, kSpaces}).Apply(" a b", {}).text == "__a_b");
  CHECK(Make({kPrefix, kSpaces}).Apply("", {}).text == "");
  CHECK(Make({{Kind::kReplace, "ab", "b"}}).Apply("aabab", {}).text == "abb");
  CHECK(Make({{Kind::kReplace, "a", ""}, kPrefix}).Apply("aa", {}).text == "");
  CHECK(Make({kNfc}).Apply("e\u0301", {}).text == "\u00e9");
  CHECK(Make({}).Apply("e\u0301", {}).text == "e\u0301");
}

TEST_CASE("only texts that stay as they are may skip normalization", "[text]") {
  CHECK(Make({}).LeavesAlone("e\u0301"));
  CHECK(Make({kNfc}).LeavesAlone("abc \u4e2d"));
  CHECK_FALSE(Make({kNfc}).LeavesAlone("e\u0301"));
  CHECK_FALSE(Make({kPrefix}).LeavesAlone("a"));
}

TEST_CASE("untrusted bytes stay untrusted wherever they go", "[text]") {
  const std::vector<ByteRange> untrusted = {{0, 1}, {3, 5}};
  CHECK(Marked(Make({kPrefix, kSpaces}).Apply("ab cd", untrusted)) == "_[a]b_[cd]");
  // What replaces a part is untrusted when any byte of the part was.
  CHECK(Marked(Make({{Kind::kReplace, "b c", "xyz"}}).Apply("ab cd", untrusted)) == "[axyzd]");
  CHECK(Marked(Make({{Kind::kReplace, "b ", "xyz"}}).Apply("ab cd", untrusted)) == "[a]xyz[cd]");
  const std::vector<ByteRange> mark = {{1, 3}};
  CHECK(Marked(Make({kNfc}).Apply("e\u0301x", mark)) == "[\u00e9]x");
  const std::vector<ByteRange> other = {{3, 4}};
  CHECK(Marked(Make({kNfc}).Apply("e\u0301x", other)) == "\u00e9[x]");
}

TEST_CASE("normalizers that blow a text up are refused", "[text]") {
  CHECK(Refusal({{Kind::kReplace, "", "a"}}) == "a normalizer replaces the empty text");
  CHECK(Refusal({{Kind::kReplace, "a", std::string(1025, 'b')}}) ==
        "a normalizer's text has more than 1024 bytes");
  CHECK(Refusal({{Kind::kReplace, "a", std::string(65, 'b')}}) ==
        "the normalizers may make a text more than 64 times longer");
  const NormalizerStep doubles = {Kind::kReplace, "a", "aa"};
  CHECK(Refusal(std::vector<NormalizerStep>(6, doubles)).empty());
  CHECK(Refusal(std::vector<NormalizerStep>(7, doubles)) ==
        "the normalizers may make a text more than 64 times longer");
  CHECK(Refusal(std::vector<NormalizerStep>(17, kNfc)) == "17 normalizers, more than 16");
  const NormalizerStep half = {Kind::kPrepend, "", std::string(32, 'a')};
  CHECK(Refusal({half, half}).empty());
  CHECK(Refusal({half, half, kPrefix}) == "the normalizers put more than 64 bytes before a text");
  CHECK(Refusal({{Kind::kPrepend, "", "\xFF"}}) == "a normalizer's text is not UTF-8");
}

}  // namespace fastgen
