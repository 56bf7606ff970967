// AnswerParser: a model's answer, as it comes, to reasoning, content and tool calls.
//
//   [blanks] <think> [blanks] reasoning [blanks] </think> [blanks] answer
// Reasoning is looked for at the very beginning only: a tag that a model quotes later is text.
// Where the prompt has opened it (`reasoning_open`), the answer begins inside, and an opening tag
// that the model repeats is dropped; a closing tag without an opening one is text. Up to
// MarkerScanner::kMaxBlanks blanks before a tag, and all after it, belong to the tag. Reasoning
// that never ends is reasoning to the end. What follows goes to a ToolCallParser: a call that is
// written while reasoning is none.
//
// Any division of the text gives the same reasoning, content and calls.
// Thread rule: one thread at a time.
// Tested by tests/engine/text/answer_parser_test.cc; fuzzed by tests/fuzz/answer_parser_fuzzer.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/text/marker_scanner.h"
#include "engine/text/tool_call_parser.h"

namespace fastgen {

enum class ReasoningFormat { kNone, kThink };

struct AnswerParserOptions {
  ReasoningFormat reasoning = ReasoningFormat::kNone;
  bool reasoning_open = false;
  ToolCallFormat tool_calls = ToolCallFormat::kNone;
  bool calls_only = false;  // nothing but calls can come: the head of one that is cut is no content
  uint64_t id_seed = 0;
};

class AnswerParser {
 public:
  explicit AnswerParser(const AnswerParserOptions& options);

  // Appends to `*out`.
  void Push(std::string_view text, AnswerDelta* out);
  // The end of the answer.
  void Finish(AnswerDelta* out);

  // There is reasoning, or may still be, and it has not ended.
  bool may_reason() const { return phase_ != Phase::kAnswer; }
  // Some has begun.
  bool has_reasoned() const { return has_reasoned_; }
  // Complete ones.
  int32_t num_calls() const { return tool_calls_.num_calls(); }

 private:
  enum class Phase { kStart, kReasoning, kAnswer };

  void StepStart(char c, AnswerDelta* out);
  void StepReasoning(char c, AnswerDelta* out);
  void EndStart(const std::string& text, AnswerDelta* out);

  const bool reasoning_open_;
  const bool calls_only_;
  Phase phase_;
  bool has_reasoned_;
  bool skips_blanks_ = false;  // a tag has just ended
  MarkerScanner opening_;
  MarkerScanner closing_;
  ToolCallParser tool_calls_;
};

// Whether a prompt that ends so leaves the reasoning open for the answer.
bool OpensReasoning(std::string_view prompt_end);

}  // namespace fastgen
