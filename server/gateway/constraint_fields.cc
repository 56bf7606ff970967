#include "server/gateway/constraint_fields.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxChoices = 4096;
constexpr size_t kMaxStructures = 256;
constexpr std::string_view kResponseFormat = "response_format";
// What each dialect calls the format of the text.
constexpr std::string_view kFormats[] = {kResponseFormat, "text.format", "output_config.format"};

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

// Reads one field at a time into the request's only constraint.
class ConstraintReader {
 public:
  ConstraintReader(JsonFields* fields, v1::GenerateRequest* call, ParamNames* names)
      : fields_(fields), call_(call), names_(names) {}

  // The constraint to fill; nullptr, and an error, when there is one already. `full_name` is
  // static.
  v1::Constraint* Claim(std::string_view name, std::string_view full_name) {
    if (!names_->constraint.empty()) {
      fields_->Fail(name, absl::StrCat(ToAbsl(names_->constraint), " and ", ToAbsl(full_name),
                                       " cannot both constrain the answer"));
      return nullptr;
    }
    names_->constraint = full_name;
    return call_->mutable_constraint();
  }

  void Schema(std::string_view name, std::string_view full_name) {
    const json::value* value = fields_->Find(name);
    if (value == nullptr) return;
    const std::optional<std::string> text = JsonTextOf(name, *value, /*booleans=*/true);
    if (!text.has_value()) return;
    if (v1::Constraint* constraint = Claim(name, full_name)) constraint->set_json_schema(*text);
  }

  void StructuralTag(std::string_view name, std::string_view full_name) {
    const json::value* value = fields_->Find(name);
    if (value == nullptr) return;
    const std::optional<std::string> text = JsonTextOf(name, *value, /*booleans=*/false);
    if (!text.has_value()) return;
    if (v1::Constraint* constraint = Claim(name, full_name)) constraint->set_structural_tag(*text);
  }

  void JsonObject(std::string_view name, std::string_view full_name) {
    if (!fields_->Bool(name).value_or(false)) return;
    if (v1::Constraint* constraint = Claim(name, full_name)) constraint->set_json_object(true);
  }

  void Regex(std::string_view name, std::string_view full_name) {
    auto text = fields_->String(name);
    if (!text.has_value()) return;
    if (v1::Constraint* constraint = Claim(name, full_name)) {
      constraint->set_regex(*std::move(text));
    }
  }

  // llama-server's clients send "" for "no grammar".
  void Grammar(std::string_view name, std::string_view full_name) {
    auto text = fields_->String(name);
    if (!text.has_value() || text->empty()) return;
    if (v1::Constraint* constraint = Claim(name, full_name)) {
      constraint->set_grammar(*std::move(text));
    }
  }

  void Choice(std::string_view name, std::string_view full_name) {
    const json::array* choices = fields_->Array(name, kMaxChoices);
    if (choices == nullptr) return;
    if (choices->empty()) fields_->Fail(name, absl::StrCat(ToAbsl(full_name), " is empty"));
    v1::Constraint* constraint = Claim(name, full_name);
    if (constraint == nullptr) return;
    for (const json::value& choice : *choices) {
      if (!choice.is_string()) {
        fields_->Fail(name, absl::StrCat(ToAbsl(full_name), " must hold strings"), "invalid_type");
        return;
      }
      constraint->mutable_choice()->add_choices(std::string(View(choice.get_string())));
    }
  }

  // Said about the way to constrain, not about what: only the value that asks for nothing is met.
  void RefuseOption(std::string_view name) {
    const json::value* value = fields_->Find(name);
    if (value == nullptr || (value->is_bool() && !value->get_bool())) return;
    fields_->Fail(name, absl::StrCat(fields_->PathOf(name), " is not supported by this version"),
                  "unsupported_parameter");
  }

 private:
  std::optional<std::string> JsonTextOf(std::string_view name, const json::value& value,
                                        bool booleans) {
    if (value.is_object() || (booleans && value.is_bool())) return json::serialize(value);
    if (value.is_string() && !value.get_string().empty()) {
      return std::string(View(value.get_string()));
    }
    fields_->Fail(name,
                  absl::StrCat(fields_->PathOf(name), " must be an object or its JSON text, not ",
                               value.is_string() ? "an empty string" : ToAbsl(KindOf(value))),
                  "invalid_type");
    return std::nullopt;
  }

  JsonFields* const fields_;
  v1::GenerateRequest* const call_;
  ParamNames* const names_;
};

// {"name":..,"description":..,"schema":..,"strict":..}: the schema binds, strict or not.
void ReadNamedSchema(JsonFields* fields, std::string_view name, v1::GenerateRequest* call,
                     ParamNames* names) {
  fields->String("name");
  fields->String("description");
  fields->Bool("strict");
  if (fields->Find("schema") == nullptr) {
    fields->Fail("schema", absl::StrCat(fields->PathOf("schema"), " is missing"), "missing");
    return;
  }
  ConstraintReader(fields, call, names).Schema("schema", name);
}

// The older form {"structures":[{"begin","schema","end"}],"triggers":[..]} in the words of the
// newer one.
std::optional<std::string> TriggeredTags(JsonFields* format) {
  const json::array* structures = format->Array("structures", kMaxStructures);
  const json::array* triggers = format->Array("triggers", kMaxStructures);
  if (structures == nullptr || triggers == nullptr) {
    format->Fail("format", absl::StrCat(format->PathOf("format"), " is missing"), "missing");
    return std::nullopt;
  }
  json::array tags;
  for (const json::value& item : *structures) {
    const json::object* structure = item.if_object();
    const json::value* begin = structure == nullptr ? nullptr : structure->if_contains("begin");
    const json::value* end = structure == nullptr ? nullptr : structure->if_contains("end");
    const json::value* schema = structure == nullptr ? nullptr : structure->if_contains("schema");
    if (begin == nullptr || end == nullptr || schema == nullptr) {
      format->Fail("structures", "a structure must have begin, schema and end", "missing");
      return std::nullopt;
    }
    tags.push_back(
        json::object{{"begin", *begin},
                     {"content", json::object{{"type", "json_schema"}, {"json_schema", *schema}}},
                     {"end", *end}});
  }
  const json::object triggered{
      {"type", "triggered_tags"}, {"triggers", *triggers}, {"tags", std::move(tags)}};
  return json::serialize(json::object{{"type", "structural_tag"}, {"format", triggered}});
}

void ReadTagFormat(JsonFields* format, std::string_view name, v1::GenerateRequest* call,
                   ParamNames* names) {
  std::optional<std::string> text;
  if (const json::object* object = format->Object("format")) {
    text = json::serialize(json::object{{"type", "structural_tag"}, {"format", *object}});
  } else {
    text = TriggeredTags(format);
  }
  if (!text.has_value()) return;
  if (v1::Constraint* constraint = ConstraintReader(format, call, names).Claim("type", name)) {
    constraint->set_structural_tag(*std::move(text));
  }
}

void ReadStructuredOutputs(JsonFields* fields, v1::GenerateRequest* call, ParamNames* names,
                           std::vector<std::string>* ignored) {
  const json::object* object = fields->Object("structured_outputs");
  if (object == nullptr) return;
  JsonFields members(*object, "structured_outputs", fields->error());
  ConstraintReader reader(&members, call, names);
  reader.Schema("json", "structured_outputs.json");
  reader.Regex("regex", "structured_outputs.regex");
  reader.Choice("choice", "structured_outputs.choice");
  reader.Grammar("grammar", "structured_outputs.grammar");
  reader.JsonObject("json_object", "structured_outputs.json_object");
  reader.StructuralTag("structural_tag", "structured_outputs.structural_tag");
  for (std::string_view name :
       {"disable_any_whitespace", "disable_additional_properties", "whitespace_pattern"}) {
    reader.RefuseOption(name);
  }
  members.Accept({"disable_fallback", "backend"});
  members.AppendUnknown(ignored);
}

}  // namespace

void ReadFormat(JsonFields* format, std::string_view name, v1::GenerateRequest* call,
                ParamNames* names, std::vector<std::string>* ignored) {
  const std::string type = format->String("type").value_or("");
  if (type == "json_object" && format->Find("schema") == nullptr) {
    ConstraintReader reader(format, call, names);
    if (v1::Constraint* constraint = reader.Claim("type", name)) constraint->set_json_object(true);
  } else if (type == "json_schema" || type == "json_object") {
    const json::object* inner = type == "json_schema" ? format->Object("json_schema") : nullptr;
    if (inner == nullptr) {
      ReadNamedSchema(format, name, call, names);
    } else {
      JsonFields members(*inner, format->PathOf("json_schema"), format->error());
      ReadNamedSchema(&members, name, call, names);
      members.AppendUnknown(ignored);
    }
  } else if (type == "structural_tag") {
    ReadTagFormat(format, name, call, names);
  } else if (type != "text") {
    format->Fail("type",
                 absl::StrCat(format->PathOf("type"), " is \"", type.substr(0, 64),
                              "\"; text, json_object, json_schema and structural_tag are known"),
                 "unsupported_parameter");
  }
  format->AppendUnknown(ignored);
}

void ReadConstraint(JsonFields* fields, v1::GenerateRequest* call, ParamNames* names,
                    std::vector<std::string>* ignored) {
  if (const json::object* object = fields->Object(kResponseFormat)) {
    JsonFields format(*object, std::string(kResponseFormat), fields->error());
    ReadFormat(&format, kResponseFormat, call, names, ignored);
  }
  ReadStructuredOutputs(fields, call, names, ignored);
  ConstraintReader reader(fields, call, names);
  reader.Schema("guided_json", "guided_json");
  reader.Regex("guided_regex", "guided_regex");
  reader.Choice("guided_choice", "guided_choice");
  reader.Grammar("guided_grammar", "guided_grammar");
  reader.JsonObject("guided_json_object", "guided_json_object");
  reader.Grammar("grammar", "grammar");
  reader.Schema("json_schema", "json_schema");
  reader.Regex("regex", "regex");
  reader.Grammar("ebnf", "ebnf");
  // Which library compiles does not change what is allowed.
  fields->Accept({"guided_decoding_backend"});
}

void ConstrainTools(JsonFields* fields, const ToolUse& use, v1::GenerateRequest* call,
                    ParamNames* names) {
  if (use.choice == ToolUse::Choice::kNone) return;
  call->mutable_output()->set_tool_calls(true);
  if (use.choice == ToolUse::Choice::kAuto) {
    if (call->has_constraint()) {
      call->mutable_constraint()->set_or_tool_calls(true);
    } else if (use.strict || !use.parallel) {
      auto* calls = call->mutable_constraint()->mutable_tool_calls();
      calls->set_optional(true);
      calls->set_single(!use.parallel);
      names->constraint = use.parallel ? "tools" : "parallel_tool_calls";
    }
    return;
  }
  const bool is_format = std::find(std::begin(kFormats), std::end(kFormats), names->constraint) !=
                         std::end(kFormats);
  if (call->has_constraint() && !is_format) {
    fields->Fail("tool_choice", absl::StrCat(ToAbsl(names->constraint),
                                             " and tool_choice cannot both constrain the answer"));
    return;
  }
  const bool named = use.choice == ToolUse::Choice::kNamed;
  if (named && std::find(use.offered.begin(), use.offered.end(), use.name) == use.offered.end()) {
    fields->Fail("tool_choice", absl::StrCat("tool_choice names \"", use.name.substr(0, 64),
                                             "\", which is not among the tools"));
    return;
  }
  auto* calls = call->mutable_constraint()->mutable_tool_calls();
  calls->set_name(use.name);
  calls->set_single(named || !use.parallel);
  names->constraint = "tool_choice";
}

}  // namespace fastgen::gateway
