#include "engine/model/config_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen {
namespace {

namespace json = boost::json;

constexpr size_t kMaxConfigBytes = 4 << 20;
constexpr size_t kMaxDepth = 16;

// A value as it stands in the file, cut to a length fit for a message.
std::string Shown(const json::value* value) {
  if (value == nullptr) return "null";
  std::string text = json::serialize(*value);
  if (text.size() > 100) text = text.substr(0, 100) + "...";
  return text;
}

}  // namespace

const json::value* ConfigFields::Find(std::string_view key) const {
  const json::value* value = object_.if_contains(json::string_view(key.data(), key.size()));
  return value == nullptr || value->is_null() ? nullptr : value;
}

int64_t ConfigFields::RequiredSize(std::string_view key) {
  if (!Has(key)) Missing(key, "");
  return Size(key, 1);
}

int64_t ConfigFields::Size(std::string_view key, int64_t absent) {
  const int64_t value = Int(key, absent);
  if (!Has(key) || value > 0) return value;
  WrongValue(key, "positive");
  return absent;
}

int64_t ConfigFields::Int(std::string_view key, int64_t absent) {
  const json::value* value = Find(key);
  if (value == nullptr) return absent;
  if (value->is_int64()) return value->get_int64();
  WrongValue(key, "an integer");
  return absent;
}

double ConfigFields::Number(std::string_view key, double absent) {
  const json::value* value = Find(key);
  if (value == nullptr) return absent;
  if (value->is_number()) return value->to_number<double>();
  WrongValue(key, "a number");
  return absent;
}

bool ConfigFields::Bool(std::string_view key, bool absent) {
  const json::value* value = Find(key);
  if (value == nullptr) return absent;
  if (value->is_bool()) return value->get_bool();
  WrongValue(key, "true or false");
  return absent;
}

std::string ConfigFields::String(std::string_view key, std::string_view absent) {
  const json::value* value = Find(key);
  if (value == nullptr) return std::string(absent);
  if (value->is_string()) {
    return std::string(value->get_string().data(), value->get_string().size());
  }
  WrongValue(key, "a string");
  return std::string(absent);
}

std::vector<int32_t> ConfigFields::Ids(std::string_view key, int64_t vocab) {
  const json::value* value = Find(key);
  if (value == nullptr) return {};
  const json::array one = {*value};
  const json::array& list = value->is_array() ? value->get_array() : one;
  std::vector<int32_t> ids;
  for (const json::value& id : list) {
    if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() > INT32_MAX) {
      WrongValue(key, "a token id or a list of them");
      return {};
    }
    if (id.get_int64() >= vocab) {
      WrongValue(key, absl::StrCat("inside the vocabulary of ", vocab));
      return {};
    }
    ids.push_back(static_cast<int32_t>(id.get_int64()));
  }
  return ids;
}

double ConfigFields::NumberIn(std::string_view key, double absent, double min, double max,
                              Minimum minimum) {
  const double value = Number(key, absent);
  const bool is_above = minimum == Minimum::kOpen ? value > min : value >= min;
  if (!Has(key) || (is_above && value <= max)) return value;
  WrongValue(key, absl::StrCat("in ", minimum == Minimum::kOpen ? "(" : "[", min, ", ", max, "]"));
  return absent;
}

void ConfigFields::Refuse(std::string_view key, std::string_view why) {
  Fail(absl::UnimplementedError(
      absl::StrCat(prefix_, ToAbsl(key), " is ", Shown(Find(key)), ": ", ToAbsl(why))));
}

void ConfigFields::WrongValue(std::string_view key, std::string_view wanted) {
  Fail(absl::InvalidArgumentError(absl::StrCat(prefix_, ToAbsl(key), " is ", Shown(Find(key)),
                                               ", it must be ", ToAbsl(wanted))));
}

void ConfigFields::Missing(std::string_view key, std::string_view why) {
  Fail(absl::InvalidArgumentError(
      absl::StrCat(prefix_, ToAbsl(key), " is missing", why.empty() ? "" : " ", ToAbsl(why))));
}

void ConfigFields::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

absl::StatusOr<json::object> ParseConfigObject(std::string_view text, std::string_view file_name) {
  if (text.size() > kMaxConfigBytes) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(file_name), " has ", text.size(),
                                                   " bytes, at most ", kMaxConfigBytes,
                                                   " are allowed"));
  }
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code error;
  json::value value = json::parse(json::string_view(text.data(), text.size()), error, {}, options);
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat(ToAbsl(file_name), " is not valid JSON: ", error.message()));
  }
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(file_name), " is not a JSON object"));
  }
  return std::move(value.get_object());
}

}  // namespace fastgen
