#include "engine/text/json_schema.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "base/unicode.h"
#include "engine/text/json_pattern.h"

namespace fastgen {
namespace {

using boost::json::array;
using boost::json::object;
using boost::json::value;

constexpr std::string_view kNumberKeywords[] = {"minimum", "maximum", "exclusiveMinimum",
                                                "exclusiveMaximum", "multipleOf"};
constexpr std::string_view kStringKeywords[] = {"minLength", "maxLength", "pattern"};
constexpr std::string_view kArrayKeywords[] = {"items",    "prefixItems", "additionalItems",
                                               "minItems", "maxItems",    "unevaluatedItems"};
constexpr std::string_view kObjectKeywords[] = {
    "properties",    "required",      "additionalProperties", "patternProperties",
    "propertyNames", "minProperties", "maxProperties",        "unevaluatedProperties"};
constexpr std::string_view kUnsupported[] = {"not",
                                             "if",
                                             "then",
                                             "else",
                                             "dependentRequired",
                                             "dependentSchemas",
                                             "dependencies",
                                             "contains",
                                             "minContains",
                                             "maxContains",
                                             "$dynamicRef",
                                             "$recursiveRef"};
constexpr std::string_view kTypes[] = {"string", "number", "integer", "boolean",
                                       "null",   "array",  "object"};
// Formats whose strings hold nothing that JSON escapes.
constexpr std::string_view kFormats[] = {"date", "time", "date-time", "duration",
                                         "ipv4", "ipv6", "uuid"};
constexpr std::string_view kEmail =
    R"([A-Za-z0-9_+]+(\.[A-Za-z0-9_+]+)*@[A-Za-z0-9]+(\.[A-Za-z0-9]+)+)";
constexpr int64_t kMaxLength = 1 << 20;
constexpr int64_t kMaxItems = 4096;

template <typename Names>
bool IsOneOf(std::string_view name, const Names& names) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

std::string_view ToStd(boost::json::string_view text) { return {text.data(), text.size()}; }

const value* Find(const object& from, std::string_view key) {
  return from.if_contains(boost::json::string_view(key.data(), key.size()));
}

void Put(std::string_view key, value what, object* to) {
  (*to)[boost::json::string_view(key.data(), key.size())] = std::move(what);
}

// Whether an instance is of `type`, as JSON Schema means it.
bool IsOfType(const value& instance, std::string_view type) {
  switch (instance.kind()) {
    case boost::json::kind::null:
      return type == "null";
    case boost::json::kind::bool_:
      return type == "boolean";
    case boost::json::kind::int64:
    case boost::json::kind::uint64:
      return type == "number" || type == "integer";
    case boost::json::kind::double_:
      return type == "number";
    case boost::json::kind::string:
      return type == "string";
    case boost::json::kind::array:
      return type == "array";
    case boost::json::kind::object:
      return type == "object";
  }
  return false;
}

class SchemaWriter {
 public:
  explicit SchemaWriter(const value& root) : root_(root) {}

  absl::StatusOr<value> Write(const value& schema, const std::string& place, int depth);

 private:
  template <typename... Parts>
  static absl::Status Bad(std::string_view place, const Parts&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(place), ": ", parts...));
  }
  static bool Constrains(std::string_view key) {
    return IsOneOf(key, kNumberKeywords) || IsOneOf(key, kStringKeywords) ||
           IsOneOf(key, kArrayKeywords) || IsOneOf(key, kObjectKeywords) || key == "type" ||
           key == "enum" || key == "const" || key == "anyOf" || key == "oneOf" || key == "allOf" ||
           key == "$ref";
  }
  // That nothing beside `keyword` constrains the value, but for `also`.
  static absl::Status CheckAlone(const object& schema, std::string_view keyword,
                                 const std::string& place,
                                 std::initializer_list<std::string_view> also = {});
  absl::StatusOr<value> WriteReference(const object& schema, const std::string& place);
  absl::StatusOr<value> WriteValues(const object& schema, const std::string& place);
  absl::StatusOr<value> WriteChoice(const object& schema, std::string_view keyword,
                                    const std::string& place, int depth);
  absl::StatusOr<value> WriteType(const object& schema, const std::string& type,
                                  const std::string& place, int depth);
  absl::Status WriteNumber(const object& schema, const std::string& place, object* out);
  absl::Status WriteString(const object& schema, const std::string& place, object* out);
  absl::Status WriteArray(const object& schema, const std::string& place, int depth, object* out);
  absl::Status WriteObject(const object& schema, const std::string& place, int depth, object* out);
  absl::Status WriteProperties(const object& schema, const std::string& place, int depth,
                               object* out);
  absl::StatusOr<std::vector<std::string>> TypesOf(const object& schema, const std::string& place);
  // A count, where it is there.
  absl::StatusOr<std::optional<int64_t>> Count(const object& schema, std::string_view key,
                                               int64_t limit, const std::string& place);

  const value& root_;
  int num_nodes_ = 0;
};

absl::Status SchemaWriter::CheckAlone(const object& schema, std::string_view keyword,
                                      const std::string& place,
                                      std::initializer_list<std::string_view> also) {
  for (const auto& member : schema) {
    const std::string_view key = ToStd(member.key());
    if (key == keyword || !Constrains(key) || IsOneOf(key, also)) continue;
    return Bad(place, ToAbsl(keyword), " beside ", ToAbsl(key), " is not supported");
  }
  return absl::OkStatus();
}

absl::StatusOr<value> SchemaWriter::Write(const value& schema, const std::string& place,
                                          int depth) {
  if (++num_nodes_ > kMaxSchemaNodes) {
    return Bad("#", "holds more than the limit of ", kMaxSchemaNodes, " schemas");
  }
  if (depth > kMaxSchemaDepth) return Bad(place, "is deeper than the limit of ", kMaxSchemaDepth);
  if (schema.is_bool()) {
    if (schema.get_bool()) return value(object());
    return Bad(place, "allows nothing");
  }
  if (!schema.is_object()) return Bad(place, "is neither an object nor true or false");
  const object& from = schema.get_object();
  for (const auto& member : from) {
    if (IsOneOf(ToStd(member.key()), kUnsupported)) {
      return Bad(place, ToAbsl(ToStd(member.key())), " is not supported");
    }
  }
  const value* unique = Find(from, "uniqueItems");
  if (unique != nullptr && !(unique->is_bool() && !unique->get_bool())) {
    return Bad(place, "uniqueItems is not supported");
  }
  if (Find(from, "$ref") != nullptr) return WriteReference(from, place);
  if (Find(from, "const") != nullptr || Find(from, "enum") != nullptr) {
    return WriteValues(from, place);
  }
  for (const std::string_view keyword : {"anyOf", "oneOf", "allOf"}) {
    if (Find(from, keyword) != nullptr) return WriteChoice(from, keyword, place, depth);
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> types, TypesOf(from, place));
  if (types.empty()) return value(object());
  if (types.size() == 1) return WriteType(from, types.front(), place, depth);
  array options;
  for (const std::string& type : types) {
    ASSIGN_OR_RETURN(value option, WriteType(from, type, place, depth));
    options.push_back(std::move(option));
  }
  return value(object({{"anyOf", std::move(options)}}));
}

absl::StatusOr<value> SchemaWriter::WriteReference(const object& schema, const std::string& place) {
  RETURN_IF_ERROR(CheckAlone(schema, "$ref", place));
  const value* target = Find(schema, "$ref");
  // A chain of references that only refer would never become a value.
  for (int num_steps = 0; num_steps < 64; ++num_steps) {
    if (!target->is_string()) return Bad(place, "$ref is not a string");
    const std::string_view uri = ToStd(target->get_string());
    if (uri.substr(0, 1) != "#" || (uri.size() > 1 && uri[1] != '/')) {
      return Bad(place, "$ref reaches outside of the schema");
    }
    if (uri.find_first_of("~%") != std::string_view::npos) {
      return Bad(place, "escapes in $ref are not supported");
    }
    const value* at = &root_;
    std::string_view path = uri.substr(std::min<size_t>(uri.size(), 2));
    while (!path.empty()) {
      const std::string_view part = path.substr(0, path.find('/'));
      path.remove_prefix(std::min(path.size(), part.size() + 1));
      at = at->is_object() ? Find(at->get_object(), part) : nullptr;
      if (at == nullptr) return Bad(place, "$ref finds nothing at ", ToAbsl(uri.substr(0, 200)));
    }
    if (!at->is_object() || Find(at->get_object(), "$ref") == nullptr) {
      return value(object({{"$ref", Find(schema, "$ref")->get_string()}}));
    }
    target = Find(at->get_object(), "$ref");
  }
  return Bad(place, "$ref leads back to itself");
}

absl::StatusOr<value> SchemaWriter::WriteValues(const object& schema, const std::string& place) {
  RETURN_IF_ERROR(CheckAlone(schema, "const", place, {"enum", "type"}));
  array values;
  const value* listed = Find(schema, "enum");
  const value* only = Find(schema, "const");
  if (listed != nullptr && !listed->is_array()) return Bad(place, "enum is not a list");
  if (only == nullptr) {
    values = listed->get_array();
  } else {
    const bool is_listed =
        listed == nullptr || std::find(listed->get_array().begin(), listed->get_array().end(),
                                       *only) != listed->get_array().end();
    if (is_listed) values.push_back(*only);
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> types, TypesOf(schema, place));
  array kept;
  for (const value& one : values) {
    const bool fits =
        types.empty() || std::any_of(types.begin(), types.end(),
                                     [&](const std::string& type) { return IsOfType(one, type); });
    if (fits) kept.push_back(one);
  }
  if (kept.empty()) return Bad(place, "no value is allowed");
  if (kept.size() > static_cast<size_t>(kMaxSchemaNodes)) {
    return Bad(place, kept.size(), " values exceed the limit of ", kMaxSchemaNodes);
  }
  return value(object({{"enum", std::move(kept)}}));
}

absl::StatusOr<value> SchemaWriter::WriteChoice(const object& schema, std::string_view keyword,
                                                const std::string& place, int depth) {
  RETURN_IF_ERROR(CheckAlone(schema, keyword, place));
  const value& listed = *Find(schema, keyword);
  if (!listed.is_array() || listed.get_array().empty()) {
    return Bad(place, ToAbsl(keyword), " is not a list, or an empty one");
  }
  const array& options = listed.get_array();
  if (keyword == "allOf" && options.size() > 1) {
    return Bad(place, "allOf of more than one schema is not supported");
  }
  array written;
  for (size_t i = 0; i < options.size(); ++i) {
    ASSIGN_OR_RETURN(
        value option,
        Write(options[i], absl::StrCat(place, "/", ToAbsl(keyword), "/", i), depth + 1));
    written.push_back(std::move(option));
  }
  if (written.size() == 1) return std::move(written[0]);
  object out;
  Put(keyword, std::move(written), &out);
  return value(std::move(out));
}

absl::StatusOr<std::vector<std::string>> SchemaWriter::TypesOf(const object& schema,
                                                               const std::string& place) {
  std::vector<std::string> types;
  const value* type = Find(schema, "type");
  const auto add = [&](const value& one) {
    if (!one.is_string() || !IsOneOf(ToStd(one.get_string()), kTypes)) {
      return Bad(place, "type is none of string, number, integer, boolean, null, array, object");
    }
    types.emplace_back(ToStd(one.get_string()));
    return absl::OkStatus();
  };
  if (type != nullptr && type->is_array()) {
    if (type->get_array().empty() || type->get_array().size() > 7) {
      return Bad(place, "type lists ", type->get_array().size(), " types");
    }
    for (const value& one : type->get_array()) RETURN_IF_ERROR(add(one));
    return types;
  }
  if (type != nullptr) {
    RETURN_IF_ERROR(add(*type));
    return types;
  }
  // Without one, a keyword of a type asks for it: fewer outputs than the schema allows, but none
  // that it does not.
  const auto has_any = [&](const auto& keywords) {
    return std::any_of(std::begin(keywords), std::end(keywords),
                       [&](std::string_view key) { return Find(schema, key) != nullptr; });
  };
  if (has_any(kObjectKeywords)) types.push_back("object");
  if (has_any(kArrayKeywords)) types.push_back("array");
  if (has_any(kStringKeywords)) types.push_back("string");
  if (has_any(kNumberKeywords)) types.push_back("number");
  return types;
}

absl::StatusOr<value> SchemaWriter::WriteType(const object& schema, const std::string& type,
                                              const std::string& place, int depth) {
  object out;
  Put("type", value(type), &out);
  if (type == "number" || type == "integer") {
    RETURN_IF_ERROR(WriteNumber(schema, place, &out));
  } else if (type == "string") {
    RETURN_IF_ERROR(WriteString(schema, place, &out));
  } else if (type == "array") {
    RETURN_IF_ERROR(WriteArray(schema, place, depth, &out));
  } else if (type == "object") {
    RETURN_IF_ERROR(WriteObject(schema, place, depth, &out));
  }
  return value(std::move(out));
}

absl::Status SchemaWriter::WriteNumber(const object& schema, const std::string& place,
                                       object* out) {
  for (const std::string_view key : kNumberKeywords) {
    const value* bound = Find(schema, key);
    if (bound == nullptr) continue;
    if (!bound->is_number()) return Bad(place, ToAbsl(key), " is not a number");
    const double number = bound->to_number<double>();
    // The library writes bounds as decimal digits.
    if (!(number > -1e15 && number < 1e15)) return Bad(place, ToAbsl(key), " exceeds 1e15");
    Put(key, *bound, out);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<int64_t>> SchemaWriter::Count(const object& schema,
                                                           std::string_view key, int64_t limit,
                                                           const std::string& place) {
  const value* count = Find(schema, key);
  if (count == nullptr) return std::optional<int64_t>();
  boost::json::error_code error;
  const int64_t number = count->is_number() ? count->to_number<int64_t>(error) : -1;
  if (error || number < 0) return Bad(place, ToAbsl(key), " is not a count");
  if (number > limit) return Bad(place, ToAbsl(key), " ", number, " exceeds the limit of ", limit);
  return std::optional<int64_t>(number);
}

absl::Status SchemaWriter::WriteString(const object& schema, const std::string& place,
                                       object* out) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> min_length,
                   Count(schema, "minLength", kMaxLength, place));
  ASSIGN_OR_RETURN(const std::optional<int64_t> max_length,
                   Count(schema, "maxLength", kMaxLength, place));
  const value* pattern = Find(schema, "pattern");
  const value* format = Find(schema, "format");
  const bool has_length = min_length.value_or(0) > 0 || max_length.has_value();
  if (pattern != nullptr) {
    if (!pattern->is_string()) return Bad(place, "pattern is not a string");
    if (has_length) return Bad(place, "pattern beside minLength or maxLength is not supported");
    auto rewritten = PatternInJsonString(ToStd(pattern->get_string()));
    if (!rewritten.ok()) return Bad(place, "pattern: ", rewritten.status().message());
    Put("pattern", value(*rewritten), out);
    return absl::OkStatus();
  }
  if (has_length) {
    if (max_length.has_value() && *max_length < min_length.value_or(0)) {
      return Bad(place, "minLength exceeds maxLength");
    }
    // Not as these keywords: the library's strings of bounded length may hold control characters.
    const std::string upper = max_length.has_value() ? absl::StrCat(*max_length) : "";
    Put("pattern",
        value(absl::StrCat(R"([^"\\\x00-\x1f]{)", min_length.value_or(0), ",", upper, "}")), out);
    return absl::OkStatus();
  }
  if (format == nullptr || !format->is_string()) return absl::OkStatus();
  const std::string_view name = ToStd(format->get_string());
  if (name == "email") {
    Put("pattern", value(boost::json::string_view(kEmail.data(), kEmail.size())), out);
  } else if (IsOneOf(name, kFormats)) {
    Put("format", *format, out);
  }
  return absl::OkStatus();
}

absl::Status SchemaWriter::WriteArray(const object& schema, const std::string& place, int depth,
                                      object* out) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> min_items,
                   Count(schema, "minItems", kMaxItems, place));
  ASSIGN_OR_RETURN(std::optional<int64_t> max_items, Count(schema, "maxItems", kMaxLength, place));
  if (Find(schema, "unevaluatedItems") != nullptr) {
    return Bad(place, "unevaluatedItems is not supported");
  }
  // Before 2020-12 a list of items was what prefixItems is now.
  const value* items = Find(schema, "items");
  const value* prefix = Find(schema, "prefixItems");
  if (prefix == nullptr && items != nullptr && items->is_array()) {
    prefix = items;
    items = Find(schema, "additionalItems");
  }
  int64_t num_prefix = 0;
  if (prefix != nullptr) {
    if (!prefix->is_array()) return Bad(place, "prefixItems is not a list");
    array written;
    for (size_t i = 0; i < prefix->get_array().size(); ++i) {
      ASSIGN_OR_RETURN(value item, Write(prefix->get_array()[i],
                                         absl::StrCat(place, "/prefixItems/", i), depth + 1));
      written.push_back(std::move(item));
    }
    num_prefix = static_cast<int64_t>(written.size());
    if (num_prefix > 0) Put("prefixItems", std::move(written), out);
  }
  if (items == nullptr) {
    // After a listed beginning nothing else, unless more is needed.
    const bool is_closed = num_prefix > 0 && min_items.value_or(0) <= num_prefix;
    Put("items", is_closed ? value(false) : value(object()), out);
  } else if (items->is_bool() && !items->get_bool()) {
    Put("items", value(false), out);
  } else {
    ASSIGN_OR_RETURN(value item, Write(*items, absl::StrCat(place, "/items"), depth + 1));
    Put("items", std::move(item), out);
  }
  if (max_items.has_value() && *max_items < min_items.value_or(0)) {
    return Bad(place, "minItems exceeds maxItems");
  }
  if (min_items.value_or(0) > 0) Put("minItems", value(*min_items), out);
  if (max_items.has_value()) Put("maxItems", value(*max_items), out);
  return absl::OkStatus();
}

absl::Status SchemaWriter::WriteProperties(const object& schema, const std::string& place,
                                           int depth, object* out) {
  object written;
  const value* properties = Find(schema, "properties");
  if (properties != nullptr) {
    if (!properties->is_object()) return Bad(place, "properties is not an object");
    for (const auto& member : properties->get_object()) {
      const std::string_view name = ToStd(member.key());
      ASSIGN_OR_RETURN(
          value property,
          Write(member.value(), absl::StrCat(place, "/properties/", ToAbsl(name.substr(0, 64))),
                depth + 1));
      Put(name, std::move(property), &written);
    }
  }
  const value* required = Find(schema, "required");
  if (required != nullptr) {
    if (!required->is_array()) return Bad(place, "required is not a list");
    const value* additional = Find(schema, "additionalProperties");
    for (const value& name : required->get_array()) {
      if (!name.is_string()) return Bad(place, "required lists what is not a string");
      if (Find(written, ToStd(name.get_string())) != nullptr) continue;
      // It is one of the others, by their schema.
      if (Find(schema, "patternProperties") != nullptr ||
          (additional != nullptr && additional->is_bool() && !additional->get_bool())) {
        return Bad(place, "a required property is not among properties");
      }
      value property = value(object());
      if (additional != nullptr) {
        ASSIGN_OR_RETURN(
            property, Write(*additional, absl::StrCat(place, "/additionalProperties"), depth + 1));
      }
      Put(ToStd(name.get_string()), std::move(property), &written);
    }
    if (!required->get_array().empty()) Put("required", *required, out);
  }
  if (!written.empty()) Put("properties", std::move(written), out);
  return absl::OkStatus();
}

absl::Status SchemaWriter::WriteObject(const object& schema, const std::string& place, int depth,
                                       object* out) {
  RETURN_IF_ERROR(WriteProperties(schema, place, depth, out));
  const bool has_properties = Find(*out, "properties") != nullptr;
  const value* patterns = Find(schema, "patternProperties");
  const value* names = Find(schema, "propertyNames");
  const value* additional = Find(schema, "additionalProperties");
  if (additional == nullptr) additional = Find(schema, "unevaluatedProperties");
  ASSIGN_OR_RETURN(const std::optional<int64_t> min_properties,
                   Count(schema, "minProperties", kMaxItems, place));
  ASSIGN_OR_RETURN(const std::optional<int64_t> max_properties,
                   Count(schema, "maxProperties", kMaxLength, place));
  const bool has_counts = min_properties.value_or(0) > 0 || max_properties.has_value();
  if ((patterns != nullptr || names != nullptr) && has_properties) {
    return Bad(place,
               "patternProperties and propertyNames beside named properties are not supported");
  }
  if (patterns != nullptr) {
    if (!patterns->is_object() || patterns->get_object().size() != 1 || names != nullptr) {
      return Bad(
          place,
          "patternProperties of more than one pattern, or beside propertyNames, is not supported");
    }
    const auto& member = *patterns->get_object().begin();
    auto pattern = PatternInJsonString(ToStd(member.key()));
    if (!pattern.ok()) return Bad(place, "patternProperties: ", pattern.status().message());
    ASSIGN_OR_RETURN(value property,
                     Write(member.value(), absl::StrCat(place, "/patternProperties"), depth + 1));
    object written;
    Put(*pattern, std::move(property), &written);
    Put("patternProperties", std::move(written), out);
    Put("additionalProperties", value(false), out);
  } else if (names != nullptr) {
    object name;
    if (!names->is_object()) return Bad(place, "propertyNames is not an object");
    Put("type", value("string"), &name);
    RETURN_IF_ERROR(WriteString(names->get_object(), absl::StrCat(place, "/propertyNames"), &name));
    if (additional != nullptr)
      return Bad(place, "propertyNames beside additionalProperties is not supported");
    Put("propertyNames", std::move(name), out);
    Put("additionalProperties", value(true), out);
  } else if (additional == nullptr) {
    // Named properties only, unless more are needed.
    const int64_t num_named =
        has_properties ? static_cast<int64_t>(Find(*out, "properties")->get_object().size()) : 0;
    Put("additionalProperties", value(!has_properties || min_properties.value_or(0) > num_named),
        out);
  } else if (additional->is_bool()) {
    Put("additionalProperties", *additional, out);
  } else {
    ASSIGN_OR_RETURN(value written,
                     Write(*additional, absl::StrCat(place, "/additionalProperties"), depth + 1));
    Put("additionalProperties", std::move(written), out);
  }
  if (!has_counts) return absl::OkStatus();
  if (min_properties.has_value()) Put("minProperties", value(*min_properties), out);
  if (max_properties.has_value()) Put("maxProperties", value(*max_properties), out);
  return absl::OkStatus();
}

// Schemas under $defs and definitions, where references find them.
absl::Status WriteDefinitions(const value& root, SchemaWriter* writer, value* out) {
  if (!root.is_object()) return absl::OkStatus();
  for (const std::string_view key : {"$defs", "definitions"}) {
    const value* definitions = Find(root.get_object(), key);
    if (definitions == nullptr || !definitions->is_object()) continue;
    object written;
    for (const auto& member : definitions->get_object()) {
      const std::string_view name = ToStd(member.key());
      ASSIGN_OR_RETURN(
          value schema,
          writer->Write(member.value(),
                        absl::StrCat("#/", ToAbsl(key), "/", ToAbsl(name.substr(0, 64))), 1));
      Put(name, std::move(schema), &written);
    }
    Put(key, std::move(written), &out->get_object());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<value> NormalizeSchema(const value& schema) {
  SchemaWriter writer(schema);
  ASSIGN_OR_RETURN(value out, writer.Write(schema, "#", 0));
  RETURN_IF_ERROR(WriteDefinitions(schema, &writer, &out));
  return out;
}

absl::StatusOr<value> ParseUntrustedJson(std::string_view text, size_t max_bytes) {
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.size(), " bytes exceed the limit of ", max_bytes));
  }
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("it is not UTF-8");
  boost::json::parse_options options;
  options.max_depth = kMaxSchemaDepth;
  boost::json::error_code error;
  value parsed =
      boost::json::parse(boost::json::string_view(text.data(), text.size()), error, {}, options);
  if (error) return absl::InvalidArgumentError(absl::StrCat("it is not JSON: ", error.message()));
  return parsed;
}

}  // namespace fastgen
