// A grammar over a whole answer: after reasoning, up to the end token, and as long as it goes on.
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
using Reasoning = AnswerConstraintOptions::Reasoning;

const Constraint kDigits = MakeConstraint(Constraint::Kind::kRegex, "[0-9]+");

bool EndMayCome(const GrammarUnderTest& under_test, TokenMatcher* matcher) {
  return under_test.MayCome(matcher, FakeTokenizer::kEos);
}

TEST_CASE("an end token may come when the answer is whole, and nothing after it", "[text]") {
  const GrammarUnderTest under_test;
  auto matcher = under_test.Matcher(*under_test.Compile(kDigits));
  CHECK_FALSE(EndMayCome(under_test, matcher.get()));
  CHECK(under_test.Feed(matcher.get(), "12"));
  CHECK(EndMayCome(under_test, matcher.get()));
  CHECK(matcher->Accept(FakeTokenizer::kEos).ok());
  CHECK(under_test.Allowed(matcher.get()).empty());
}

TEST_CASE("reasoning that the prompt opened is free, and the grammar binds after it", "[text]") {
  const GrammarUnderTest under_test;
  auto matcher = under_test.Matcher(*under_test.Compile(kDigits), {Reasoning::kOpen, false});
  CHECK_FALSE(EndMayCome(under_test, matcher.get()));
  CHECK(under_test.Feed(matcher.get(), "Hm, </thin <</think>"));
  CHECK_FALSE(EndMayCome(under_test, matcher.get()));
  CHECK_FALSE(under_test.MayCome(matcher.get(), 'x'));
  CHECK(under_test.Feed(matcher.get(), "\n\n42"));
  CHECK(EndMayCome(under_test, matcher.get()));
  CHECK_FALSE(under_test.MayCome(matcher.get(), '\n'));
}

TEST_CASE("reasoning that may come may be left out", "[text]") {
  const GrammarUnderTest under_test;
  const auto grammar = *under_test.Compile(kDigits);
  SECTION("the answer follows at once") {
    auto matcher = under_test.Matcher(grammar, {Reasoning::kMayOpen, false});
    CHECK(under_test.Feed(matcher.get(), "7"));
    CHECK(EndMayCome(under_test, matcher.get()));
    CHECK_FALSE(under_test.MayCome(matcher.get(), '<'));
  }
  SECTION("the reasoning comes first") {
    auto matcher = under_test.Matcher(grammar, {Reasoning::kMayOpen, false});
    CHECK(under_test.Feed(matcher.get(), "\n<thi"));
    CHECK_FALSE(under_test.MayCome(matcher.get(), 'x'));
    CHECK_FALSE(EndMayCome(under_test, matcher.get()));
    CHECK(under_test.Feed(matcher.get(), "nk>any x</think>7"));
    CHECK(EndMayCome(under_test, matcher.get()));
  }
  SECTION("without reasoning kept apart the tag is no part of an answer") {
    auto matcher = under_test.Matcher(grammar);
    CHECK_FALSE(under_test.MayCome(matcher.get(), '<'));
  }
}

TEST_CASE("a token that closes the reasoning and begins an answer does not come", "[text]") {
  const int32_t first = FakeTokenizer::kFirstPiece;
  const GrammarUnderTest under_test({"k>x", "k>\n", "k>", "a>b"});
  auto matcher = under_test.Matcher(*under_test.Compile(kDigits), {Reasoning::kOpen, false});
  CHECK(under_test.MayCome(matcher.get(), first));
  CHECK(under_test.Feed(matcher.get(), "</thin"));
  CHECK_FALSE(under_test.MayCome(matcher.get(), first));
  CHECK(under_test.MayCome(matcher.get(), first + 1));
  CHECK(under_test.MayCome(matcher.get(), first + 2));
  CHECK(under_test.MayCome(matcher.get(), first + 3));
}

TEST_CASE("an answer that avoids its end goes on while it can", "[text]") {
  const GrammarUnderTest under_test;
  const auto grammar = *under_test.Compile(MakeConstraint(Constraint::Kind::kRegex, "a{1,3}"));
  auto matcher = under_test.Matcher(grammar, {Reasoning::kNone, true});
  CHECK(under_test.Feed(matcher.get(), "a"));
  CHECK_FALSE(EndMayCome(under_test, matcher.get()));
  CHECK(under_test.Feed(matcher.get(), "aa"));
  CHECK(under_test.Allowed(matcher.get()) == std::vector<int32_t>{FakeTokenizer::kEos});
}

}  // namespace
}  // namespace fastgen
