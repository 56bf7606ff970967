#include "engine/text/split_regex.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "engine/text/bpe_tokenizer.h"

namespace fastgen {
namespace {

// The patterns of Llama 3 and DeepSeek V3.
const std::string kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kDeepSeek =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<std::string> Matches(const std::string& pattern, const std::string& text) {
  const auto regex = SplitRegex::Compile(pattern);
  REQUIRE(regex.ok());
  SplitRegex::Matcher matcher(*regex);
  std::vector<std::string> found;
  SplitRegex::Match match = {0, 0};
  SplitRegex::Outcome outcome = SplitRegex::Outcome::kMatch;
  while ((outcome = matcher.Find(text, match.end, &match)) == SplitRegex::Outcome::kMatch) {
    found.push_back(text.substr(match.begin, match.end - match.begin));
  }
  REQUIRE(outcome == SplitRegex::Outcome::kNoMatch);
  return found;
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("patterns are Unicode patterns", "[text]") {
  CHECK(Matches(kLlama3, "It'S  \u00e9t\u00e9 1234") ==
        Strings{"It", "'S", " ", " \u00e9t\u00e9", " ", "123", "4"});
  CHECK(Matches(std::string(kGpt2SplitPattern), "a's \u6f22\u5b57 \u0664\u0665!") ==
        Strings{"a", "'s", " \u6f22\u5b57", " \u0664\u0665", "!"});
  CHECK(Matches(R"(\s+)", "a\u00a0\u3000b\u0085c") == Strings{"\u00a0\u3000", "\u0085"});
}

TEST_CASE("an empty match splits nothing and ends nothing", "[text]") {
  CHECK(Matches("b*", "aab\u00e9bba") == Strings{"b", "bb"});
  CHECK(Matches("", "abc").empty());
  CHECK(Matches(R"((?=b))", "abc").empty());
  CHECK(Matches(R"(a\Kb?)", "aaab") == Strings{"b"});
}

TEST_CASE("a megabyte of one character is one match", "[text]") {
  for (const std::string& pattern : {kLlama3, kDeepSeek, std::string(kGpt2SplitPattern)}) {
    CHECK(Matches(pattern, std::string(1'000'000, 'a')).size() == 1);
    CHECK(Matches(pattern, std::string(1'000'000, ' ')).size() == 1);
    CHECK(Matches(pattern, std::string(1'000'000, ' ') + "a").size() == 2);
    CHECK(Matches(pattern, std::string(1'000'000, '\n')).size() == 1);
    CHECK(Matches(pattern, std::string(1'000'000, '!')).size() == 1);
    std::string letters;
    for (int i = 0; i < 300'000; ++i) letters += "\u6f22";
    CHECK(Matches(pattern, letters).size() == 1);
  }
}

TEST_CASE("a pattern that is not one is refused with its place", "[text]") {
  const auto regex = SplitRegex::Compile("a(b");
  REQUIRE(regex.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(regex.status().message()),
             Catch::Contains("'a(b'") && Catch::Contains("offset 3"));
  CHECK_FALSE(SplitRegex::Compile(R"(\C)").ok());
  CHECK_FALSE(SplitRegex::Compile("\xC3").ok());
  CHECK_FALSE(SplitRegex::Compile(std::string(100'000, 'a')).ok());
}

TEST_CASE("a pattern that backtracks without end fails and does not hang", "[text]") {
  const auto regex = SplitRegex::Compile("(a|aa|a?)+$");
  REQUIRE(regex.ok());
  SplitRegex::Matcher matcher(*regex);
  SplitRegex::Match match;
  const std::string text = std::string(200, 'a') + "b";
  REQUIRE(matcher.Find(text, 0, &match) == SplitRegex::Outcome::kError);
  CHECK(matcher.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(matcher.status().message()), Catch::Contains("201 bytes"));
}

}  // namespace fastgen
