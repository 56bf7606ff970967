#include "tests/server/gateway/answer_scripts.h"

#include <random>

namespace fastgen::testing {

v1::GenerateEvent ReasoningEvent(const std::string& reasoning) {
  v1::GenerateEvent event = DeltaEvent("", {7});
  event.mutable_delta()->set_reasoning(reasoning);
  return event;
}

v1::GenerateEvent CallEvent(int index, const std::string& id, const std::string& name,
                            const std::string& arguments) {
  v1::GenerateEvent event = DeltaEvent("", {8});
  v1::ToolCallDelta* call = event.mutable_delta()->add_tool_calls();
  call->set_index(index);
  call->set_id(id);
  call->set_name(name);
  call->set_arguments(arguments);
  return event;
}

GenerateScript TwoCalls(const v1::GenerateRequest&) {
  GenerateScript script;
  script.events = {AcceptedEvent(5, 2),
                   ReasoningEvent("Hm"),
                   ReasoningEvent(" \"so\"."),
                   DeltaEvent("Wait."),
                   CallEvent(0, "call_a", "f", "{\"x\""),
                   CallEvent(0, "", "", ": 1}"),
                   CallEvent(1, "call_b", "g", "{}"),
                   FinishedEvent(v1::STOP, 5, 9)};
  v1::Finished* finished = script.events.back().mutable_finished();
  finished->set_num_tool_calls(2);
  finished->mutable_usage()->set_cached_tokens(2);
  finished->mutable_usage()->set_reasoning_tokens(4);
  return script;
}

GenerateScript RandomAnswer(uint32_t seed) {
  std::mt19937 random(seed);
  const auto draw = [&](int below) {
    return static_cast<int>(random() % static_cast<uint32_t>(below));
  };
  const std::string kTexts[] = {
      "", "a", "\"q\" \\ \n", "\xC3\xA9\xE2\x82\xAC", "\t\x01 \xF0\x9F\x99\x82", "0123456789"};
  const std::string kArguments = "{\"a\": [1, \"\xC3\xA9\\n\", {}], \"b\": \"}\"}";
  GenerateScript script;
  script.events = {AcceptedEvent(11, draw(12))};
  int num_calls = 0;
  const auto delta = [&]() -> v1::Delta* {
    // Some pieces share a delta with what came before.
    if (script.events.size() == 1 || draw(4) > 0) script.events.push_back(DeltaEvent("", {1}));
    return script.events.back().mutable_delta();
  };
  for (int part = draw(6); part > 0; --part) {
    const int kind = draw(3);
    if (kind == 0) {
      for (int i = draw(4); i >= 0; --i) delta()->mutable_reasoning()->append(kTexts[draw(6)]);
    } else if (kind == 1) {
      for (int i = draw(4); i >= 0; --i) delta()->mutable_text()->append(kTexts[draw(6)]);
    } else {
      v1::ToolCallDelta* call = delta()->add_tool_calls();
      call->set_index(num_calls);
      call->set_id("call_" + std::to_string(num_calls));
      call->set_name("f");
      for (size_t at = 0; at < kArguments.size();) {
        // Cuts fall between characters.
        size_t size = static_cast<size_t>(1 + draw(9));
        while (at + size < kArguments.size() && (kArguments[at + size] & 0xC0) == 0x80) ++size;
        v1::ToolCallDelta* piece = delta()->add_tool_calls();
        piece->set_index(num_calls);
        piece->set_arguments(kArguments.substr(at, size));
        at += size;
      }
      ++num_calls;
    }
  }
  script.events.push_back(FinishedEvent(draw(3) == 0 ? v1::LENGTH : v1::STOP, 11, 40));
  script.events.back().mutable_finished()->set_num_tool_calls(num_calls);
  return script;
}

}  // namespace fastgen::testing
