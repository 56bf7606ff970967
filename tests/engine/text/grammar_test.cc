// What each kind of constraint allows, token by token, and what hostile ones may cost.
#include <string>

#include "tests/engine/text/grammar_under_test.h"
// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
#undef CHECK
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

using testing::FakeTokenizer;
using testing::GrammarUnderTest;
using testing::MakeConstraint;
using Fit = GrammarUnderTest::Fit;
using Kind = Constraint::Kind;

TEST_CASE("a regex is kept over the whole answer", "[text]") {
  const GrammarUnderTest under_test;
  const Constraint regex = MakeConstraint(Kind::kRegex, "[a-c]{2,3}-\\d+");
  CHECK(under_test.IsWhole(regex, "abc-12"));
  CHECK(under_test.FitOf(regex, "ab") == Fit::kBeginning);
  CHECK(under_test.FitOf(regex, "abcd") == Fit::kNo);
  CHECK(under_test.FitOf(regex, "ab-x") == Fit::kNo);
}

TEST_CASE("an answer is one of the choices, whatever characters they are made of", "[text]") {
  const GrammarUnderTest under_test;
  Constraint choice = MakeConstraint(Kind::kChoice);
  choice.choices = {"yes", "yes, \"really\"", "n\\o\n\t", "\xc3\xa9t\xc3\xa9 \xe2\x82\xac",
                    "[a-z]* | x"};
  for (const std::string& text : choice.choices) CHECK(under_test.IsWhole(choice, text));
  CHECK(under_test.FitOf(choice, "no") == Fit::kNo);
  CHECK(under_test.FitOf(choice, "") == Fit::kBeginning);
  CHECK(under_test.FitOf(choice, "yesx") == Fit::kNo);
}

TEST_CASE("a grammar is kept from its root", "[text]") {
  const GrammarUnderTest under_test;
  const Constraint grammar =
      MakeConstraint(Kind::kGrammar, "root ::= sum \".\"\nsum ::= [0-9] | sum \"+\" [0-9]");
  CHECK(under_test.IsWhole(grammar, "1+2+3."));
  CHECK(under_test.FitOf(grammar, "1+2") == Fit::kBeginning);
  CHECK(under_test.FitOf(grammar, "1++") == Fit::kNo);
}

TEST_CASE("a token that straddles parts of a grammar may come", "[text]") {
  const GrammarUnderTest under_test({"\": ", "{\"", "1}", "1,"});
  const auto grammar = under_test.Compile(MakeConstraint(
      Kind::kJsonSchema,
      R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]})"));
  REQUIRE(grammar.ok());
  auto matcher = under_test.Matcher(*grammar);
  const int32_t first = FakeTokenizer::kFirstPiece;
  CHECK(under_test.MayCome(matcher.get(), first + 1));
  REQUIRE(matcher->Accept(first + 1).ok());
  REQUIRE(matcher->Accept('a').ok());
  CHECK(under_test.MayCome(matcher.get(), first));
  REQUIRE(matcher->Accept(first).ok());
  CHECK(under_test.MayCome(matcher.get(), first + 2));
  CHECK_FALSE(under_test.MayCome(matcher.get(), first + 3));
  REQUIRE(matcher->Accept(first + 2).ok());
  CHECK(under_test.Allowed(matcher.get()) == std::vector<int32_t>{FakeTokenizer::kEos});
}

TEST_CASE("special tokens and rows without a token never come", "[text]") {
  const GrammarUnderTest under_test;
  const auto grammar = under_test.Compile(MakeConstraint(Kind::kRegex, "[\\s\\S]*"));
  REQUIRE(grammar.ok());
  auto matcher = under_test.Matcher(*grammar);
  const std::vector<int32_t> allowed = under_test.Allowed(matcher.get());
  CHECK(allowed.size() > 100);
  for (int32_t token : allowed) {
    CHECK(token != FakeTokenizer::kBos);
    CHECK(token < under_test.tokenizer().vocab_size());
  }
}

TEST_CASE("a character is whole before the answer ends", "[text]") {
  const GrammarUnderTest under_test;
  const Constraint regex = MakeConstraint(Kind::kRegex, ".");
  CHECK(under_test.FitOf(regex, "\xe2\x82") == Fit::kBeginning);
  CHECK(under_test.IsWhole(regex, "\xe2\x82\xac"));
  CHECK(under_test.FitOf(regex, "\xff") == Fit::kNo);
}

TEST_CASE("a structural tag of the client holds", "[text]") {
  const GrammarUnderTest under_test;
  const Constraint tag = MakeConstraint(Kind::kStructuralTag, R"({"type":"structural_tag","format":
      {"type":"tag","begin":"<a>","content":{"type":"json_schema","json_schema":{"type":"integer"}},"end":"</a>"}})");
  CHECK(under_test.IsWhole(tag, "<a>12</a>"));
  CHECK(under_test.FitOf(tag, "<a>x") == Fit::kNo);
}

TEST_CASE("a hostile source is refused, or compiled within its budget", "[text]") {
  const GrammarUnderTest under_test;
  GrammarBudget::Limits limits;
  limits.time = std::chrono::seconds(2);
  limits.memory_bytes = 64 << 20;
  std::string deep(100'000, '[');
  std::string huge_enum = "{\"enum\":[";
  for (int i = 0; i < 20'000; ++i) huge_enum += std::to_string(i) + ",";
  huge_enum += "0]}";
  std::string groups(5'000, '(');
  groups += "a" + std::string(5'000, ')');
  std::string chain;
  for (int i = 0; i < 6'000; ++i)
    chain += "r" + std::to_string(i) + "::=r" + std::to_string(i + 1) + "\n";
  chain = "root::=r0\n" + chain + "r6000::=\"a\"";
  std::string optional_chain;
  for (int i = 0; i < 4'000; ++i) {
    optional_chain += "r" + std::to_string(i) + "::=\"a\" r" + std::to_string(i + 1) + "|\"\"\n";
  }
  optional_chain = "root::=r0\n" + optional_chain + "r4000::=\"b\"";
  std::string stars = "a";
  for (int i = 0; i < 2'000; ++i) stars = "(" + stars + ")*";
  std::string references = "{\"$ref\":\"#/$defs/r0\",\"$defs\":{";
  for (int i = 0; i < 1'500; ++i) {
    references += "\"r" + std::to_string(i) +
                  "\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/r" + std::to_string(i + 1) +
                  "\"}},";
  }
  references += "\"r1500\":{\"type\":\"null\"}}}";
  std::string alternatives = "a";
  for (int i = 0; i < 20'000; ++i) alternatives += "|b" + std::to_string(i % 7);
  const std::vector<Constraint> sources = {
      MakeConstraint(Kind::kGrammar, chain),
      MakeConstraint(Kind::kGrammar, optional_chain),
      MakeConstraint(Kind::kRegex, stars),
      MakeConstraint(Kind::kRegex, alternatives),
      MakeConstraint(Kind::kJsonSchema, references),
      MakeConstraint(Kind::kJsonSchema, deep),
      MakeConstraint(Kind::kJsonSchema, "{\"items\":" + deep),
      MakeConstraint(Kind::kJsonSchema, huge_enum),
      MakeConstraint(Kind::kJsonSchema, R"({"$ref":"#"})"),
      MakeConstraint(
          Kind::kJsonSchema,
          R"({"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}})"),
      MakeConstraint(Kind::kJsonSchema, R"({"type":"string","maxLength":1000000})"),
      MakeConstraint(Kind::kJsonSchema, std::string("{\0}", 3)),
      MakeConstraint(Kind::kRegex, "a{1,1000000}"),
      MakeConstraint(Kind::kRegex, "(((((a{1,99}){1,99}){1,99}){1,99}){1,99}){1,99}"),
      MakeConstraint(Kind::kRegex, "(a+)+(a*)*(b|a)*$"),
      MakeConstraint(Kind::kRegex, groups),
      MakeConstraint(Kind::kRegex, "\xff\xfe"),
      MakeConstraint(Kind::kRegex, std::string("a\0b", 3)),
      MakeConstraint(Kind::kRegex, "[z-a"),
      MakeConstraint(Kind::kRegex, ""),
      MakeConstraint(Kind::kGrammar, "root ::= root"),
      MakeConstraint(Kind::kGrammar, "root ::= root root | \"a\" | \"\""),
      MakeConstraint(Kind::kGrammar, "start ::= \"a\""),
      MakeConstraint(Kind::kGrammar, "root ::= " + groups),
      MakeConstraint(Kind::kGrammar, "root ::= [a-z]{1,1000000000}"),
      MakeConstraint(Kind::kGrammar, "root ::= ((\"a\"*)*)*"),
      MakeConstraint(Kind::kStructuralTag, "{}"),
      MakeConstraint(Kind::kStructuralTag, R"({"format":{"type":"nothing"}})"),
      MakeConstraint(Kind::kStructuralTag, R"({"format":{"type":"token","token":999999999}})"),
      MakeConstraint(Kind::kChoice),
      MakeConstraint(Kind::kNone),
  };
  for (const Constraint& source : sources) {
    INFO(NameOf(source.kind) << " " << source.text.substr(0, 60));
    const auto grammar = under_test.Compile(source, {}, {}, limits);
    if (!grammar.ok()) {
      CHECK((absl::IsInvalidArgument(grammar.status()) ||
             absl::IsResourceExhausted(grammar.status())));
      CHECK(grammar.status().message().size() < 1000);
      // Nor does a client care for the library's own words.
      CHECK(grammar.status().message().find("Check failed") == absl::string_view::npos);
      continue;
    }
    // What compiles can be followed, within the matcher's own budget.
    auto matcher = under_test.Matcher(*grammar);
    for (int i = 0; i < 50; ++i) {
      const std::vector<int32_t> allowed = under_test.Allowed(matcher.get());
      if (allowed.empty() ||
          !matcher->Accept(allowed[static_cast<size_t>(i) % allowed.size()]).ok())
        break;
    }
  }
}

TEST_CASE("an allocation that fails anywhere in a compilation is an error and nothing more",
          "[text]") {
  const GrammarUnderTest under_test({"{\"", "\": ", "true", "}\n"});
  const Constraint sources[] = {
      MakeConstraint(Kind::kJsonSchema,
                     R"({"type":"object","properties":{"a":{"type":"string","pattern":"x+"},
          "b":{"anyOf":[{"type":"number"},{"type":"array","items":{"enum":[1,"x"]}}]}},"required":["a"]})"),
      MakeConstraint(Kind::kGrammar, "root ::= (\"a\" | b)+\nb ::= [^x] b | \"\""),
  };
  for (const Constraint& source : sources) {
    int64_t num_allocations = 0;
    int num_failed = 0;
    while (true) {
      GrammarBudget::Limits limits;
      limits.num_allocations = num_allocations;
      const auto grammar = under_test.Compile(source, {}, {}, limits);
      if (grammar.ok()) break;
      CHECK(absl::IsResourceExhausted(grammar.status()));
      ++num_failed;
      // Every one at first, then with growing steps: a compilation has some ten thousand.
      num_allocations += 1 + num_allocations / 64;
    }
    CHECK(num_failed > 100);
  }
}

TEST_CASE("a matcher takes memory as its output grows, and gives it back at the end", "[text]") {
  const GrammarUnderTest under_test;
  const auto grammar =
      under_test.Compile(MakeConstraint(Kind::kGrammar, "root ::= \"(\" root \")\" | \"x\""));
  REQUIRE(grammar.ok());
  CHECK(GrammarMatcher::num_bytes_of_all() == 0);
  auto ended = *GrammarMatcher::Create(*grammar);
  auto dropped = *GrammarMatcher::Create(*grammar);
  const int64_t at_first = GrammarMatcher::num_bytes_of_all();
  CHECK(at_first > 0);
  for (int i = 0; i < 2000; ++i) {
    REQUIRE(*ended->Accept('('));
    REQUIRE(*dropped->Accept('('));
  }
  const int64_t of_two = GrammarMatcher::num_bytes_of_all();
  CHECK(of_two > 2 * at_first);
  CHECK(of_two < MatcherLimits().num_bytes / 8);
  dropped = nullptr;
  CHECK(GrammarMatcher::num_bytes_of_all() < of_two * 3 / 4);
  REQUIRE(*ended->Accept('x'));
  for (int i = 0; i < 2000; ++i) REQUIRE(*ended->Accept(')'));
  CHECK(ended->is_whole());
  REQUIRE(*ended->Accept(FakeTokenizer::kEos));
  CHECK(ended->has_ended());
  CHECK(ended->is_whole());
  CHECK(GrammarMatcher::num_bytes_of_all() == 0);
}

TEST_CASE("one matcher and all together are bounded, and who fails gives its memory back",
          "[text]") {
  const GrammarUnderTest under_test;
  const auto grammar =
      under_test.Compile(MakeConstraint(Kind::kGrammar, "root ::= \"(\" root \")\" | \"x\""));
  REQUIRE(grammar.ok());
  MatcherLimits of_one, of_all;
  of_one.num_bytes = of_all.num_bytes_of_all = 1 << 20;
  for (const MatcherLimits& limits : {of_one, of_all}) {
    auto first = *GrammarMatcher::Create(*grammar, limits);
    for (int i = 0; i < 1000; ++i) REQUIRE(*first->Accept('('));
    const int64_t of_first = GrammarMatcher::num_bytes_of_all();
    auto second = *GrammarMatcher::Create(*grammar, limits);
    absl::StatusOr<bool> accepted = true;
    while (accepted.ok()) {
      accepted = second->Accept('(');
      REQUIRE(GrammarMatcher::num_bytes_of_all() <= of_first + limits.num_bytes);
      REQUIRE(GrammarMatcher::num_bytes_of_all() <= limits.num_bytes_of_all);
    }
    CHECK(absl::IsResourceExhausted(accepted.status()));
    CHECK(GrammarMatcher::num_bytes_of_all() == of_first);
    CHECK_FALSE(second->Accept(')').ok());
    CHECK_FALSE(second->is_whole());
    CHECK(*first->Accept('('));
  }
  CHECK(GrammarMatcher::num_bytes_of_all() == 0);
}

}  // namespace
}  // namespace fastgen
