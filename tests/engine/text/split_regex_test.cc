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

TEST_CASE("white space is Unicode's, inside and outside classes", "[text]") {
  const std::string mark = "\u180e";  // PCRE2's own \s takes it for white space
  CHECK(Matches(R"(\s+)", "a \u2003\u180e\u0085") == Strings{" \u2003", "\u0085"});
  CHECK(Matches(R"([x\s]+)", "x " + mark + "x") == Strings{"x ", "x"});
  CHECK(Matches(R"(\S+)", "a" + mark + " b") == Strings{"a" + mark, "b"});
  CHECK(Matches(R"([\S]+)", "a" + mark + " b") == Strings{"a" + mark, "b"});
  CHECK(Matches(R"([^\s]+)", "a" + mark + " b") == Strings{"a" + mark, "b"});
  CHECK(Matches(R"([^\S]+)", "a" + mark + " b") == Strings{" "});
  CHECK(Matches("[[:space:]]+", mark + " b") == Strings{" "});
  CHECK(Matches("[[:^space:]]+", mark + " b") == Strings{mark, "b"});
  CHECK(Matches(std::string(kGpt2SplitPattern), " " + mark) == Strings{" " + mark});
  CHECK(Matches(kLlama3, " " + mark + "a") == Strings{" " + mark, "a"});
}

TEST_CASE("what only looks like white space in a pattern stays as it is", "[text]") {
  CHECK(Matches(R"(\\s)", R"(a\s b)") == Strings{R"(\s)"});
  CHECK(Matches(R"(\Q\s\E\s)", R"(\s \sx)") == Strings{R"(\s )"});
  CHECK(Matches(R"(\cS)", "S \x13") == Strings{"\x13"});
  CHECK(Matches(R"([\s-]+)", "a- b") == Strings{"- "});
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
  CHECK_THAT(std::string(SplitRegex::Compile(R"(\s\s[)").status().message()),
             Catch::Contains(R"('\s\s[', offset 5)"));
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

TEST_CASE("backtracking is bounded for a whole text, not for each match", "[text]") {
  const auto regex = SplitRegex::Compile("(?:a|aa){0,12}c|.");
  REQUIRE(regex.ok());
  const auto outcome_of = [&](size_t num_bytes) {
    const std::string text(num_bytes, 'a');
    SplitRegex::Matcher matcher(*regex);
    SplitRegex::Match match = {0, 0};
    SplitRegex::Outcome outcome = SplitRegex::Outcome::kMatch;
    while (outcome == SplitRegex::Outcome::kMatch) outcome = matcher.Find(text, match.end, &match);
    return outcome;
  };
  CHECK(outcome_of(40) == SplitRegex::Outcome::kNoMatch);
  CHECK(outcome_of(4000) == SplitRegex::Outcome::kError);
}

}  // namespace fastgen
