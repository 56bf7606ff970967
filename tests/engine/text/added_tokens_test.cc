#include "engine/text/added_tokens.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace fastgen {
namespace {

// The text with each token found in it replaced by its id in braces.
std::string Mark(const AddedTokenFinder& finder, const std::string& text, bool parse_special = true,
                 const std::vector<ByteRange>& untrusted = {}) {
  std::string out;
  size_t begin = 0;
  while (const auto match = finder.Find(text, begin, parse_special, untrusted)) {
    out += text.substr(begin, match->begin - begin) + "{" + std::to_string(match->id) + "}";
    begin = match->end;
  }
  return out + text.substr(begin);
}

}  // namespace

TEST_CASE("the leftmost token wins, then the longest", "[text]") {
  const AddedTokenFinder finder({{.content = "<a>", .id = 1},
                                 {.content = "<a><b>", .id = 2},
                                 {.content = "<b>", .id = 3},
                                 {.content = "><", .id = 4}});
  CHECK(Mark(finder, "<a><b>") == "{2}");
  CHECK(Mark(finder, "<a><a><b><b>") == "{1}{2}{3}");
  CHECK(Mark(finder, "<<a>><") == "<{1}{4}");
  CHECK(Mark(finder, "<a") == "<a");
  CHECK(Mark(finder, "") == "");
}

TEST_CASE("a token that touches untrusted bytes is text, whatever part of it they are", "[text]") {
  const AddedTokenFinder finder(
      {{.content = "<eot>", .id = 1, .special = true}, {.content = "<x>", .id = 2}});
  const std::string text = "ab<eot>cd<x>";
  for (size_t begin = 0; begin <= text.size(); ++begin) {
    for (size_t end = begin + 1; end <= text.size(); ++end) {
      const bool touches_eot = begin < 7 && end > 2;
      const bool touches_x = end > 9;
      CAPTURE(begin, end);
      CHECK(Mark(finder, text, true, {{begin, end}}) == std::string("ab") +
                                                            (touches_eot ? "<eot>" : "{1}") + "cd" +
                                                            (touches_x ? "<x>" : "{2}"));
    }
  }
  // A shorter token that lies in trusted bytes is found where a longer one is not.
  const AddedTokenFinder nested({{.content = "<a>", .id = 1}, {.content = "<a><b>", .id = 2}});
  CHECK(Mark(nested, "<a><b>", true, {{3, 6}}) == "{1}<b>");
  CHECK(Mark(nested, "<a><b>", true, {{0, 1}, {5, 6}}) == "<a><b>");
}

TEST_CASE("special tokens are parsed only when asked", "[text]") {
  const AddedTokenFinder finder(
      {{.content = "<eot>", .id = 1, .special = true}, {.content = "<x>", .id = 2}});
  CHECK(Mark(finder, "<eot><x>", /*parse_special=*/false) == "<eot>{2}");
}

TEST_CASE("lstrip and rstrip take in spaces of any kind, but not another token's", "[text]") {
  const AddedTokenFinder finder(
      {{.content = "<m>", .id = 1, .lstrip = true}, {.content = "<t>", .id = 2, .rstrip = true}});
  CHECK(Mark(finder, "a \u3000\n<m> b") == "a{1} b");
  CHECK(Mark(finder, "a <t> \u3000\nb") == "a {2}b");
  CHECK(Mark(finder, "<t>   <m>") == "{2}{1}");
  CHECK(Mark(finder, "  <m>  <m>") == "{1}{1}");
}

TEST_CASE("a single word stands between characters that are not of words", "[text]") {
  const AddedTokenFinder finder({{.content = "yes", .id = 1, .single_word = true}});
  CHECK(Mark(finder, "yes") == "{1}");
  CHECK(Mark(finder, "(yes) yes, yesno noyes \u00e9yes yes\u0301 yes_ yes\u2615") ==
        "({1}) {1}, yesno noyes \u00e9yes yes\u0301 yes_ {1}\u2615");
}

TEST_CASE("half-spelled tokens in a long text cost no more than their length each", "[text]") {
  const std::string token = "<|" + std::string(60, 'x') + "|>";
  const AddedTokenFinder finder({{.content = token, .id = 1}});
  std::string text;
  while (text.size() < 2'000'000) text += token.substr(0, token.size() - 1);
  CHECK_FALSE(finder.Find(text, 0, true, {}).has_value());
  CHECK(finder.Find(text + token, 0, true, {})->begin == text.size());
}

}  // namespace fastgen
