// ParserChoice: which parsers read a model's answers, by name or from what the model says of itself.
//
// Names: tool calls "auto", "none", "hermes", "llama3_json", "mistral"; reasoning "auto", "none",
// "think". "auto" looks for the marks of each format in the text of the model's chat template: what
// a template teaches the model to write, the model writes. A model without a template is judged by
// its special tokens. A template that teaches <tool_call> with XML inside (<function=..>) has no
// parser here.
// Thread rule: pure functions, any thread.
// Tested by tests/engine/text/parser_choice_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/answer_parser.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

struct ParserChoice {
  ToolCallFormat tool_calls = ToolCallFormat::kNone;
  ReasoningFormat reasoning = ReasoningFormat::kNone;
  // The tokens of their markers, sorted: their text reaches the parser though special tokens are
  // skipped.
  std::vector<int32_t> tool_call_markers;
  std::vector<int32_t> reasoning_markers;
};

// INVALID_ARGUMENT, one line that lists the names.
absl::Status CheckToolCallParserName(std::string_view name);
absl::Status CheckReasoningParserName(std::string_view name);

// `chat_template`: its source, "" for none. Errors: as above.
absl::StatusOr<ParserChoice> ChooseParsers(std::string_view tool_calls, std::string_view reasoning,
                                           std::string_view chat_template,
                                           const Tokenizer& tokenizer);

// "hermes", "none", ...
std::string_view NameOf(ToolCallFormat format);
std::string_view NameOf(ReasoningFormat format);

}  // namespace fastgen
