#include "server/gateway/json_fields.h"

#include <algorithm>
#include <boost/json/monotonic_resource.hpp>
#include <boost/json/parse.hpp>
#include <cmath>
#include <exception>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxFields = 512;
constexpr size_t kMaxUnknown = 32;
constexpr size_t kMaxUnknownBytes = 64;

std::optional<int64_t> IntegerOf(const json::value& value) {
  if (value.is_int64()) return value.get_int64();
  // 16.0 is an integer too: JSON has one kind of number.
  if (!value.is_double()) return std::nullopt;
  const double number = value.get_double();
  if (!(std::abs(number) < 9.0e15) || number != std::floor(number)) return std::nullopt;
  return static_cast<int64_t>(number);
}

// A path may hold anything the client wrote; a header may not.
std::string HeaderSafe(std::string_view text) {
  std::string safe;
  for (char c : text.substr(0, kMaxUnknownBytes)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-' || c == '.' || c == '[' || c == ']';
    safe += plain ? c : '?';
  }
  return safe;
}

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

}  // namespace

std::optional<json::object> ParseJsonObject(std::string_view body, std::optional<ApiError>* error) {
  json::parse_options options;
  options.max_depth = kMaxDepth;
  try {
    json::error_code code;
    json::value value =
        json::parse(json::string_view(body.data(), body.size()), code,
                    json::make_shared_resource<json::monotonic_resource>(), options);
    if (code) {
      const bool deep = code == json::error::too_deep;
      *error = ApiError{
          .message = deep ? absl::StrCat("the body is nested deeper than ", kMaxDepth, " levels")
                          : absl::StrCat("the body is not JSON: ", code.message()),
          .code = "invalid_json"};
      return std::nullopt;
    }
    if (!value.is_object()) {
      *error = ApiError{
          .message = absl::StrCat("the body must be a JSON object, not ", ToAbsl(KindOf(value))),
          .code = "invalid_json"};
      return std::nullopt;
    }
    if (value.get_object().size() > kMaxFields) {
      *error = ApiError{.message = absl::StrCat("the body has more than ", kMaxFields, " fields"),
                        .code = "invalid_json"};
      return std::nullopt;
    }
    return std::move(value.get_object());
  } catch (const std::exception&) {  // only memory can run out here
    *error = ApiError{
        .status = 413, .message = "the body does not fit in memory", .code = "request_too_large"};
    return std::nullopt;
  }
}

std::string_view KindOf(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
    case json::kind::double_:
      return "a number";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "a list";
    case json::kind::object:
      return "an object";
  }
  return "something else";
}

std::optional<int32_t> TokenIdOf(const json::value& value) {
  const std::optional<int64_t> id = IntegerOf(value);
  if (!id.has_value() || *id < 0 || *id > std::numeric_limits<int32_t>::max()) return std::nullopt;
  return static_cast<int32_t>(*id);
}

JsonFields::JsonFields(const json::object& object, std::string path, std::optional<ApiError>* error)
    : object_(object), path_(std::move(path)), error_(error) {}

std::string JsonFields::PathOf(std::string_view name) const {
  return path_.empty() ? std::string(name) : absl::StrCat(path_, ".", ToAbsl(name));
}

void JsonFields::Fail(std::string_view name, std::string message, std::string_view code) {
  if (!ok()) return;
  *error_ =
      ApiError{.message = std::move(message), .param = PathOf(name), .code = std::string(code)};
}

const json::value* JsonFields::Find(std::string_view name) {
  known_.push_back(name);
  const json::value* value = object_.if_contains(json::string_view(name.data(), name.size()));
  return value == nullptr || value->is_null() ? nullptr : value;
}

void JsonFields::Accept(std::initializer_list<std::string_view> names) {
  known_.insert(known_.end(), names.begin(), names.end());
}

std::vector<std::string_view> JsonFields::NamesWithPrefix(std::string_view prefix) const {
  std::vector<std::string_view> names;
  for (const auto& item : object_) {
    const std::string_view name(item.key().data(), item.key().size());
    if (name.substr(0, prefix.size()) == prefix) names.push_back(name);
  }
  return names;
}

std::optional<bool> JsonFields::Bool(std::string_view name) {
  const json::value* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_bool()) return value->get_bool();
  Fail(name, absl::StrCat(PathOf(name), " must be a boolean, not ", ToAbsl(KindOf(*value))),
       "invalid_type");
  return std::nullopt;
}

std::optional<int64_t> JsonFields::Int(std::string_view name, int64_t min, int64_t max) {
  const json::value* value = Find(name);
  if (value == nullptr) return std::nullopt;
  const bool huge = value->is_uint64();  // above int64: an integer, and too large for every bound
  const std::optional<int64_t> number = IntegerOf(*value);
  if (!number.has_value() && !huge) {
    Fail(name,
         absl::StrCat(
             PathOf(name), " must be an integer, not ",
             ToAbsl(value->is_double() ? "a fraction or a number too large" : KindOf(*value))),
         "invalid_type");
    return std::nullopt;
  }
  if (huge || *number < min || *number > max) {
    Fail(name, absl::StrCat(PathOf(name), " must be between ", min, " and ", max, ", not ",
                            huge ? absl::StrCat(value->get_uint64()) : absl::StrCat(*number)));
    return std::nullopt;
  }
  return number;
}

std::optional<int32_t> JsonFields::Int32(std::string_view name, int32_t min) {
  const std::optional<int64_t> number = Int(name, min, std::numeric_limits<int32_t>::max());
  if (!number.has_value()) return std::nullopt;
  return static_cast<int32_t>(*number);
}

std::optional<float> JsonFields::Float(std::string_view name) {
  const json::value* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    Fail(name, absl::StrCat(PathOf(name), " must be a number, not ", ToAbsl(KindOf(*value))),
         "invalid_type");
    return std::nullopt;
  }
  const double number = value->to_number<double>();
  if (!std::isfinite(number) || std::abs(number) > std::numeric_limits<float>::max()) {
    Fail(name, absl::StrCat(PathOf(name), " is too large"));
    return std::nullopt;
  }
  return static_cast<float>(number);
}

std::optional<std::string> JsonFields::String(std::string_view name) {
  const json::value* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return std::string(View(value->get_string()));
  Fail(name, absl::StrCat(PathOf(name), " must be a string, not ", ToAbsl(KindOf(*value))),
       "invalid_type");
  return std::nullopt;
}

const json::object* JsonFields::Object(std::string_view name) {
  const json::value* value = Find(name);
  if (value == nullptr) return nullptr;
  if (value->is_object()) return &value->get_object();
  Fail(name, absl::StrCat(PathOf(name), " must be an object, not ", ToAbsl(KindOf(*value))),
       "invalid_type");
  return nullptr;
}

const json::array* JsonFields::Array(std::string_view name, size_t max_items) {
  const json::value* value = Find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) {
    Fail(name, absl::StrCat(PathOf(name), " must be a list, not ", ToAbsl(KindOf(*value))),
         "invalid_type");
    return nullptr;
  }
  if (value->get_array().size() > max_items) {
    Fail(name, absl::StrCat(PathOf(name), " has ", value->get_array().size(),
                            " items; the limit is ", max_items));
    return nullptr;
  }
  return &value->get_array();
}

bool JsonFields::EachObject(std::string_view name, size_t max_items,
                            const std::function<void(JsonFields*)>& read) {
  const json::array* array = Array(name, max_items);
  if (array == nullptr) return false;
  for (size_t i = 0; i < array->size() && ok(); ++i) {
    const std::string item = absl::StrCat(ToAbsl(name), "[", i, "]");
    const json::object* object = (*array)[i].if_object();
    if (object == nullptr) {
      Fail(item,
           absl::StrCat(PathOf(item), " must be an object, not ", ToAbsl(KindOf((*array)[i]))),
           "invalid_type");
      return false;
    }
    JsonFields fields(*object, PathOf(item), error_);
    read(&fields);
  }
  return ok();
}

std::optional<std::vector<std::string>> JsonFields::Strings(std::string_view name,
                                                            size_t max_items) {
  const json::array* array = Array(name, max_items);
  if (array == nullptr) return std::nullopt;
  std::vector<std::string> strings;
  for (const json::value& item : *array) {
    if (!item.is_string()) {
      Fail(name, absl::StrCat(PathOf(name), " must hold strings, not ", ToAbsl(KindOf(item))),
           "invalid_type");
      return std::nullopt;
    }
    strings.emplace_back(View(item.get_string()));
  }
  return strings;
}

std::optional<std::vector<int32_t>> JsonFields::Ids(std::string_view name, size_t max_items) {
  const json::array* array = Array(name, max_items);
  if (array == nullptr) return std::nullopt;
  std::vector<int32_t> ids;
  ids.reserve(array->size());
  for (const json::value& item : *array) {
    const std::optional<int32_t> id = TokenIdOf(item);
    if (!id.has_value()) {
      Fail(name, absl::StrCat(PathOf(name), "[", ids.size(), "] is not a token id"),
           "invalid_type");
      return std::nullopt;
    }
    ids.push_back(*id);
  }
  return ids;
}

void JsonFields::AppendIgnored(std::string_view name, std::vector<std::string>* ignored) const {
  if (ignored->size() < kMaxUnknown) ignored->push_back(HeaderSafe(PathOf(name)));
}

void JsonFields::AppendUnknown(std::vector<std::string>* unknown) const {
  for (const auto& item : object_) {
    if (unknown->size() >= kMaxUnknown) return;
    const std::string_view name(item.key().data(), item.key().size());
    if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
      unknown->push_back(HeaderSafe(PathOf(name)));
    }
  }
}

}  // namespace fastgen::gateway
