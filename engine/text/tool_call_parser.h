// ToolCallParser: a model's answer, as it comes, to content and tool calls.
//
// Formats:
//   hermes (Qwen 2.5, Qwen 3, QwQ, Hermes)  <tool_call>{"name":..,"arguments":{..}}</tool_call>
//   llama3_json (Llama 3.1 to 3.3)  the answer begins with {"name":..,"parameters":{..}}, several
//     are separated by ';'; or, anywhere, <|python_tag|> and such objects, or tool.call(a=1), or
//     Python code, which is a call of "python" with {"code":..}
//   mistral  [TOOL_CALLS] and a list [{"name":..,"arguments":{..},"id":..}, ..], or
//     name{..}, or name[ARGS]{..}, or name[CALL_ID]id[ARGS]{..}
// "parameters" and "arguments" mean the same, and other members are passed over; in a Llama answer
// without a tag a name outside {name, parameters, arguments, type, id} means that it is no call.
//
// Rule: a call begins when its name is known and the '{' of its arguments has come; from there on
// the arguments' own bytes are given out as they come. Where the arguments come first, they wait
// for the name. What does not reach that point (bad JSON, another shape, more than kMaxHeldBytes,
// the end of the answer) is content, byte for byte with its marker and the blanks before it. Bad
// JSON after that point ends the call as it is, and what follows is content; the call is incomplete
// when its arguments are. Markers, blanks next to them, and the commas, brackets and semicolons
// around calls are nobody's; so are, once the arguments are complete, at most kMaxSlipBytes of
// blanks, '}', ']' and ',' before the closing marker, the next separator or the answer's end, as
// models close an object once too often, or not.
// Markers are found by their text, whether or not the model has a token for them, as peers do.
//
// Each byte is looked at once: any division of the text gives the same content and calls. Memory is
// bounded by kMaxHeldBytes. Ids are drawn from `id_seed`: "call_" and 24 letters or digits, or the
// 9 that Mistral's templates ask for.
// Thread rule: one thread at a time.
// Tested by tests/engine/text/answer_parser_test.cc; fuzzed by tests/fuzz/answer_parser_fuzzer.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "engine/text/json_scanner.h"
#include "engine/text/marker_scanner.h"

namespace fastgen {

enum class ToolCallFormat { kNone, kHermes, kLlama3Json, kMistral };

// What a piece of an answer adds to each of its parts.
struct AnswerDelta {
  std::string reasoning;
  std::string content;
  std::vector<ToolCallDelta> tool_calls;  // pieces of one call that follow each other are joined
};

class ToolCallParser {
 public:
  static constexpr size_t kMaxHeldBytes = 64 << 10;
  static constexpr size_t kMaxNameBytes = 256;
  static constexpr size_t kMaxSlipBytes = 64;

  ToolCallParser(ToolCallFormat format, uint64_t id_seed);

  // Appends to `*out`.
  void Push(std::string_view text, AnswerDelta* out);
  // The end of the answer. What has not become a call by then is content, unless it is known to be
  // the head of one that was cut.
  enum class CutHead { kContent, kDropped };
  void Finish(CutHead cut_head, AnswerDelta* out);

  // Complete ones.
  int32_t num_calls() const { return num_complete_; }

 private:
  enum class State {
    kStart,      // llama3_json: nothing but blanks yet
    kText,       // content, until a marker
    kOpening,    // after the marker
    kItem,       // mistral: '[' or ',' has come, an object must
    kObject,     // in an object that makes a call
    kNext,       // after an object: what may stand between calls, or end them
    kName,       // mistral: name{ or name[ARGS]{
    kTag,        // mistral: in [ARGS] or [CALL_ID]
    kCallId,     // mistral: between [CALL_ID] and [ARGS]
    kArguments,  // mistral: in the object after a name
    kPython,     // llama3_json: after the tag
  };

  void Step(char c);
  void StepStart(char c);
  void StepText(char c);
  void StepOpening(char c);
  void StepItem(char c);
  void StepObject(char c);
  void StepNext(char c);
  void StepNextInList(char c);
  // Holds `c` when it may stand between a call and what closes it.
  bool HoldSlip(char c);
  void StepName(char c);
  void StepTag(char c);
  void StepCallId(char c);
  void StepArguments(char c);
  void StepPython(char c);

  // What the object's outermost members are, while it is not yet a call.
  void Observe(char c, const JsonScanner& before);
  void EndMember();
  void EndText();
  void EndObject();
  void BeginObject();
  bool CanBegin() const { return !name_.empty() && !begun_; }
  void BeginCall();
  void EndCall();
  void EndCalls();
  void AddArguments(std::string_view text);
  void AddPythonCode(std::string_view code);
  void BeginPython(std::string_view code);
  bool AddBuiltinCall();
  // What is held is no call: it is content, and so is `c`, which may begin something new.
  void Abandon(char c);
  void AbandonAll();
  void Release(std::string_view text);
  std::string DrawId();

  const ToolCallFormat format_;
  uint64_t id_state_;
  AnswerDelta* out_ = nullptr;  // during Push and Finish
  State state_;
  MarkerScanner opener_;
  MarkerScanner closer_;
  bool skips_blanks_ = false;  // a call has just ended
  // The text since the marker, until the call begins; after a call, slips.
  std::string held_;
  // The call that is read.
  JsonScanner json_;
  std::string member_;  // the outermost name that was read last
  std::string value_;   // its text
  std::string name_;
  std::string id_;
  std::string tag_;
  bool in_arguments_ = false;   // their bytes come now
  size_t arguments_begin_ = 0;  // in held_, when they came before the name
  size_t arguments_end_ = 0;
  bool begun_ = false;
  // Python: may this still be tool.call(..)?
  enum class Python { kUndecided, kBuiltin, kCode } python_ = Python::kUndecided;
  bool in_list_ = false;
  int32_t num_begun_ = 0;
  int32_t num_complete_ = 0;
};

}  // namespace fastgen
