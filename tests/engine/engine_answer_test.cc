// Reasoning and tool calls on their way through the engine: who is asked, what the deltas hold,
// what is counted, and how stop strings and special tokens meet the markers.
#include "engine/engine.h"
#include "tests/testing/engine_under_test.h"

namespace fastgen {
namespace {

using testing::Bytes;
using testing::EngineUnderTest;
using testing::EngineUnderTestOptions;
using testing::FakeTokenizer;
using testing::MakeEngineUnderTest;
using testing::MakeRequest;
using testing::RecordingSink;
using testing::Says;

constexpr char kAnswer[] =
    "<think>\nHm.\n</think>\n\nSee: <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";

EngineUnderTestOptions Qwen3() {
  EngineUnderTestOptions options;
  options.parsers.tool_calls = ToolCallFormat::kHermes;
  options.parsers.reasoning = ReasoningFormat::kThink;
  return options;
}

GenerateRequest ParsedRequest(const std::string& prompt = "p") {
  GenerateRequest request = MakeRequest("a", Bytes(prompt));
  request.output.reasoning = true;
  request.output.tool_calls = true;
  return request;
}

struct Answer {
  std::string reasoning;
  std::string text;
  std::vector<ToolCallDelta> calls;
  FinishInfo finish;
  size_t num_ids = 0;
};

Answer Run(EngineUnderTest& fake, GenerateRequest request) {
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(std::move(request), sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.num_calls_out_of_order == 0);
  Answer answer;
  for (const TokenDelta& delta : record.deltas) {
    answer.reasoning += delta.reasoning;
    answer.text += delta.text;
    for (const ToolCallDelta& call : delta.tool_calls) {
      if (call.name.empty()) {
        REQUIRE(!answer.calls.empty());
        answer.calls.back().arguments += call.arguments;
      } else {
        answer.calls.push_back(call);
      }
    }
  }
  answer.finish = *record.finished;
  answer.num_ids = record.ids().size();
  return answer;
}

TEST_CASE("reasoning, content and calls come apart, and reasoning is counted", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest(Qwen3(), Says(Bytes(kAnswer)));
  CHECK(fake->model_info().tool_call_parser == "hermes");
  CHECK(fake->model_info().reasoning_parser == "think");
  const Answer answer = Run(fake, ParsedRequest());
  CHECK(answer.reasoning == "Hm.");
  CHECK(answer.text == "See:");
  REQUIRE(answer.calls.size() == 1);
  CHECK(answer.calls[0].name == "f");
  CHECK(answer.calls[0].arguments == "{\"a\": 1}");
  CHECK(answer.calls[0].id.size() == 29);
  CHECK(answer.finish.num_tool_calls == 1);
  CHECK(answer.finish.reason == FinishReason::kStop);
  // Up to the closing tag, a byte a token.
  CHECK(answer.finish.usage.reasoning_tokens ==
        static_cast<int32_t>(std::string("<think>\nHm.\n</think>").size()));
  CHECK(answer.num_ids == sizeof(kAnswer));  // with <eos>
}

TEST_CASE("nothing is parsed unless it is asked for", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest(Qwen3(), Says(Bytes(kAnswer)));
  const Answer raw = Run(fake, MakeRequest("a", Bytes("p")));
  CHECK(raw.text == kAnswer);
  CHECK(raw.finish.usage.reasoning_tokens == 0);
  CHECK(raw.finish.num_tool_calls == 0);
  GenerateRequest request = MakeRequest("b", Bytes("p"));
  request.output.reasoning = true;
  const Answer split = Run(fake, request);
  CHECK(split.reasoning == "Hm.");
  CHECK(split.text.find("<tool_call>") != std::string::npos);
}

TEST_CASE("a prompt that opens the reasoning is enough", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest(Qwen3(), Says(Bytes("Hm.\n</think>\nYes.")));
  const Answer opened = Run(fake, ParsedRequest("user: why?\n<think>\n"));
  CHECK(opened.reasoning == "Hm.");
  CHECK(opened.text == "Yes.");
  const Answer closed = Run(fake, ParsedRequest("why?<think>\n\n</think>\n\n"));
  CHECK(closed.reasoning.empty());
  CHECK(closed.text == "Hm.\n</think>\nYes.");
  CHECK(closed.finish.usage.reasoning_tokens == 0);
}

TEST_CASE("a model without parsers refuses calls by name, and has no reasoning", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes(kAnswer)));
  CHECK(fake->model_info().tool_call_parser == "none");
  auto sink = std::make_shared<RecordingSink>();
  const absl::Status status = fake->Submit(ParsedRequest(), sink);
  CHECK(absl::IsInvalidArgument(status));
  CHECK(std::string(status.message()).rfind("output.tool_calls: ", 0) == 0);
  GenerateRequest request = ParsedRequest();
  request.output.tool_calls = false;
  CHECK(Run(fake, request).text == kAnswer);
}

TEST_CASE("stop strings are searched in all that the model wrote, markers included", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest(Qwen3(), Says(Bytes(kAnswer)));
  GenerateRequest request = ParsedRequest();
  request.stopping.stop = {"m."};
  Answer answer = Run(fake, request);
  CHECK(answer.reasoning == "H");
  CHECK(answer.text.empty());
  CHECK(answer.finish.matched_stop == "m.");
  CHECK(answer.finish.usage.output_tokens == 11);
  CHECK(answer.finish.usage.reasoning_tokens == 11);
  request.stopping.stop = {"</think>"};
  answer = Run(fake, request);
  CHECK(answer.reasoning == "Hm.\n");
  CHECK(answer.text.empty());
  request.stopping.stop = {"</tool_call>"};
  answer = Run(fake, request);
  REQUIRE(answer.calls.size() == 1);
  CHECK(answer.calls[0].arguments == "{\"a\": 1}");
  CHECK(answer.finish.num_tool_calls == 1);
  request.stopping.stop = {" 1}"};
  answer = Run(fake, request);
  REQUIRE(answer.calls.size() == 1);
  CHECK(answer.calls[0].arguments == "{\"a\":");
  CHECK(answer.finish.num_tool_calls == 0);
}

TEST_CASE("a choice's calls have ids of their own", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest(Qwen3(), Says(Bytes(kAnswer)));
  GenerateRequest request = ParsedRequest();
  request.n = request.best_of = 2;
  auto sink = std::make_shared<RecordingSink>(2);
  REQUIRE(fake->Submit(request, sink).ok());
  std::vector<std::string> ids;
  for (const TokenDelta& delta : sink->WaitForEnd().deltas) {
    for (const ToolCallDelta& call : delta.tool_calls) {
      if (!call.id.empty()) ids.push_back(call.id);
    }
  }
  REQUIRE(ids.size() == 2);
  CHECK(ids[0] != ids[1]);
}

// <eos> and <bos> are special; here they are the model's markers.
TEST_CASE("special tokens that are markers reach the parser and nobody else", "[engine]") {
  EngineUnderTestOptions options;
  options.parsers.tool_calls = ToolCallFormat::kHermes;
  options.parsers.tool_call_markers = {FakeTokenizer::kBos};
  std::vector<int32_t> ids = {FakeTokenizer::kBos, 'x'};
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(ids));
  // "<bos>" begins like no marker, so it is seen as content: the parser was given it.
  CHECK(Run(fake, ParsedRequest()).text == "<bos>x");
  CHECK(Run(fake, MakeRequest("b", Bytes("p"))).text == "x");
}

TEST_CASE("an unfinished call is content at the end, with its tokens", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest(Qwen3(), Says(Bytes("<tool_call>{\"name\": \"f\"")));
  GenerateRequest request = ParsedRequest();
  request.output.token_ids = true;
  const Answer answer = Run(fake, request);
  CHECK(answer.text == "<tool_call>{\"name\": \"f\"");
  CHECK(answer.calls.empty());
  CHECK(answer.finish.num_tool_calls == 0);
  CHECK(answer.num_ids == answer.text.size() + 1);
}

}  // namespace
}  // namespace fastgen
