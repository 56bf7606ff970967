// Runs an AnswerParser over a text in pieces, and joins what comes out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/answer_parser.h"

namespace fastgen::testing {

struct ParsedAnswer {
  AnswerDelta whole;
  int32_t num_calls = 0;
};

inline void Join(AnswerDelta delta, AnswerDelta* whole) {
  whole->reasoning += delta.reasoning;
  whole->content += delta.content;
  for (ToolCallDelta& call : delta.tool_calls) {
    if (!whole->tool_calls.empty() && whole->tool_calls.back().index == call.index) {
      // Only a call's first piece names it.
      if (!call.name.empty() || !call.id.empty()) call.arguments += "<named twice>";
      whole->tool_calls.back().arguments += call.arguments;
    } else {
      whole->tool_calls.push_back(std::move(call));
    }
  }
}

// `cuts` are sorted positions in `text`.
inline ParsedAnswer Parse(const AnswerParserOptions& options, std::string_view text,
                          const std::vector<size_t>& cuts = {}) {
  AnswerParser parser(options);
  ParsedAnswer parsed;
  size_t begin = 0;
  const auto push = [&](size_t end) {
    AnswerDelta delta;
    parser.Push(text.substr(begin, end - begin), &delta);
    Join(std::move(delta), &parsed.whole);
    begin = end;
  };
  for (size_t cut : cuts) push(cut);
  push(text.size());
  AnswerDelta delta;
  parser.Finish(&delta);
  Join(std::move(delta), &parsed.whole);
  parsed.num_calls = parser.num_calls();
  return parsed;
}

inline std::vector<size_t> EveryByte(std::string_view text) {
  std::vector<size_t> cuts;
  for (size_t i = 1; i < text.size(); ++i) cuts.push_back(i);
  return cuts;
}

// All of it as one text, to compare and to print.
inline std::string ToString(const ParsedAnswer& parsed) {
  std::string text = "reasoning(" + parsed.whole.reasoning + ") content(" + parsed.whole.content +
                     ") calls(" + std::to_string(parsed.num_calls) + ")";
  for (const ToolCallDelta& call : parsed.whole.tool_calls) {
    text += " " + std::to_string(call.index) + ":" + call.id + ":" + call.name + "(" +
            call.arguments + ")";
  }
  return text;
}

}  // namespace fastgen::testing
