#include "server/gateway/answer_items.h"

#include <catch2/catch.hpp>
#include <utility>

#include "tests/server/gateway/answer_scripts.h"

namespace fastgen::gateway {
namespace {

using testing::CallEvent;
using testing::DeltaEvent;
using testing::ReasoningEvent;

// What a listener heard, as text: "<0:kind", "|piece", ">".
class Heard final : public AnswerItems::Listener {
 public:
  void OnOpen(const AnswerItem& item) override {
    const char* kinds[] = {"reasoning", "text", "call"};
    log += "<" + std::to_string(item.index) + ":" + kinds[static_cast<int>(item.kind)] +
           (item.call_name.empty() ? "" : " " + item.call_id + " " + item.call_name);
    summed.emplace_back();
  }
  void OnPiece(const AnswerItem& item, std::string_view piece, std::string_view logprobs) override {
    log += "|" + std::string(piece);
    if (!logprobs.empty()) log += "#";
    summed[item.index] += piece;
  }
  void OnClose(const AnswerItem&) override { log += ">"; }

  std::string log;
  std::vector<std::string> summed;
};

std::string Hear(const std::vector<v1::GenerateEvent>& events,
                 AnswerItems::Calls calls = AnswerItems::Calls::kAll) {
  AnswerItems items(calls);
  Heard heard;
  for (const auto& event : events) items.Add(event.delta(), &heard);
  items.Finish(&heard);
  return heard.log;
}

v1::GenerateEvent WithLogprob(v1::GenerateEvent event) {
  *event.mutable_delta()->add_logprobs() = testing::LogprobOf("x", -1);
  return event;
}

TEST_CASE("parts begin where the kind changes and end before the next", "[gateway]") {
  CHECK(Hear({ReasoningEvent("a"), ReasoningEvent("b"), DeltaEvent("c"), DeltaEvent(""),
              DeltaEvent("d"), CallEvent(0, "i", "f", "{"), CallEvent(0, "", "", "}"),
              CallEvent(1, "j", "g", ""), DeltaEvent("e")}) ==
        "<0:reasoning|a|b><1:text|c|d><2:call i f|{|}><3:call j g><4:text|e>");
  CHECK(Hear({}).empty());
}

TEST_CASE("one delta goes on with its call before it says anything else", "[gateway]") {
  v1::GenerateEvent end = CallEvent(0, "", "", "}");
  end.mutable_delta()->set_text("done");
  v1::ToolCallDelta* next = end.mutable_delta()->add_tool_calls();
  next->set_index(1);
  next->set_id("j");
  next->set_name("g");
  CHECK(Hear({CallEvent(0, "i", "f", "{"), end, CallEvent(1, "", "", "{}")}) ==
        "<0:call i f|{|}><1:text|done><2:call j g|{}>");
}

TEST_CASE("pieces of a call that never began or has ended are dropped", "[gateway]") {
  CHECK(Hear({CallEvent(0, "", "", "{}")}).empty());
  CHECK(Hear({CallEvent(0, "i", "f", "{}"), CallEvent(1, "j", "g", ""), CallEvent(0, "", "", "x"),
              CallEvent(1, "", "", "{}")}) == "<0:call i f|{}><1:call j g|{}>");
}

TEST_CASE("where only the first call is asked for, the others are left out", "[gateway]") {
  CHECK(Hear({CallEvent(0, "i", "f", "{}"), CallEvent(1, "j", "g", "{}"), CallEvent(1, "", "", "x"),
              DeltaEvent("t")},
             AnswerItems::Calls::kFirst) == "<0:call i f|{}><1:text|t>");
}

TEST_CASE("logprobs go with text, those of tokens without one with the next", "[gateway]") {
  CHECK(Hear({WithLogprob(ReasoningEvent("r")), WithLogprob(DeltaEvent("")), DeltaEvent("a"),
              DeltaEvent("b"), WithLogprob(DeltaEvent("c"))}) == "<0:reasoning|r><1:text|a#|b|c#>");
  CHECK(Hear({DeltaEvent("a"), WithLogprob(DeltaEvent(""))}) == "<0:text|a|#>");
  // Tokens that became a call are none of the text after it.
  CHECK(Hear({DeltaEvent("a"), WithLogprob(DeltaEvent("")), CallEvent(0, "i", "f", "{}"),
              DeltaEvent("b")}) == "<0:text|a><1:call i f|{}><2:text|b>");
}

TEST_CASE("what a listener hears adds up to what is kept", "[gateway]") {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    INFO(seed);
    AnswerItems heard_items(AnswerItems::Calls::kAll), kept_items(AnswerItems::Calls::kAll);
    Heard heard;
    for (const auto& event : testing::RandomAnswer(seed).events) {
      if (!event.has_delta()) continue;
      heard_items.Add(event.delta(), &heard);
      kept_items.Add(event.delta(), nullptr);
    }
    heard_items.Finish(&heard);
    kept_items.Finish(nullptr);
    REQUIRE(heard.summed.size() == kept_items.items().size());
    for (const AnswerItem& item : kept_items.items()) {
      CHECK(heard.summed[item.index] == item.text);
      CHECK(heard_items.items()[item.index].text == item.text);
      if (item.kind == AnswerItem::Kind::kToolCall) CHECK(item.text.back() == '}');
    }
  }
}

}  // namespace
}  // namespace fastgen::gateway
