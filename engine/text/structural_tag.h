// A request's constraint to a structural tag, the one form that the grammar library gets (see
// grammar.h).
//
// Every kind is an element of it: a schema (normalised, json_schema.h), a regex, choices as a
// grammar of literal texts, a grammar, the format of a tag that the client wrote. Calls of tools
// are written as the model's tool-call parser reads them (tool_call_parser.h):
//   hermes       <tool_call>\n{"name": "f", "arguments": A}\n</tool_call>, one a line
//   llama3_json  {"name": "f", "parameters": A}, separated by "; ", from the beginning on; after
//   <|python_tag|> anywhere mistral      [TOOL_CALLS][{"name": "f", "arguments": A}, ..], or
//   [TOOL_CALLS]f[ARGS]A for a model with that token
// A fits the tool's parameters. Bounds: kMaxSourceBytes of a text, kMaxSchemaDepth of JSON,
// kMaxChoices of choices. Thread rule: pure function, any thread. Tested by
// tests/engine/text/structural_tag_test.cc; fuzzed by tests/fuzz/grammar_fuzzer.cc.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/text/tool_call_parser.h"

namespace fastgen {

inline constexpr size_t kMaxConstraintBytes = 128 << 10;
inline constexpr size_t kMaxConstraintChoices = 4096;

struct ToolCallStyle {
  ToolCallFormat format = ToolCallFormat::kNone;
  bool has_args_token = false;  // mistral: [ARGS]
};

// `tools_json`: the chat's tools; empty where there is no chat. Errors open with the field's name
// ("constraint.regex:
// .."): INVALID_ARGUMENT, and FAILED_PRECONDITION for calls of tools without a format.
absl::StatusOr<std::string> MakeStructuralTag(const Constraint& constraint,
                                              const std::vector<std::string>& tools_json,
                                              const ToolCallStyle& style);

// "json_schema", ..: the field of the message Constraint.
std::string NameOf(Constraint::Kind kind);

}  // namespace fastgen
