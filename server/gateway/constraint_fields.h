// From the fields that say what an answer may be to fastgen.v1.Constraint.
//
// One request may say it once: `response_format`, vLLM's `structured_outputs` and `guided_*`,
// llama-server's `grammar` and `json_schema`, SGLang's `regex` and `ebnf`. Two of them are refused
// with both names. Tools constrain as well: "required" and a named tool always, "auto" where a tool
// is `strict` or only one call is wanted. A response_format next to "required" has nothing to say,
// since there is no text; next to "auto" it binds the text, and calls stay possible.
// Schemas and grammars travel as text: the daemon compiles them, and refuses those that do not.
// Thread rule: pure functions.
// Tested by tests/server/gateway/constraint_fields_test.cc, tests/fuzz/openai_json_fuzzer.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fastgen/v1/inference.pb.h"
#include "server/gateway/errors.h"
#include "server/gateway/json_fields.h"

namespace fastgen::gateway {

// What a request says about tools that the model may call.
struct ToolUse {
  enum class Choice { kNone, kAuto, kRequired, kNamed };
  Choice choice = Choice::kNone;
  std::string name;                  // kNamed
  bool parallel = true;              // false: at most one call
  bool strict = false;               // a tool wants arguments that fit its parameters
  std::vector<std::string> offered;  // names of all tools
};

// All constraining fields of an OpenAI request. `names->constraint` becomes the name of the one
// that was given.
void ReadConstraint(JsonFields* fields, v1::GenerateRequest* call, ParamNames* names,
                    std::vector<std::string>* ignored);

// An object as `response_format` holds: {"type":"text"|"json_object"|"json_schema"|
// "structural_tag",...}. Where it constrains, `name` (static text) becomes names->constraint.
// Schema members are looked for in "json_schema", and beside the type.
void ReadFormat(JsonFields* format, std::string_view name, v1::GenerateRequest* call,
                ParamNames* names, std::vector<std::string>* ignored);

// After ReadConstraint: what `use` adds, and that the answer's calls are parsed.
void ConstrainTools(JsonFields* fields, const ToolUse& use, v1::GenerateRequest* call,
                    ParamNames* names);

}  // namespace fastgen::gateway
