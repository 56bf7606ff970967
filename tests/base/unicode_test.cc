#include "base/unicode.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace fastgen {
namespace {

const std::string kReplacement = "\xEF\xBF\xBD";

std::string Utf8(char32_t code_point) {
  std::string text;
  AppendUtf8(code_point, &text);
  return text;
}

// `bytes` given to a repairer in pieces of `piece_size`.
std::string Repair(const std::string& bytes, Utf8Repair repair, size_t piece_size) {
  Utf8Repairer repairer(repair);
  std::string out;
  for (size_t pos = 0; pos < bytes.size(); pos += piece_size) {
    repairer.Push(std::string_view(bytes).substr(pos, piece_size), &out);
    CHECK(IsValidUtf8(out));
  }
  repairer.Finish(&out);
  return out;
}

}  // namespace

TEST_CASE("every scalar value survives being written and read", "[base]") {
  size_t num_wrong = 0;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    const std::string text = Utf8(c);
    const Utf8Char read = DecodeUtf8(text, 0);
    if (!IsValidUtf8(text) || read.code_point != c || read.num_bytes != text.size()) ++num_wrong;
  }
  CHECK(num_wrong == 0);
}

TEST_CASE("what is not UTF-8 is told from what is", "[base]") {
  CHECK(IsValidUtf8(""));
  CHECK(IsValidUtf8("plain ASCII, longer than eight bytes"));
  CHECK(IsValidUtf8(std::string("a\0b", 3)));
  const std::vector<std::string> wrong = {
      "\x80",              // a continuation by itself
      "\xC0\x80",          // overlong
      "\xC1\xBF",          // overlong
      "\xE0\x9F\xBF",      // overlong
      "\xF0\x8F\xBF\xBF",  // overlong
      "\xED\xA0\x80",      // a surrogate
      "\xF4\x90\x80\x80",  // beyond U+10FFFF
      "\xF5\x80\x80\x80",
      "\xFF",
      "\xE2\x82",
      "\xF0\x9F\x98",
      "\xC3",
      "\xC3(",
      "\xE2\x28\xA1",
  };
  for (const std::string& text : wrong) {
    CAPTURE(text);
    CHECK_FALSE(IsValidUtf8(text));
    CHECK_FALSE(IsValidUtf8("12345678" + text));
    CHECK_FALSE(IsValidUtf8(text + "12345678"));
  }
}

TEST_CASE("an unfinished or wrong sequence becomes one U+FFFD, or one for each byte", "[base]") {
  struct Case {
    std::string bytes;
    size_t num_sequences;
    size_t num_bytes;
  };
  const std::vector<Case> cases = {
      {"\x80", 1, 1},
      {"\xC0\x80", 2, 2},
      {"\xE2\x82", 1, 2},
      {"\xF0\x9F\x98", 1, 3},
      {"\xF0\x80\x80", 3, 3},
      {"\xED\xA0\x80", 3, 3},
      {"\xE2\x82\xE2\x82", 2, 4},
      {"\xF4\x90", 2, 2},
      {"\xFF\xFE", 2, 2},
  };
  for (const Case& c : cases) {
    CAPTURE(c.bytes);
    for (const size_t piece_size : {1, 2, 3, 100}) {
      std::string expected = "a";
      for (size_t i = 0; i < c.num_sequences; ++i) expected += kReplacement;
      CHECK(Repair("a" + c.bytes + "b", Utf8Repair::kPerSubsequence, piece_size) == expected + "b");
      CHECK(Repair("a" + c.bytes, Utf8Repair::kPerSubsequence, piece_size) == expected);
      expected = "a";
      for (size_t i = 0; i < c.num_bytes; ++i) expected += kReplacement;
      CHECK(Repair("a" + c.bytes + "b", Utf8Repair::kPerByte, piece_size) == expected + "b");
    }
  }
}

TEST_CASE("valid text passes the repairer unchanged at every cut", "[base]") {
  const std::string text = "a\u00e9\u20ac\U0001F600 z\uFFFD";
  for (size_t piece_size = 1; piece_size <= text.size(); ++piece_size) {
    CHECK(Repair(text, Utf8Repair::kPerSubsequence, piece_size) == text);
    CHECK(Repair(text, Utf8Repair::kPerByte, piece_size) == text);
  }
}

TEST_CASE("NFC composes, reorders and leaves exclusions apart", "[base]") {
  CHECK(NormalizeNfc("") == "");
  CHECK(NormalizeNfc("e\u0301") == "\u00e9");
  CHECK(NormalizeNfc("\u212b") == "\u00c5");
  CHECK(NormalizeNfc("q\u0307\u0323") == "q\u0323\u0307");
  CHECK(NormalizeNfc("\u1100\u1161\u11a8") == "\uac01");
  CHECK(NormalizeNfc("\u304b\u3099") == "\u304c");
  CHECK(NormalizeNfc("\u0958") == "\u0915\u093c");
  CHECK(NormalizeNfc("\ufb01") == "\ufb01");
  CHECK(NormalizeNfc("\u037e") == ";");
}

TEST_CASE("a text may be cut in front of a stable character", "[base]") {
  // Whatever stands before it: a stable character stays, and what precedes it is as it would be
  // alone.
  const std::vector<std::string> before = {"e",      "\u0301", "q\u0323", "\u1100",
                                           "\uac00", "\u304b", "\u09c7",  "\u0b47"};
  size_t num_wrong = 0;
  for (char32_t c = 0; c <= 0x1FFFF; ++c) {
    if ((c >= 0xD800 && c <= 0xDFFF) || !IsNfcStable(c)) continue;
    for (const std::string& prefix : before) {
      const std::string text = prefix + Utf8(c);
      if (NormalizeNfc(text) != NormalizeNfc(prefix) + Utf8(c)) ++num_wrong;
    }
  }
  CHECK(num_wrong == 0);
  CHECK_FALSE(IsNfcStable(0x301));
  CHECK_FALSE(IsNfcStable(0x11A8));
  CHECK_FALSE(IsNfcStable(0x3099));
}

TEST_CASE("a megabyte of marks in the worst order is normalised at once", "[base]") {
  std::string marks = "a";
  std::string sorted = "a";
  constexpr int kNumPairs = 200'000;
  for (int i = 0; i < kNumPairs; ++i) marks += "\u0315\u0316";  // classes 232 and 220
  for (int i = 0; i < kNumPairs; ++i) sorted += "\u0316";
  for (int i = 0; i < kNumPairs; ++i) sorted += "\u0315";
  CHECK((NormalizeNfc(marks) == sorted));
}

TEST_CASE("spaces and word characters are told apart as regexes do", "[base]") {
  for (const char32_t c : {U' ', U'\t', U'\n', U'\u0085', U'\u00a0', U'\u2028', U'\u3000'})
    CHECK(IsWhitespace(c));
  for (const char32_t c : {U'a', U'_', U'\u200b', U'\u00e9'}) CHECK_FALSE(IsWhitespace(c));
  for (const char32_t c : {U'a', U'_', U'7', U'\u00e9', U'\u0301', U'\u6f22'})
    CHECK(IsWordCharacter(c));
  for (const char32_t c : {U' ', U'-', U'<', U'\u00bd', U'\U0001F600'})
    CHECK_FALSE(IsWordCharacter(c));
}

}  // namespace fastgen
