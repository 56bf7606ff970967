// Schemas: what is written down for the grammar library, what is refused and how, and what then may
// come.
#include "engine/text/json_schema.h"

#include <string>

#include "engine/text/json_pattern.h"
#include "tests/engine/text/grammar_under_test.h"
// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
#undef CHECK
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

using testing::GrammarUnderTest;
using testing::MakeConstraint;
using Fit = GrammarUnderTest::Fit;

std::string Written(const std::string& schema) {
  const auto parsed = ParseUntrustedJson(schema, kMaxSchemaBytes);
  if (!parsed.ok()) return std::string(parsed.status().message());
  const auto written = NormalizeSchema(*parsed);
  return written.ok() ? boost::json::serialize(*written) : std::string(written.status().message());
}

TEST_CASE("what the library would leave out is refused with its place", "[text]") {
  CHECK(Written(R"({"properties":{"a":{"type":"array","uniqueItems":true}}})") ==
        "#/properties/a: uniqueItems is not supported");
  CHECK(Written(R"({"not":{"type":"null"}})") == "#: not is not supported");
  CHECK(Written(R"({"type":"object","if":{},"then":{}})") == "#: if is not supported");
  CHECK(Written(R"({"$ref":"#/$defs/a","minimum":3,"$defs":{"a":{}}})") ==
        "#: $ref beside minimum is not supported");
  CHECK(Written(R"({"anyOf":[{"type":"null"}],"type":"object"})") ==
        "#: anyOf beside type is not supported");
  CHECK(Written(R"({"allOf":[{"type":"object"},{"required":["a"]}]})") ==
        "#: allOf of more than one schema is not supported");
  CHECK(Written(R"({"$ref":"http://example.com/x"})") == "#: $ref reaches outside of the schema");
  CHECK(Written(R"({"$ref":"#/$defs/b","$defs":{"a":{}}})") ==
        "#: $ref finds nothing at #/$defs/b");
  CHECK(Written(R"({"type":"strin"})").find("type is none of") != std::string::npos);
  CHECK(Written(R"({"type":"string","minLength":-1})") == "#: minLength is not a count");
  CHECK(Written(R"({"type":"string","minLength":5,"maxLength":4})") ==
        "#: minLength exceeds maxLength");
  CHECK(Written("false") == "#: allows nothing");
  CHECK(Written("[]") == "#: is neither an object nor true or false");
}

TEST_CASE("a schema is written so that nothing in it is left to a default", "[text]") {
  CHECK(Written(R"({"type":"object","properties":{"a":{"type":"integer","title":"A"}}})") ==
        R"({"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":false})");
  CHECK(Written(R"({"type":"object"})") == R"({"type":"object","additionalProperties":true})");
  CHECK(Written(R"({"type":"array"})") == R"({"type":"array","items":{}})");
  CHECK(Written(R"({"minimum":3})") == R"({"type":"number","minimum":3})");
  CHECK(Written(R"({"type":"string","enum":["a",1]})") == R"({"enum":["a"]})");
  CHECK(Written(R"({"type":["string","null"],"maxLength":3})") ==
        R"({"anyOf":[{"type":"string","pattern":"[^\"\\\\\\x00-\\x1f]{0,3}"},{"type":"null"}]})");
  CHECK(
      Written(R"({"required":["b"],"properties":{"a":{}}})") ==
      R"({"type":"object","required":["b"],"properties":{"a":{},"b":{}},"additionalProperties":false})");
}

TEST_CASE("patterns lose what JSON escapes, or are refused", "[text]") {
  CHECK(*PatternInJsonString("^a.b$") == R"(a[^"\\\x00-\x1f]b)");
  CHECK(*PatternInJsonString("[^a]\\D\\S") ==
        R"([^a"\\\x00-\x1f][^0-9"\\\x00-\x1f][^ "\\\x00-\x1f])");
  CHECK(*PatternInJsonString("(?:a|b){2,3}?") == "(a|b){2,3}");
  for (const char* pattern : {"a\"", "\\\\", "\\n", "(?=a)", "(?<n>a)", "\\1", "\\bx", "a^b", "a$b",
                              "(", "a)", "[a", "*a", "a{1,99999}", "a{x}", "[\\n]", "a\\"}) {
    INFO(pattern);
    CHECK_FALSE(PatternInJsonString(pattern).ok());
  }
}

TEST_CASE("a string of bounded length or of a pattern holds no character that JSON escapes",
          "[text]") {
  const GrammarUnderTest under_test;
  for (const char* schema :
       {R"({"type":"string","maxLength":9})", R"({"type":"string","pattern":".*"})",
        R"({"type":"string","pattern":"[^x]+"})", R"({"type":"string","pattern":"\\S+"})"}) {
    const Constraint constraint = MakeConstraint(Constraint::Kind::kJsonSchema, schema);
    INFO(schema);
    CHECK(under_test.IsWhole(constraint, "\"ab\xc3\xa9\""));
    CHECK(under_test.FitOf(constraint, "\"a\t") == Fit::kNo);
    CHECK(under_test.FitOf(constraint, std::string_view("\"a\0", 3)) == Fit::kNo);
    CHECK(under_test.FitOf(constraint, "\"a\\") == Fit::kNo);
    CHECK(under_test.FitOf(constraint, "\"a\"b") == Fit::kNo);
  }
}

TEST_CASE("schemas allow what they say", "[text]") {
  const GrammarUnderTest under_test;
  const auto fits = [&](const char* schema, std::string_view json) {
    return under_test.FitOf(MakeConstraint(Constraint::Kind::kJsonSchema, schema), json);
  };
  constexpr char kList[] =
      R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},
      "next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"]}}})";
  CHECK(fits(kList, R"({"v": 1, "next": {"v": 2, "next": null}})") == Fit::kWhole);
  CHECK(fits(kList, R"({"v": 1, "x)") == Fit::kNo);
  CHECK(fits(R"({"type":"integer","minimum":3,"maximum":12})", "13") == Fit::kNo);
  CHECK(fits(R"({"type":"integer","minimum":3,"maximum":12})", "12") == Fit::kWhole);
  CHECK(fits(R"({"type":"object"})", R"({"any": [1, {"thing": null}]})") == Fit::kWhole);
  CHECK(fits(R"({"type":"array","minItems":2,"maxItems":2})", R"([1, "a"])") == Fit::kWhole);
  CHECK(fits(R"({"type":"array","minItems":2,"maxItems":2})", R"([1])") == Fit::kNo);
  CHECK(fits(R"({"oneOf":[{"type":"string"},{"type":"integer"}]})", "7") == Fit::kWhole);
  CHECK(fits(R"({"const":{"a":[1,2]}})", R"({"a")") != Fit::kNo);
  CHECK(fits(R"({"type":"string","format":"date"})", "\"2024-13") == Fit::kNo);
  CHECK(fits(R"({"type":"object","properties":{"a":{"type":"null"}},"required":["a","b"]})",
             R"({"a": null})") == Fit::kNo);
}

TEST_CASE("schemas of one value that overlap are refused as oneOf", "[text]") {
  const GrammarUnderTest under_test;
  const auto grammar = under_test.Compile(MakeConstraint(
      Constraint::Kind::kJsonSchema, R"({"oneOf":[{"type":"number"},{"type":"integer"}]})"));
  CHECK(absl::IsInvalidArgument(grammar.status()));
}

}  // namespace
}  // namespace fastgen
