// Any text, in any pieces, for any parser: the pieces must give what the whole gives, content that
// is given out early must stay, and without parsers the content is the text.
//
// The first byte chooses the parser, the second seeds the cuts; the rest is the text.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "engine/text/answer_parser.h"

namespace {

struct Joined {
  std::string reasoning;
  std::string content;
  std::string calls;
  int32_t num_calls = 0;

  bool operator==(const Joined&) const = default;
};

void Join(const fastgen::AnswerDelta& delta, int32_t* last, Joined* joined) {
  joined->reasoning += delta.reasoning;
  joined->content += delta.content;
  for (const fastgen::ToolCallDelta& call : delta.tool_calls) {
    // A call is named by its first piece and by no other; calls come one after another.
    CHECK_EQ(call.index == *last, call.name.empty());
    CHECK_EQ(call.name.empty(), call.id.empty());
    CHECK(call.index == *last || call.index == *last + 1);
    *last = call.index;
    joined->calls += call.name.empty() ? "" : "\n" + call.id + " " + call.name + " ";
    joined->calls += call.arguments;
  }
}

Joined Parse(const fastgen::AnswerParserOptions& options, std::string_view text, uint32_t seed) {
  fastgen::AnswerParser parser(options);
  Joined joined;
  int32_t last = -1;
  while (!text.empty()) {
    seed = seed * 1664525 + 1013904223;
    const size_t size = std::min<size_t>(text.size(), 1 + (seed >> 28));
    fastgen::AnswerDelta delta;
    parser.Push(text.substr(0, size), &delta);
    Join(delta, &last, &joined);
    text.remove_prefix(size);
  }
  fastgen::AnswerDelta delta;
  parser.Finish(&delta);
  Join(delta, &last, &joined);
  joined.num_calls = parser.num_calls();
  CHECK(joined.num_calls <= last + 1);
  return joined;
}

Joined ParseWhole(const fastgen::AnswerParserOptions& options, std::string_view text) {
  fastgen::AnswerParser parser(options);
  Joined joined;
  int32_t last = -1;
  fastgen::AnswerDelta delta;
  parser.Push(text, &delta);
  parser.Finish(&delta);
  Join(delta, &last, &joined);
  joined.num_calls = parser.num_calls();
  return joined;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  fastgen::AnswerParserOptions options;
  options.tool_calls = static_cast<fastgen::ToolCallFormat>(data[0] & 3);
  options.reasoning = static_cast<fastgen::ReasoningFormat>((data[0] >> 2) & 1);
  options.reasoning_open = (data[0] & 8) != 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const Joined whole = ParseWhole(options, text);
  CHECK(Parse(options, text, data[1]) == whole);
  if (options.tool_calls == fastgen::ToolCallFormat::kNone &&
      options.reasoning == fastgen::ReasoningFormat::kNone) {
    CHECK(whole.content == text);
  }
  return 0;
}
