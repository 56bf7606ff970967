// Calls of tools as a constraint: what may come is what the model's parser reads as calls.
#include <string>

#include "engine/text/answer_parser.h"
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
using Kind = Constraint::Kind;

const std::vector<std::string> kTools = {
    R"({"type":"function","function":{"name":"get_weather","parameters":{"type":"object",
        "properties":{"city":{"type":"string"}},"required":["city"]}}})",
    R"({"type":"function","function":{"name":"now"}})"};

struct Example {
  ToolCallStyle style;
  std::string one;   // a call of get_weather
  std::string two;   // and one of now
  std::string text;  // before calls, where they are optional
};

const Example kExamples[] = {
    {{ToolCallFormat::kHermes, false},
     "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>",
     "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>\n"
     "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
     "Let me look. "},
    {{ToolCallFormat::kLlama3Json, false},
     "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rome\"}}",
     "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rome\"}}; {\"name\": \"now\", "
     "\"parameters\": {}}",
     ""},
    {{ToolCallFormat::kMistral, false},
     "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}]",
     "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}, {\"name\": "
     "\"now\", \"arguments\": {}}]",
     "Let me look. "},
    {{ToolCallFormat::kMistral, true},
     "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Rome\"}",
     "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Rome\"}[TOOL_CALLS]now[ARGS]{}",
     "Let me look. "},
};

int32_t NumCalls(const ToolCallStyle& style, const std::string& text) {
  AnswerParserOptions options;
  options.tool_calls = style.format;
  AnswerParser parser(options);
  AnswerDelta delta;
  parser.Push(text, &delta);
  parser.Finish(&delta);
  return parser.num_calls();
}

TEST_CASE("forced calls are what the model's parser reads, one or more, or exactly one", "[text]") {
  const GrammarUnderTest under_test;
  for (const Example& example : kExamples) {
    INFO(example.one);
    CHECK(NumCalls(example.style, example.one) == 1);
    CHECK(NumCalls(example.style, example.two) == 2);
    Constraint calls = MakeConstraint(Kind::kToolCalls);
    CHECK(under_test.IsWhole(calls, example.one, kTools, example.style));
    CHECK(under_test.IsWhole(calls, example.two, kTools, example.style));
    CHECK(under_test.FitOf(calls, "Hello", kTools, example.style) == Fit::kNo);
    calls.single = true;
    CHECK(under_test.IsWhole(calls, example.one, kTools, example.style));
    CHECK(under_test.FitOf(calls, example.two, kTools, example.style) == Fit::kNo);
    calls.tool = "now";
    CHECK(under_test.FitOf(calls, example.one, kTools, example.style) == Fit::kNo);
  }
}

TEST_CASE("optional calls leave text free, but what begins as a call is a valid one", "[text]") {
  const GrammarUnderTest under_test;
  for (const Example& example : kExamples) {
    INFO(example.one);
    Constraint calls = MakeConstraint(Kind::kToolCalls);
    calls.optional = true;
    CHECK(under_test.IsWhole(calls, "It rains.", kTools, example.style));
    CHECK(under_test.IsWhole(calls, example.text + example.one, kTools, example.style));
    CHECK(under_test.IsWhole(calls, example.text + example.two, kTools, example.style));
    const size_t name = example.one.find("get_weather");
    std::string wrong = example.text + example.one;
    wrong[example.text.size() + name] = 'x';
    CHECK(under_test.FitOf(calls, wrong, kTools, example.style) == Fit::kNo);
    const size_t value = example.one.find("\"Rome");
    std::string bad_argument = example.text + example.one;
    bad_argument[example.text.size() + value] = '1';
    CHECK(under_test.FitOf(calls, bad_argument, kTools, example.style) == Fit::kNo);
  }
}

TEST_CASE("an answer may be the schema's or calls instead", "[text]") {
  const GrammarUnderTest under_test;
  for (const Example& example : kExamples) {
    Constraint schema =
        MakeConstraint(Kind::kJsonSchema, R"({"type":"array","items":{"type":"integer"}})");
    schema.or_tool_calls = true;
    CHECK(under_test.IsWhole(schema, "[1, 2]", kTools, example.style));
    CHECK(under_test.IsWhole(schema, example.two, kTools, example.style));
    CHECK(under_test.FitOf(schema, "It", kTools, example.style) == Fit::kNo);
  }
}

TEST_CASE("rules over token ids and attributes of rules are refused", "[text]") {
  const auto refused = [](Constraint::Kind kind, const char* text) {
    return absl::IsInvalidArgument(MakeStructuralTag(MakeConstraint(kind, text), {}, {}).status());
  };
  CHECK(refused(Kind::kGrammar, "root ::= Token(256)"));
  CHECK(refused(Kind::kGrammar, "root ::= ExcludeToken(256)"));
  CHECK(refused(Kind::kGrammar, "root[temperature=2] ::= \"a\""));
  CHECK_FALSE(refused(Kind::kGrammar, "root ::= \"Token(1)\" [a-z]\nx ::= \"b\""));
  CHECK(refused(Kind::kStructuralTag, R"({"format":{"type":"token","token":256}})"));
  CHECK(refused(Kind::kStructuralTag,
                R"({"format":{"type":"sequence","elements":[{"type":"any_tokens"}]}})"));
  CHECK(refused(Kind::kStructuralTag,
                R"json({"format":{"type":"grammar","grammar":"root ::= Token(2)"}})json"));
  CHECK(refused(
      Kind::kStructuralTag,
      R"({"format":{"type":"json_schema","json_schema":{"type":"array","uniqueItems":true}}})"));
}

TEST_CASE("calls that cannot be made are refused by name", "[text]") {
  Constraint calls = MakeConstraint(Kind::kToolCalls);
  const ToolCallStyle hermes{ToolCallFormat::kHermes, false};
  CHECK(absl::IsFailedPrecondition(MakeStructuralTag(calls, kTools, {}).status()));
  CHECK(MakeStructuralTag(calls, {}, hermes).status().message() ==
        "constraint.tool_calls: the request has no tools");
  calls.tool = "fly";
  CHECK(MakeStructuralTag(calls, kTools, hermes).status().message() ==
        "constraint.tool_calls.name: no tool is called \"fly\"");
  calls.tool = "";
  const auto bad =
      MakeStructuralTag(calls, {R"({"function":{"name":"f","parameters":{"not":{}}}})"}, hermes);
  CHECK(bad.status().message() == "chat.tools_json[0].parameters: #: not is not supported");
  CHECK_FALSE(MakeStructuralTag(calls, {"{}"}, hermes).ok());
  CHECK_FALSE(MakeStructuralTag(calls, {"["}, hermes).ok());
}

}  // namespace
}  // namespace fastgen
