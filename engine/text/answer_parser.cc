#include "engine/text/answer_parser.h"

namespace fastgen {
namespace {

constexpr std::string_view kOpeningTag = "<think>";
constexpr std::string_view kClosingTag = "</think>";

}  // namespace

AnswerParser::AnswerParser(const AnswerParserOptions& options)
    : reasoning_open_(options.reasoning_open),
      calls_only_(options.calls_only),
      phase_(options.reasoning == ReasoningFormat::kNone ? Phase::kAnswer : Phase::kStart),
      has_reasoned_(phase_ == Phase::kStart && options.reasoning_open),
      opening_(kOpeningTag),
      closing_(kClosingTag),
      tool_calls_(options.tool_calls, options.id_seed) {}

void AnswerParser::Push(std::string_view text, AnswerDelta* out) {
  while (!text.empty() && phase_ != Phase::kAnswer) {
    if (phase_ == Phase::kStart) {
      StepStart(text.front(), out);
    } else {
      StepReasoning(text.front(), out);
    }
    text.remove_prefix(1);
  }
  while (skips_blanks_ && !text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  if (text.empty()) return;
  skips_blanks_ = false;
  tool_calls_.Push(text, out);
}

void AnswerParser::StepStart(char c, AnswerDelta* out) {
  std::string text;
  if (opening_.Push(c, &text)) {
    opening_.Clear();
    has_reasoned_ = skips_blanks_ = true;
    phase_ = Phase::kReasoning;
  } else if (!text.empty()) {
    EndStart(text + opening_.held(), out);
  }
}

void AnswerParser::EndStart(const std::string& text, AnswerDelta* out) {
  opening_.Clear();
  skips_blanks_ = reasoning_open_;  // the prompt's tag
  phase_ = reasoning_open_ ? Phase::kReasoning : Phase::kAnswer;
  Push(text, out);
}

void AnswerParser::StepReasoning(char c, AnswerDelta* out) {
  if (skips_blanks_ && IsBlank(c)) return;
  skips_blanks_ = false;
  if (!closing_.Push(c, &out->reasoning)) return;
  closing_.Clear();
  skips_blanks_ = true;
  phase_ = Phase::kAnswer;
}

void AnswerParser::Finish(AnswerDelta* out) {
  if (phase_ == Phase::kStart) EndStart(opening_.held(), out);
  if (phase_ == Phase::kReasoning) out->reasoning += closing_.held();
  closing_.Clear();
  tool_calls_.Finish(
      calls_only_ ? ToolCallParser::CutHead::kDropped : ToolCallParser::CutHead::kContent, out);
}

bool OpensReasoning(std::string_view prompt_end) {
  while (!prompt_end.empty() && IsBlank(prompt_end.back())) prompt_end.remove_suffix(1);
  return prompt_end.size() >= kOpeningTag.size() &&
         prompt_end.substr(prompt_end.size() - kOpeningTag.size()) == kOpeningTag;
}

}  // namespace fastgen
