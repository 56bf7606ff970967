#include "engine/text/answer_parser.h"

#include <algorithm>
#include <random>

#include "tests/engine/text/parsed_answer.h"

// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#undef CHECK
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

using testing::EveryByte;
using testing::Parse;
using testing::ParsedAnswer;
using testing::ToString;

struct Call {
  std::string name;
  std::string arguments;
  std::string id = "";  // "": drawn
};

// An answer and what it is.
struct Transcript {
  std::string claim;
  AnswerParserOptions options;
  std::string text;
  std::string reasoning;
  std::string content;
  std::vector<Call> calls;
  int32_t num_incomplete = 0;
};

constexpr AnswerParserOptions kHermes{.tool_calls = ToolCallFormat::kHermes, .id_seed = 1};
constexpr AnswerParserOptions kLlama{.tool_calls = ToolCallFormat::kLlama3Json, .id_seed = 2};
constexpr AnswerParserOptions kMistral{.tool_calls = ToolCallFormat::kMistral, .id_seed = 3};
constexpr AnswerParserOptions kThink{.reasoning = ReasoningFormat::kThink};
constexpr AnswerParserOptions kThinkOpen{.reasoning = ReasoningFormat::kThink,
                                         .reasoning_open = true};
constexpr AnswerParserOptions kQwen3{.reasoning = ReasoningFormat::kThink,
                                     .tool_calls = ToolCallFormat::kHermes};

const std::vector<Transcript>& Transcripts() {
  static const auto* const transcripts = new std::vector<Transcript>{
      // ---- hermes
      {"plain text is content", kHermes, "It is <b>sunny</b> < 30 degrees.\n", "",
       "It is <b>sunny</b> < 30 degrees.\n", {}},
      {"one call", kHermes,
       "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>",
       "", "", {{"get_weather", "{\"city\": \"Rome\"}"}}},
      {"text around two calls", kHermes,
       "Let me look.\n\n<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
       "{\"name\": \"b\", \"arguments\": {\"x\": [1, {\"y\": null}]}}\n</tool_call>\nDone.",
       "", "Let me look.Done.", {{"a", "{}"}, {"b", "{\"x\": [1, {\"y\": null}]}"}}},
      {"arguments before the name wait for it", kHermes,
       "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"late\"}</tool_call>", "", "",
       {{"late", "{\"a\": 1}"}}},
      {"the closing tag may be missing", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}", "", "", {{"f", "{\"a\": 1}"}}},
      {"a closing tag that was cut is dropped", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool", "", "",
       {{"f", "{\"a\": 1}"}}},
      {"the next tag may stand for the closing one", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}}\n<tool_call>{\"name\": \"g\", \"arguments\": "
       "{}}</tool_call>",
       "", "", {{"f", "{}"}, {"g", "{}"}}},
      {"markers in strings are text", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call> <tool_call> \\\" } {\"}}"
       "</tool_call>",
       "", "", {{"f", "{\"a\": \"</tool_call> <tool_call> \\\" } {\"}"}}},
      {"a call without arguments has none", kHermes, "<tool_call>{\"name\": \"now\"}</tool_call>",
       "", "", {{"now", "{}"}}},
      {"other members are passed over", kHermes,
       "<tool_call>{\"id\": \"x1\", \"name\": \"f\", \"arguments\": {}, \"more\": {\"name\": "
       "\"g\"}}</tool_call>",
       "", "", {{"f", "{}", "x1"}}},
      {"characters of several bytes and escapes are kept as written", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"città\": \"\\u00e8 🙂\"}}</tool_call> 🙂",
       "", "🙂", {{"f", "{\"città\": \"\\u00e8 🙂\"}"}}},
      {"bad JSON is content", kHermes, "Hm \n<tool_call>\n{name: f}\n</tool_call> yes", "",
       "Hm \n<tool_call>\n{name: f}\n</tool_call> yes", {}},
      {"another shape is content", kHermes, "<tool_call>[1]</tool_call>", "",
       "<tool_call>[1]</tool_call>", {}},
      {"an object without a name is content", kHermes,
       "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>", "",
       "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>", {}},
      {"arguments that are no object are content", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}</tool_call>", "",
       "<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}</tool_call>", {}},
      {"what was cut before its arguments is content", kHermes,
       "<tool_call>\n{\"name\": \"get_wea", "", "<tool_call>\n{\"name\": \"get_wea", {}},
      {"a marker that was cut is content", kHermes, "so \n<tool_ca", "", "so \n<tool_ca", {}},
      {"arguments that were cut are an incomplete call", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [1, ", "", "",
       {{"f", "{\"a\": [1, "}}, 1},
      {"bad JSON in arguments ends the call and is content", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": oops}}</tool_call>", "",
       "oops}}</tool_call>", {{"f", "{\"a\": "}}, 1},
      {"a brace that is missing after the arguments", kHermes,
       "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}\n</tool_call>\n<tool_call>\n"
       "{\"name\": \"g\", \"arguments\": {},\n</tool_call> ok",
       "", "ok", {{"f", "{\"a\": 1}"}, {"g", "{}"}}},
      {"a brace that is missing before the next tag", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}\n<tool_call>{\"name\": \"g\", "
       "\"arguments\": {}}</tool_call>",
       "", "", {{"f", "{}"}, {"g", "{}"}}},
      {"a brace too many", kHermes,
       "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}}\n</tool_call>\nok", "", "ok",
       {{"f", "{\"a\": 1}"}}},
      {"brackets, braces and commas too many", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}} ]},\n} </tool_call>ok", "", "ok",
       {{"f", "{}"}}},
      {"a brace too many and a closing tag that was cut", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}}}\n</tool_", "", "", {{"f", "{}"}}},
      {"a brace too many at the end", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}}}", "", "", {{"f", "{}"}}},
      {"a brace too many and no closing tag is content", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}}}\n</tool> ok", "", "}\n</tool> ok",
       {{"f", "{}"}}},
      {"as many braces as may be too many", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}}" + std::string(64, '}') + "</tool_call>",
       "", "", {{"f", "{}"}}},
      {"more braces than may be too many are content", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}}" + std::string(65, '}') + "</tool_call>",
       "", std::string(65, '}') + "</tool_call>", {{"f", "{}"}}},
      {"bad JSON behind complete arguments is content", kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}, oops}</tool_call>", "",
       "oops}</tool_call>", {{"f", "{}"}}},
      {"a call after a broken one is found", kHermes,
       "<tool_call>{]<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>", "",
       "<tool_call>{]", {{"g", "{}"}}},
      {"a tag right after a tag begins the call", kHermes,
       "<tool_call><tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>", "", "<tool_call>",
       {{"g", "{}"}}},
      // ---- llama3_json
      {"the answer is one object", kLlama,
       "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rome\"}}", "", "",
       {{"get_weather", "{\"city\": \"Rome\"}"}}},
      {"blanks and a type may come first", kLlama,
       "\n\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}\n", "", "", {{"f", "{}"}}},
      {"semicolons separate objects", kLlama,
       "{\"name\": \"f\", \"parameters\": {\"a\": \";\"}}; {\"name\": \"g\", \"arguments\": {}};", "",
       "", {{"f", "{\"a\": \";\"}"}, {"g", "{}"}}},
      {"a brace missing and a brace too many around semicolons", kLlama,
       "{\"name\": \"f\", \"parameters\": {}; {\"name\": \"g\", \"parameters\": {}}}; {\"name\": "
       "\"h\", \"parameters\": {}}}",
       "", "", {{"f", "{}"}, {"g", "{}"}, {"h", "{}"}}},
      {"a brace too many and text is content", kLlama,
       "{\"name\": \"f\", \"parameters\": {}}} ok", "", "} ok", {{"f", "{}"}}},
      {"an object that does not begin the answer is text", kLlama,
       "Sure: {\"name\": \"f\", \"parameters\": {}}", "",
       "Sure: {\"name\": \"f\", \"parameters\": {}}", {}},
      {"an answer in JSON is content", kLlama, "{\"answer\": 42, \"name\": \"x\"}", "",
       "{\"answer\": 42, \"name\": \"x\"}", {}},
      {"a name alone is no call", kLlama, "{\"name\": \"Bob\"}", "", "{\"name\": \"Bob\"}", {}},
      {"text after a semicolon is content", kLlama,
       "{\"name\": \"f\", \"parameters\": {}}; and so on", "", "; and so on", {{"f", "{}"}}},
      {"text after the object is content", kLlama, "{\"name\": \"f\", \"parameters\": {}}\nok", "",
       "ok", {{"f", "{}"}}},
      {"the tag before an object", kLlama,
       "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"q\": 1}}", "", "", {{"f", "{\"q\": 1}"}}},
      {"the tag before several objects", kLlama,
       "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}",
       "", "", {{"f", "{}"}, {"g", "{}"}}},
      {"the tag before a tool that the model knows", kLlama,
       "<|python_tag|>brave_search.call(query=\"Rome, \\\"today\\\" (now)\", n=3)", "", "",
       {{"brave_search", "{\"query\": \"Rome, \\\"today\\\" (now)\", \"n\": 3}"}}},
      {"a tool that the model knows, without arguments", kLlama, "<|python_tag|>now.call( )\n", "",
       "", {{"now", "{}"}}},
      {"the tag before Python", kLlama, "On it.\n<|python_tag|>print(\"é\\n\")\nx = 1\n", "",
       "On it.", {{"python", "{\"code\": \"print(\\\"é\\\\n\\\")\\nx = 1\\n\"}"}}},
      {"Python that begins like a tool", kLlama, "<|python_tag|>a.call(x)[0]", "", "",
       {{"python", "{\"code\": \"a.call(x)[0]\"}"}}},
      {"Python that is as short as a name", kLlama, "<|python_tag|>x", "", "",
       {{"python", "{\"code\": \"x\"}"}}},
      {"the tag alone is content", kLlama, "<|python_tag|>", "", "<|python_tag|>", {}},
      // ---- mistral
      {"a list of one", kMistral,
       "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}]", "", "",
       {{"get_weather", "{\"city\": \"Rome\"}"}}},
      {"a list of two with ids, and text before", kMistral,
       "I look. [TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}, \"id\": \"abc\"}, {\"id\": "
       "\"012345678\", \"name\": \"g\", \"arguments\": {\"a\": \"]\"}}]",
       "", "I look.", {{"f", "{}"}, {"g", "{\"a\": \"]\"}", "012345678"}}},
      {"a list that was cut", kMistral, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, ", "",
       "", {{"f", "{}"}}},
      {"a second item that is none", kMistral,
       "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, 7] x", "", ", 7] x", {{"f", "{}"}}},
      {"a comma after the last item", kMistral,
       "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}, ] ok", "", "ok",
       {{"f", "{\"a\": 1}"}}},
      {"braces missing in a list", kMistral,
       "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}] ok", "", "ok",
       {{"f", "{\"a\": 1}"}}},
      {"braces too many in a list", kMistral,
       "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}}, {\"name\": \"g\", \"arguments\": {}}} "
       "}\n] ok",
       "", "ok", {{"f", "{}"}, {"g", "{}"}}},
      {"a brace too many in a list and text is content", kMistral,
       "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}} x", "", "} x", {{"f", "{}"}}},
      {"an empty list is content", kMistral, "[TOOL_CALLS][]", "", "[TOOL_CALLS][]", {}},
      {"the name, then the arguments", kMistral, "[TOOL_CALLS]get_weather{\"city\": \"Rome\"}", "",
       "", {{"get_weather", "{\"city\": \"Rome\"}"}}},
      {"the name, the mark, the arguments, twice", kMistral,
       "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[CALL_ID]abcdefghi[ARGS] {}", "", "",
       {{"f", "{\"a\": 1}"}, {"g", "{}", "abcdefghi"}}},
      {"a marker in prose is content", kMistral, "The token [TOOL_CALLS] is a marker. [TOOL", "",
       "The token [TOOL_CALLS] is a marker. [TOOL", {}},
      {"an unknown mark is content", kMistral, "[TOOL_CALLS]f[ARGX]{}", "", "[TOOL_CALLS]f[ARGX]{}",
       {}},
      {"arguments after a name that were cut", kMistral, "[TOOL_CALLS]f{\"a\": ", "", "",
       {{"f", "{\"a\": "}}, 1},
      // ---- reasoning
      {"reasoning and answer", kThink, "<think>\nHm.\n\n</think>\n\nFour.\n", "Hm.", "Four.\n", {}},
      {"blanks before the tag", kThink, "\n\n<think>a</think>b", "a", "b", {}},
      {"no reasoning", kThink, " Four < five </think>", "", " Four < five </think>", {}},
      {"a tag that is quoted is text", kThink, "The tag <think>x</think> opens it.", "",
       "The tag <think>x</think> opens it.", {}},
      {"reasoning that does not end", kThink, "<think>and so on \n", "and so on \n", "", {}},
      {"empty reasoning", kThink, "<think>\n\n</think>\n\nyes", "", "yes", {}},
      {"a closing tag that was cut", kThink, "<think>a\n</thin", "a\n</thin", "", {}},
      {"the prompt has opened it", kThinkOpen, "\nHm. 1 < 2\n</think>\n\nFour.", "Hm. 1 < 2",
       "Four.", {}},
      {"the prompt has opened it and the model opens it again", kThinkOpen,
       "<think>\nHm.</think>Four.", "Hm.", "Four.", {}},
      {"the prompt has opened it and nothing closes it", kThinkOpen, "Hm.", "Hm.", "", {}},
      {"a second opening is reasoning", kThink, "<think>a <think> b</think>c", "a <think> b", "c",
       {}},
      {"calls after reasoning", kQwen3,
       "<think>\nI need <tool_call>.\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
       "{}}\n</tool_call>",
       "I need <tool_call>.", "", {{"f", "{}"}}},
      {"nothing", kQwen3, "", "", "", {}},
  };
  return *transcripts;
}

void CheckTranscript(const Transcript& transcript, const ParsedAnswer& parsed) {
  CHECK(parsed.whole.reasoning == transcript.reasoning);
  CHECK(parsed.whole.content == transcript.content);
  REQUIRE(parsed.whole.tool_calls.size() == transcript.calls.size());
  CHECK(parsed.num_calls ==
        static_cast<int32_t>(transcript.calls.size()) - transcript.num_incomplete);
  for (size_t i = 0; i < transcript.calls.size(); ++i) {
    const ToolCallDelta& call = parsed.whole.tool_calls[i];
    CHECK(call.index == static_cast<int32_t>(i));
    CHECK(call.name == transcript.calls[i].name);
    CHECK(call.arguments == transcript.calls[i].arguments);
    if (!transcript.calls[i].id.empty()) CHECK(call.id == transcript.calls[i].id);
    CHECK_FALSE(call.id.empty());
  }
}

TEST_CASE("transcripts come apart as they should, in one piece and byte by byte", "[text]") {
  for (const Transcript& transcript : Transcripts()) {
    INFO(transcript.claim << ": " << transcript.text);
    CheckTranscript(transcript, Parse(transcript.options, transcript.text));
    CheckTranscript(transcript,
                    Parse(transcript.options, transcript.text, EveryByte(transcript.text)));
  }
}

TEST_CASE("any two cuts of a transcript give the same answer", "[text]") {
  for (const Transcript& transcript : Transcripts()) {
    const std::string whole = ToString(Parse(transcript.options, transcript.text));
    for (size_t i = 0; i <= transcript.text.size(); ++i) {
      for (size_t j = i; j <= transcript.text.size(); ++j) {
        const std::string cut = ToString(Parse(transcript.options, transcript.text, {i, j}));
        if (cut == whole) continue;
        INFO(transcript.claim << ": " << transcript.text << " cut at " << i << " and " << j);
        REQUIRE(cut == whole);
      }
    }
  }
}

// Fragments of every marker and shape, in any order.
std::string RandomGarbage(std::mt19937* random) {
  static const char* const kFragments[] = {
      "<tool_call>", "</tool_call>", "<tool_", "call>", "<", "</", "\n", " ", "{", "}", "[", "]", ",",
      ":", ";", "\"", "\\", "\"name\": \"f\"", "\"name\"", "\"arguments\": {", "\"parameters\": {}",
      "\"id\": \"x\"", "{\"name\": \"f\", \"arguments\": {\"a\": 1}}", "[TOOL_CALLS]", "[TOOL_",
      "CALLS]", "[ARGS]", "[CALL_ID]", "f", "<|python_tag|>", "<|python", "_tag|>", "x.call(", "a=1",
      ")", "<think>", "</think>", "<thi", "nk>", "é", "🙂", "null", "-1.5e3", "tru", "\\u00e8",
      "          "};
  std::uniform_int_distribution<size_t> fragment(0, std::size(kFragments) - 1);
  std::string text;
  for (size_t n = (*random)() % 16; n > 0; --n) text += kFragments[fragment(*random)];
  return text;
}

TEST_CASE("garbage made of markers is split-invariant, and loses nothing in text mode", "[text]") {
  std::mt19937 random(7);
  for (int run = 0; run < 30000; ++run) {
    const std::string text = RandomGarbage(&random);
    AnswerParserOptions options;
    options.tool_calls = static_cast<ToolCallFormat>(random() % 4);
    options.reasoning = static_cast<ReasoningFormat>(random() % 2);
    options.reasoning_open = random() % 2 == 0;
    const std::string whole = ToString(Parse(options, text));
    std::vector<size_t> cuts;
    for (size_t i = 1; i < text.size(); ++i) {
      if (random() % 3 == 0) cuts.push_back(i);
    }
    const std::string bytes = ToString(Parse(options, text, EveryByte(text)));
    const std::string some = ToString(Parse(options, text, cuts));
    if (bytes == whole && some == whole) continue;
    INFO(text);
    REQUIRE(bytes == whole);
    REQUIRE(some == whole);
  }
}

TEST_CASE("without parsers an answer is its text", "[text]") {
  std::mt19937 random(8);
  for (int run = 0; run < 1000; ++run) {
    const std::string text = RandomGarbage(&random);
    REQUIRE(Parse({}, text).whole.content == text);
  }
}

TEST_CASE("a long text is given out at once but for what may be a marker", "[text]") {
  AnswerParser parser(kHermes);
  AnswerDelta delta;
  parser.Push("some text \n<tool", &delta);
  CHECK(delta.content == "some text");
  parser.Push(" box", &delta);
  CHECK(delta.content == "some text \n<tool box");
}

TEST_CASE("arguments are given out as they come", "[text]") {
  AnswerParser parser(kHermes);
  AnswerDelta delta;
  parser.Push("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b", &delta);
  REQUIRE(delta.tool_calls.size() == 1);
  CHECK(delta.tool_calls[0].name == "f");
  CHECK(delta.tool_calls[0].arguments == "{\"a\": \"b");
  CHECK(parser.num_calls() == 0);
  delta = {};
  parser.Push("c\"}", &delta);
  REQUIRE(delta.tool_calls.size() == 1);
  CHECK(delta.tool_calls[0].name.empty());
  CHECK(delta.tool_calls[0].arguments == "c\"}");
  CHECK(parser.num_calls() == 1);
}

TEST_CASE("what waits for its name is bounded, and content beyond the bound", "[text]") {
  for (const std::string opening :
       {"<tool_call>", "<tool_call>{\"name\": \"", "<tool_call>{\"arguments\": {\"a\": \""}) {
    const std::string filler(ToolCallParser::kMaxHeldBytes + 10, opening.size() < 12 ? ' ' : 'x');
    AnswerParser parser(kHermes);
    AnswerDelta delta;
    parser.Push(opening + filler, &delta);
    CHECK(delta.content.size() >= ToolCallParser::kMaxHeldBytes);
    parser.Push("!", &delta);
    parser.Finish(&delta);
    CHECK(delta.content == opening + filler + "!");
    CHECK(delta.tool_calls.empty());
  }
}

TEST_CASE("a run of blanks does not hold the text back", "[text]") {
  const std::string blanks(10000, '\n');
  for (const AnswerParserOptions& options : {kHermes, kMistral}) {
    AnswerParser parser(options);
    AnswerDelta delta;
    parser.Push("a" + blanks, &delta);
    CHECK(delta.content.size() + MarkerScanner::kMaxBlanks == 1 + blanks.size());
  }
}

TEST_CASE("ids are drawn in the shape of the family, from the seed alone", "[text]") {
  const std::string two = "<tool_call>{\"name\": \"f\"}</tool_call><tool_call>{\"name\": \"g\"}";
  const ParsedAnswer first = Parse(kHermes, two);
  REQUIRE(first.whole.tool_calls.size() == 2);
  CHECK(first.whole.tool_calls[0].id.substr(0, 5) == "call_");
  CHECK(first.whole.tool_calls[0].id.size() == 29);
  CHECK(first.whole.tool_calls[0].id != first.whole.tool_calls[1].id);
  CHECK(ToString(Parse(kHermes, two)) == ToString(first));
  AnswerParserOptions other = kHermes;
  other.id_seed = 99;
  CHECK(ToString(Parse(other, two)) != ToString(first));

  const ParsedAnswer mistral = Parse(kMistral, "[TOOL_CALLS]f{}");
  REQUIRE(mistral.whole.tool_calls.size() == 1);
  const std::string id = mistral.whole.tool_calls[0].id;
  CHECK(id.size() == 9);
  CHECK(std::all_of(id.begin(), id.end(), [](char c) { return std::isalnum(c) != 0; }));
}

TEST_CASE("where only calls can come, the head of one that is cut is nobody's", "[text]") {
  struct Row {
    ToolCallFormat format;
    std::string whole;
  };
  for (const Row& row : {
           Row{ToolCallFormat::kHermes,
               "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n"
               "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>"},
           Row{ToolCallFormat::kLlama3Json,
               "{\"name\": \"f\", \"parameters\": {\"a\": 1}}; "
               "{\"name\": \"f\", \"parameters\": {\"a\": 1}}"},
           Row{ToolCallFormat::kMistral,
               "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, "
               "{\"name\": \"f\", \"arguments\": {\"a\": 1}}]"},
       }) {
    AnswerParserOptions options{.tool_calls = row.format, .calls_only = true, .id_seed = 1};
    for (size_t size = 0; size <= row.whole.size(); ++size) {
      AnswerParser parser(options);
      AnswerDelta answer;
      parser.Push(row.whole.substr(0, size), &answer);
      parser.Finish(&answer);
      INFO(row.whole.substr(0, size));
      CHECK(answer.content.empty());
    }
  }
}

TEST_CASE("reasoning is known while it lasts", "[text]") {
  AnswerParser parser(kThink);
  AnswerDelta delta;
  CHECK(parser.may_reason());
  CHECK_FALSE(parser.has_reasoned());
  parser.Push("<think>a", &delta);
  CHECK(parser.may_reason());
  CHECK(parser.has_reasoned());
  parser.Push("</think>", &delta);
  CHECK_FALSE(parser.may_reason());
  CHECK(parser.has_reasoned());

  AnswerParser plain(kThink);
  plain.Push("no", &delta);
  CHECK_FALSE(plain.may_reason());
  CHECK_FALSE(plain.has_reasoned());
  CHECK(AnswerParser(kThinkOpen).has_reasoned());
  CHECK_FALSE(AnswerParser(kHermes).may_reason());
}

TEST_CASE("a prompt that ends in an opening tag opens the reasoning", "[text]") {
  CHECK(OpensReasoning("<|Assistant|><think>\n"));
  CHECK(OpensReasoning("<think>"));
  CHECK_FALSE(OpensReasoning("<think>\n\n</think>\n\n"));
  CHECK_FALSE(OpensReasoning("<think> a"));
  CHECK_FALSE(OpensReasoning("think>"));
  CHECK_FALSE(OpensReasoning(""));
}

}  // namespace
}  // namespace fastgen
