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

const std::string kQwen =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr size_t kMebibyte = 1 << 20;

enum class Way { kAsItGoes, kAllCounted };

struct Found {
  std::vector<std::string> matches;
  SplitRegex::Outcome outcome = SplitRegex::Outcome::kMatch;
  absl::Status status;
  uint64_t num_steps = 0;
  uint64_t max_steps = 0;
};

Found FindAll(const std::string& pattern, const std::string& text, Way way = Way::kAsItGoes) {
  const auto regex = SplitRegex::Compile(pattern);
  INFO(pattern);
  REQUIRE(regex.ok());
  SplitBudget budget;
  budget.AddText(text.size());
  if (way == Way::kAllCounted) budget.CountAll();
  SplitRegex::Matcher matcher(*regex, &budget);
  Found found;
  SplitRegex::Match match = {0, 0};
  while ((found.outcome = matcher.Find(text, match.end, &match)) == SplitRegex::Outcome::kMatch) {
    found.matches.push_back(text.substr(match.begin, match.end - match.begin));
  }
  found.status = matcher.status();
  found.num_steps = budget.num_steps();
  found.max_steps = budget.max_steps();
  return found;
}

std::vector<std::string> Matches(const std::string& pattern, const std::string& text) {
  const Found found = FindAll(pattern, text);
  REQUIRE(found.outcome == SplitRegex::Outcome::kNoMatch);
  return found.matches;
}

std::string Repeat(const std::string& part, size_t num_bytes) {
  std::string text;
  while (text.size() < num_bytes) text += part;
  return text;
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

TEST_CASE("what counts nothing, or costs much to compile, is refused", "[text]") {
  CHECK_FALSE(SplitRegex::Compile("(((a{1,1000}){1,1000}){1,1000})").ok());
  CHECK_FALSE(SplitRegex::Compile(std::string(1000, '(') + std::string(1000, ')')).ok());
  for (const std::string part :
       {R"((a*)\1)", R"((?<n>a)\k<n>)", R"(a\X)", R"(\Ga)", "a(*COMMIT)b"}) {
    const auto regex = SplitRegex::Compile(part);
    REQUIRE(regex.status().code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(regex.status().message()), Catch::Contains("not supported"));
  }
  CHECK_THAT(std::string(SplitRegex::Compile(Repeat("a?", 8000)).status().message()),
             Catch::Contains("4001 items, more than 2048"));
  const std::string ranges = Repeat("[a-\u20ac]", 700);
  CHECK(SplitRegex::Compile(ranges).ok());
  for (const std::string flag : {"(?i)", "(?i:", "(?s-mi)", "(?si:"}) {
    const std::string close = flag.back() == ':' ? ")" : "";
    CHECK_THAT(std::string(SplitRegex::Compile(flag + ranges + close).status().message()),
               Catch::Contains("more than 64 ranges"));
  }
  CHECK(Matches(R"(\\X|\\G)", R"(a\X\G)") == Strings{R"(\X)", R"(\G)"});
}

TEST_CASE("real patterns split a megabyte of anything, within the steps there are", "[text]") {
  struct Text {
    std::string text;
    size_t llama, qwen, tekken, deepseek, gpt2;  // how many words
  };
  const size_t n = kMebibyte;
  const std::vector<Text> texts = {
      {std::string(n, 'a'), 1, 1, 1, 1, 1},
      {std::string(n, 'A'), 1, 1, 1, 1, 1},
      {std::string(n, ' '), 1, 1, 1, 1, 1},
      {std::string(n, ' ') + "a", 2, 2, 2, 2, 2},
      {std::string(n, '\n'), 1, 1, 1, 1, 1},
      {std::string(n, '!'), 1, 1, 1, 1, 1},
      {std::string(n, '7'), (n + 2) / 3, n, n, 0, 1},
      {Repeat("\u6f22", n), 1, 1, 1, 1, 1},
      {Repeat("ab 1", n), 3 * n / 4, 3 * n / 4, 3 * n / 4, 2 * n / 4, 2 * n / 4},
  };
  for (const Way way : {Way::kAsItGoes, Way::kAllCounted}) {
    for (const Text& text : texts) {
      const auto check = [&](const std::string& pattern, size_t num_words) {
        const Found found = FindAll(pattern, text.text, way);
        INFO(pattern << " on " << text.text.substr(0, 10));
        CHECK(found.outcome == SplitRegex::Outcome::kNoMatch);
        CHECK(found.matches.size() == num_words);
        CHECK(found.num_steps <= 128 * text.text.size());
      };
      check(kLlama3, text.llama);
      check(kQwen, text.qwen);
      check(kTekken, text.tekken);
      check(kDeepSeek, text.deepseek);
      check(std::string(kGpt2SplitPattern), text.gpt2);
    }
  }
}

TEST_CASE("a hostile pattern ends at the last step of a mebibyte's", "[text]") {
  struct Hostile {
    std::string pattern;
    std::string part;
  };
  const std::vector<Hostile> all = {
      {R"((?=.*x)y|(?=.*\d)z)", "a"},
      {R"((?s)(?=.*x)[yz])", "\n"},
      {R"(a*b)", "a"},
      {R"(\p{L}*\d)", "a"},
      {R"(\p{L}*\d)", "\u6f22"},
      {R"((?>\p{L}+)\d)", "a"},
      {R"(\p{L}+\d|\p{L})", "a"},
      {R"((?:a|b)*\d)", "a"},
      {R"((a+)+$)", std::string(50, 'a') + "!"},
      {R"((a*)*b|\d)", "a"},
      {R"(\s+x|\s)", " "},
      {R"(\d{1,3}(?=(?:\d{3})*\b))", "7"},
      {R"([ab]{60000}c|[ab]{50000}d)", "a"},
      {R"((?:a(?=.*b))*c)", "a"},
      {R"((*NO_JIT)\p{L}*\d)", "a"},
  };
  for (const Hostile& hostile : all) {
    const std::string text = Repeat(hostile.part, kMebibyte);
    const Found found = FindAll(hostile.pattern, text);
    INFO(hostile.pattern);
    CHECK(found.outcome == SplitRegex::Outcome::kError);
    CHECK(found.status.code() == absl::StatusCode::kResourceExhausted);
    CHECK_THAT(std::string(found.status.message()), Catch::Contains("steps"));
    CHECK(found.num_steps > found.max_steps);
    // The last item may have passed over the whole text.
    CHECK(found.num_steps <= found.max_steps + 2 * text.size());
  }
}

TEST_CASE("what one item passes over before it fails is counted", "[text]") {
  const std::string text = Repeat(std::string(59'999, 'a') + "!", 120'000);
  CHECK(FindAll("[ab]{60000}|c", text).outcome == SplitRegex::Outcome::kError);
  CHECK(FindAll("[ab]{6}|c", text).outcome == SplitRegex::Outcome::kNoMatch);
}

TEST_CASE("a pattern that scans once is not refused for the length of the scan", "[text]") {
  const std::string letters(kMebibyte, 'a');
  CHECK(Matches(R"((?=.*x)y)", letters).empty());
  CHECK(Matches(R"((?s).*?\d)", letters).empty());
  CHECK(Matches(R"(\p{L}*+)", letters).size() == 1);
  CHECK(Matches(R"(a(?=.*b)|a+)", letters).size() == 1);
  CHECK(Matches(R"(\d)", letters + "7") == Strings{"7"});
}

TEST_CASE("searches of few bytes find what searches of the whole text find", "[text]") {
  const std::vector<std::string> patterns = {kLlama3,          kTekken,       R"((?<=a)b|a(?=b))",
                                             R"(\b\w+\b)",     R"(a+$|b)",    R"((?!b)|b+)",
                                             R"(\B.\B)",       R"(^.|.$)",    R"(a\Kb+)",
                                             R"((?<!a{9})b+)", R"(\s+\S*?b)", R"((?m)^b|a*$)"};
  uint32_t random = 1;
  for (int i = 0; i < 300; ++i) {
    std::string text;
    while (text.size() < 300) {
      random = random * 1664525 + 1013904223;
      const std::vector<std::string> parts = {"a", "b", " ", "\n", "\u6f22", "!"};
      text += Repeat(parts[(random >> 8) % 6], (random >> 16) % (1 + 80 * ((random >> 24) & 1)));
    }
    for (const std::string& pattern : patterns) {
      const Found counted = FindAll(pattern, text, Way::kAllCounted);
      INFO(pattern << " on " << text);
      REQUIRE(counted.outcome == SplitRegex::Outcome::kNoMatch);
      REQUIRE(Matches(pattern, text) == counted.matches);
    }
  }
}

TEST_CASE("the end of a search of few bytes is not the end of the text", "[text]") {
  for (size_t num_bytes = 60; num_bytes < 70; ++num_bytes) {
    CHECK(Matches("(?!.)|b+", std::string(num_bytes, 'a') + "bb") == Strings{"bb"});
    CHECK(Matches("(*NO_JIT)(?!.)|b+", std::string(num_bytes, 'a') + "bb") == Strings{"bb"});
    CHECK(Matches("a$|b", std::string(num_bytes, 'a') + "b") == Strings{"b"});
    CHECK(Matches(R"(\ba|ab)", " " + std::string(num_bytes, 'a') + "b") == Strings{"a", "ab"});
  }
}

TEST_CASE("short words cost no steps, and all patterns of a text share what there are", "[text]") {
  CHECK(FindAll(kLlama3, Repeat("It's 12 o'clock. ", 10'000)).num_steps == 0);
  const std::string text(100'000, 'a');
  const auto regex = SplitRegex::Compile(R"(\p{L}*\d)");
  REQUIRE(regex.ok());
  SplitBudget budget;
  budget.AddText(text.size());
  SplitRegex::Match match;
  SplitRegex::Matcher first(*regex, &budget);
  CHECK(first.Find(text, 0, &match) == SplitRegex::Outcome::kError);
  SplitRegex::Matcher second(*regex, &budget);
  CHECK(second.Find(text, 99'000, &match) == SplitRegex::Outcome::kError);
  SplitBudget other;
  SplitRegex::Matcher third(*regex, &other);
  CHECK(third.Find(text, 99'000, &match) == SplitRegex::Outcome::kNoMatch);
}

TEST_CASE("a pattern that backtracks without end fails and does not hang", "[text]") {
  const auto regex = SplitRegex::Compile("(a|aa|a?)+$");
  REQUIRE(regex.ok());
  const std::string text = std::string(200, 'a') + "b";
  SplitBudget budget;
  budget.AddText(text.size());
  SplitRegex::Matcher matcher(*regex, &budget);
  SplitRegex::Match match;
  REQUIRE(matcher.Find(text, 0, &match) == SplitRegex::Outcome::kError);
  CHECK(matcher.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(matcher.status().message()), Catch::Contains("201 bytes"));
}

TEST_CASE("backtracking is bounded for a whole text, not for each match", "[text]") {
  const auto regex = SplitRegex::Compile("(?:a|aa){0,12}c|.");
  REQUIRE(regex.ok());
  const auto outcome_of = [&](size_t num_bytes) {
    const std::string text(num_bytes, 'a');
    SplitBudget budget;
    budget.AddText(text.size());
    SplitRegex::Matcher matcher(*regex, &budget);
    SplitRegex::Match match = {0, 0};
    SplitRegex::Outcome outcome = SplitRegex::Outcome::kMatch;
    while (outcome == SplitRegex::Outcome::kMatch) outcome = matcher.Find(text, match.end, &match);
    return outcome;
  };
  CHECK(outcome_of(40) == SplitRegex::Outcome::kNoMatch);
  CHECK(outcome_of(4000) == SplitRegex::Outcome::kError);
}

}  // namespace fastgen
