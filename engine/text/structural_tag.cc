#include "engine/text/structural_tag.h"

#include <algorithm>
#include <boost/json.hpp>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "base/unicode.h"
#include "engine/text/json_schema.h"

namespace fastgen {
namespace {

using boost::json::array;
using boost::json::object;
using boost::json::value;

constexpr int kMaxWhitespace = 16;
constexpr size_t kMaxTools = 256;
constexpr size_t kMaxToolNameBytes = 128;

boost::json::string_view ToJson(std::string_view text) { return {text.data(), text.size()}; }
std::string_view ToStd(boost::json::string_view text) { return {text.data(), text.size()}; }

// The same error, with `field` in front.
absl::Status About(std::string_view field, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(ToAbsl(field), ": ", status.message()));
}

template <typename... Parts>
absl::Status Bad(std::string_view field, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(ToAbsl(field), ": ", parts...));
}

value Text(std::string_view text) {
  return object({{"type", "const_string"}, {"value", ToJson(text)}});
}

value Sequence(array elements) {
  return object({{"type", "sequence"}, {"elements", std::move(elements)}});
}

value Or(array elements) {
  if (elements.size() == 1) return std::move(elements[0]);
  return object({{"type", "or"}, {"elements", std::move(elements)}});
}

value Schema(value schema) {
  // Blanks between the parts are bounded: a model at a high temperature may go on with them for
  // ever.
  return object({{"type", "json_schema"},
                 {"json_schema", std::move(schema)},
                 {"max_whitespace_cnt", kMaxWhitespace}});
}

absl::Status CheckSource(std::string_view field, std::string_view text) {
  if (text.empty()) return Bad(field, "is empty");
  if (text.size() > kMaxConstraintBytes) {
    return Bad(field, text.size(), " bytes exceed the limit of ", kMaxConstraintBytes);
  }
  if (!IsValidUtf8(text)) return Bad(field, "it is not UTF-8");
  if (text.find('\0') != std::string_view::npos) return Bad(field, "it holds a zero byte");
  return absl::OkStatus();
}

absl::StatusOr<value> SchemaElement(std::string_view field, std::string_view text) {
  auto parsed = ParseUntrustedJson(text, kMaxSchemaBytes);
  if (!parsed.ok()) return About(field, parsed.status());
  auto schema = NormalizeSchema(*parsed);
  if (!schema.ok()) return About(field, schema.status());
  return Schema(*std::move(schema));
}

// Whether `text` begins with a rule over token ids, which names tokens that are no text.
bool NamesTokens(std::string_view text) {
  for (const std::string_view name : {"TokenTagDispatch", "Token"}) {
    if (text.substr(0, name.size()) != name) continue;
    const size_t next = text.find_first_not_of(" \t\r\n", name.size());
    if (next != std::string_view::npos && text[next] == '(') return true;
  }
  return false;
}

// Refuses the library's own additions to the language: the above, and attributes of rules, of which
// it leaves some to whoever samples.
absl::Status CheckGrammar(std::string_view field, std::string_view text) {
  RETURN_IF_ERROR(CheckSource(field, text));
  bool in_quotes = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      in_quotes = !in_quotes;
    } else if (!in_quotes && NamesTokens(text.substr(i))) {
      return Bad(field, "rules over token ids are not supported");
    } else if (!in_quotes && text[i] == ']') {
      const size_t next = text.find_first_not_of(" \t", i + 1);
      if (next != std::string_view::npos && text.substr(next, 3) == "::=") {
        return Bad(field, "attributes of rules are not supported");
      }
    }
  }
  return absl::OkStatus();
}

// A text as a literal of a grammar.
void AppendLiteral(std::string_view text, std::string* grammar) {
  *grammar += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      *grammar += '\\';
      *grammar += c;
    } else if (c == '\n') {
      *grammar += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppend(grammar, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else {
      *grammar += c;
    }
  }
  *grammar += '"';
}

absl::StatusOr<value> ChoiceElement(const std::vector<std::string>& choices) {
  constexpr std::string_view kField = "constraint.choice";
  if (choices.empty()) return Bad(kField, "choices is empty");
  if (choices.size() > kMaxConstraintChoices) {
    return Bad(kField, choices.size(), " choices exceed the limit of ", kMaxConstraintChoices);
  }
  size_t num_bytes = 0;
  std::string grammar = "root ::= ";
  for (size_t i = 0; i < choices.size(); ++i) {
    num_bytes += choices[i].size();
    if (num_bytes > kMaxConstraintBytes) {
      return Bad(kField, "the choices exceed the limit of ", kMaxConstraintBytes,
                 " bytes together");
    }
    RETURN_IF_ERROR(CheckSource(kField, choices[i]));
    if (i > 0) grammar += " | ";
    AppendLiteral(choices[i], &grammar);
  }
  return value(object({{"type", "grammar"}, {"grammar", grammar}}));
}

// Formats that a client's own tag holds: schemas in them are normalised as well.
absl::Status NormalizeTag(int depth, value* tag) {
  if (depth > kMaxSchemaDepth) return absl::InvalidArgumentError("it nests too deep");
  if (tag->is_array()) {
    for (value& element : tag->get_array()) RETURN_IF_ERROR(NormalizeTag(depth + 1, &element));
    return absl::OkStatus();
  }
  if (!tag->is_object()) return absl::OkStatus();
  object& members = tag->get_object();
  const value* type = members.if_contains("type");
  if (type != nullptr && type->is_string() && type->get_string() == "json_schema") {
    const value* style = members.if_contains("style");
    if (style != nullptr && !(style->is_string() && style->get_string() == "json")) {
      return absl::InvalidArgumentError(
          "a json_schema of another style than \"json\" is not supported");
    }
    if (members.contains("excludes") || members.contains("any_order")) {
      return absl::InvalidArgumentError(
          "excludes and any_order of a json_schema are not supported");
    }
    value* schema = members.if_contains("json_schema");
    if (schema == nullptr) return absl::InvalidArgumentError("a json_schema has no schema");
    ASSIGN_OR_RETURN(value normalized, NormalizeSchema(*schema));
    *tag = Schema(std::move(normalized));
    return absl::OkStatus();
  }
  const std::string_view name =
      type != nullptr && type->is_string() ? ToStd(type->get_string()) : std::string_view();
  if (name.find("token") != std::string_view::npos) {
    return absl::InvalidArgumentError("formats over token ids are not supported");
  }
  if (name == "grammar") {
    const value* grammar = members.if_contains("grammar");
    if (grammar != nullptr && grammar->is_string()) {
      RETURN_IF_ERROR(CheckGrammar("grammar", ToStd(grammar->get_string())));
    }
  }
  for (auto& member : members) RETURN_IF_ERROR(NormalizeTag(depth + 1, &member.value()));
  return absl::OkStatus();
}

absl::StatusOr<value> TagElement(std::string_view text) {
  constexpr std::string_view kField = "constraint.structural_tag";
  auto parsed = ParseUntrustedJson(text, kMaxConstraintBytes);
  if (!parsed.ok()) return About(kField, parsed.status());
  value* format = parsed->is_object() ? parsed->get_object().if_contains("format") : nullptr;
  if (format == nullptr) return Bad(kField, "it is no object with the member \"format\"");
  const absl::Status status = NormalizeTag(0, format);
  if (!status.ok()) return About(kField, status);
  return std::move(*format);
}

struct Tool {
  std::string name;
  value parameters;
};

absl::StatusOr<Tool> ReadTool(std::string_view json, const std::string& place) {
  auto parsed = ParseUntrustedJson(json, kMaxSchemaBytes);
  if (!parsed.ok()) return About(place, parsed.status());
  const value* function = &*parsed;
  if (function->is_object() && function->get_object().contains("function")) {
    function = &function->get_object().at("function");
  }
  const value* name = function->is_object() ? function->get_object().if_contains("name") : nullptr;
  if (name == nullptr || !name->is_string() || name->get_string().empty()) {
    return Bad(place, "it has no function with a name");
  }
  Tool tool;
  tool.name = std::string(ToStd(name->get_string()));
  if (tool.name.size() > kMaxToolNameBytes) {
    return Bad(place, "a name of ", tool.name.size(), " bytes exceeds the limit of ",
               kMaxToolNameBytes);
  }
  const value* parameters = function->get_object().if_contains("parameters");
  value schema = parameters == nullptr || parameters->is_null() ? value(object()) : *parameters;
  // Arguments are an object, whether or not the schema says so.
  if (schema.is_object() && schema.get_object().empty()) schema.get_object()["type"] = "object";
  auto normalized = NormalizeSchema(schema);
  if (!normalized.ok()) return About(absl::StrCat(place, ".parameters"), normalized.status());
  tool.parameters = *std::move(normalized);
  return tool;
}

absl::StatusOr<std::vector<Tool>> ReadTools(const std::vector<std::string>& tools_json,
                                            const std::string& name, std::string_view field) {
  if (tools_json.empty()) return Bad(field, "the request has no tools");
  if (tools_json.size() > kMaxTools) {
    return Bad("chat.tools_json", tools_json.size(), " tools exceed the limit of ", kMaxTools);
  }
  std::vector<Tool> tools;
  for (size_t i = 0; i < tools_json.size(); ++i) {
    ASSIGN_OR_RETURN(Tool tool, ReadTool(tools_json[i], absl::StrCat("chat.tools_json[", i, "]")));
    if (name.empty() || tool.name == name) tools.push_back(std::move(tool));
  }
  if (tools.empty())
    return Bad("constraint.tool_calls.name", "no tool is called \"", name.substr(0, 128), "\"");
  return tools;
}

// One call, without what stands before the first.
value CallElement(const std::vector<Tool>& tools, const ToolCallStyle& style) {
  array calls;
  for (const Tool& tool : tools) {
    if (style.has_args_token) {
      calls.push_back(Sequence(
          {Text(absl::StrCat("[TOOL_CALLS]", tool.name, "[ARGS]")), Schema(tool.parameters)}));
      continue;
    }
    const std::string name = boost::json::serialize(value(ToJson(tool.name)));
    const char* arguments =
        style.format == ToolCallFormat::kLlama3Json ? "parameters" : "arguments";
    std::string begin = absl::StrCat("{\"name\": ", name, ", \"", arguments, "\": ");
    std::string end = "}";
    if (style.format == ToolCallFormat::kHermes) {
      begin = absl::StrCat("<tool_call>\n", begin);
      end = "}\n</tool_call>";
    }
    calls.push_back(Sequence({Text(begin), Schema(tool.parameters), Text(end)}));
  }
  return Or(std::move(calls));
}

enum class NumCalls { kOne, kOneOrMore };

value CallsElement(const std::vector<Tool>& tools, const ToolCallStyle& style, NumCalls num_calls) {
  value calls = CallElement(tools, style);
  if (num_calls == NumCalls::kOneOrMore) {
    std::string_view separator = "; ";
    if (style.format == ToolCallFormat::kHermes) separator = "\n";
    if (style.format == ToolCallFormat::kMistral) separator = ", ";
    value next = style.has_args_token ? calls : Sequence({Text(separator), calls});
    calls = Sequence({std::move(calls), object({{"type", "star"}, {"content", std::move(next)}})});
  }
  if (style.format != ToolCallFormat::kMistral || style.has_args_token) return calls;
  return Sequence({Text("[TOOL_CALLS]["), std::move(calls), Text("]")});
}

// Any text that holds no marker.
value FreeText(std::string_view marker) {
  return object({{"type", "any_text"}, {"excludes", array({ToJson(marker)})}});
}

// Text, or text and then calls.
value OptionalCallsElement(const std::vector<Tool>& tools, const ToolCallStyle& style,
                           NumCalls num_calls) {
  value calls = CallsElement(tools, style, num_calls);
  const auto optional = [](value element) {
    return value(object({{"type", "optional"}, {"content", std::move(element)}}));
  };
  switch (style.format) {
    case ToolCallFormat::kHermes:
      return Sequence({FreeText("<tool_call>"), optional(std::move(calls))});
    case ToolCallFormat::kMistral:
      return Sequence({FreeText("[TOOL_CALLS]"), optional(std::move(calls))});
    case ToolCallFormat::kLlama3Json:
    case ToolCallFormat::kNone:
      break;
  }
  // An answer that begins with an object is a call, and so is what follows the tag.
  value tagged = optional(Sequence({Text("<|python_tag|>"), calls}));
  value text = Sequence({object({{"type", "regex"}, {"pattern", "[ \\n\\t]{0,8}[^{ \\n\\t<]"}}),
                         FreeText("<|python_tag|>"), tagged});
  return Or({std::move(calls), std::move(text), std::move(tagged)});
}

absl::StatusOr<value> ToolCallsElement(const Constraint& constraint,
                                       const std::vector<std::string>& tools_json,
                                       const ToolCallStyle& style, std::string_view field) {
  if (style.format == ToolCallFormat::kNone) {
    return absl::FailedPreconditionError(absl::StrCat(
        ToAbsl(field),
        ": no parser is known for this model's tool calls; --tool-call-parser names one"));
  }
  ASSIGN_OR_RETURN(const std::vector<Tool> tools, ReadTools(tools_json, constraint.tool, field));
  const NumCalls num_calls = constraint.single ? NumCalls::kOne : NumCalls::kOneOrMore;
  if (constraint.optional) return OptionalCallsElement(tools, style, num_calls);
  return CallsElement(tools, style, num_calls);
}

absl::StatusOr<value> MakeElement(const Constraint& constraint,
                                  const std::vector<std::string>& tools_json,
                                  const ToolCallStyle& style) {
  const std::string field = absl::StrCat("constraint.", NameOf(constraint.kind));
  switch (constraint.kind) {
    case Constraint::Kind::kJsonSchema:
      return SchemaElement(field, constraint.text);
    case Constraint::Kind::kJsonObject:
      return Schema(object({{"type", "object"}, {"additionalProperties", true}}));
    case Constraint::Kind::kRegex:
      RETURN_IF_ERROR(CheckSource(field, constraint.text));
      return value(object({{"type", "regex"}, {"pattern", constraint.text}}));
    case Constraint::Kind::kChoice:
      return ChoiceElement(constraint.choices);
    case Constraint::Kind::kGrammar:
      RETURN_IF_ERROR(CheckGrammar(field, constraint.text));
      return value(object({{"type", "grammar"}, {"grammar", constraint.text}}));
    case Constraint::Kind::kStructuralTag:
      return TagElement(constraint.text);
    case Constraint::Kind::kToolCalls:
      return ToolCallsElement(constraint, tools_json, style, field);
    case Constraint::Kind::kNone:
      break;
  }
  return Bad("constraint", "it is empty");
}

}  // namespace

std::string NameOf(Constraint::Kind kind) {
  switch (kind) {
    case Constraint::Kind::kJsonSchema:
      return "json_schema";
    case Constraint::Kind::kJsonObject:
      return "json_object";
    case Constraint::Kind::kRegex:
      return "regex";
    case Constraint::Kind::kChoice:
      return "choice";
    case Constraint::Kind::kGrammar:
      return "grammar";
    case Constraint::Kind::kStructuralTag:
      return "structural_tag";
    case Constraint::Kind::kToolCalls:
      return "tool_calls";
    case Constraint::Kind::kNone:
      break;
  }
  return "none";
}

absl::StatusOr<std::string> MakeStructuralTag(const Constraint& constraint,
                                              const std::vector<std::string>& tools_json,
                                              const ToolCallStyle& style) {
  ASSIGN_OR_RETURN(value format, MakeElement(constraint, tools_json, style));
  if (constraint.or_tool_calls) {
    if (constraint.kind == Constraint::Kind::kToolCalls) {
      return Bad("constraint.or_tool_calls", "it stands beside another kind than tool_calls");
    }
    Constraint calls;
    calls.kind = Constraint::Kind::kToolCalls;
    ASSIGN_OR_RETURN(value element,
                     ToolCallsElement(calls, tools_json, style, "constraint.or_tool_calls"));
    format = Or({std::move(format), std::move(element)});
  }
  return boost::json::serialize(
      value(object({{"type", "structural_tag"}, {"format", std::move(format)}})));
}

}  // namespace fastgen
