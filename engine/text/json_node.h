// A JSON file of a tokenizer, read with its places: every error says where in the file it is.
//
// The files are untrusted: size and depth are bounded, and ids are checked as they are read.
// Thread rule: any thread; a Node must not outlive its JSON value.
// Tested by tests/engine/text/tokenizer_json_test.cc and tekken_test.cc.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {

template <typename... Parts>
absl::Status InvalidJson(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// A text of the file for use in a message: short, and printable.
std::string Quote(std::string_view text);

inline std::string_view View(const boost::json::string& text) { return {text.data(), text.size()}; }

// INVALID_ARGUMENT, naming `file`, for what is not JSON, too large or too deep.
absl::StatusOr<boost::json::value> ParseJson(std::string_view file, std::string_view text,
                                             boost::json::storage_ptr storage);

// A JSON object together with its place in the file, for messages.
class JsonNode {
 public:
  static absl::StatusOr<JsonNode> From(const boost::json::value& value, std::string path) {
    if (!value.is_object()) return InvalidJson(path, " is not an object");
    return JsonNode(&value.get_object(), std::move(path));
  }

  const std::string& path() const { return path_; }
  const boost::json::object& object() const { return *object_; }
  std::string PathOf(std::string_view key) const { return absl::StrCat(path_, ".", ToAbsl(key)); }

  // nullptr where the member is missing or null.
  const boost::json::value* Find(std::string_view key) const {
    const boost::json::value* value =
        object_->if_contains(boost::json::string_view(key.data(), key.size()));
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  absl::StatusOr<bool> Bool(std::string_view key, bool missing) const {
    const boost::json::value* value = Find(key);
    if (value == nullptr) return missing;
    if (!value->is_bool()) return InvalidJson(PathOf(key), " is not true or false");
    return value->get_bool();
  }

  absl::StatusOr<std::string> String(std::string_view key) const {
    const boost::json::value* value = Find(key);
    if (value == nullptr) return InvalidJson(PathOf(key), " is missing");
    if (!value->is_string()) return InvalidJson(PathOf(key), " is not a string");
    return std::string(View(value->get_string()));
  }

  absl::StatusOr<const boost::json::array*> Array(std::string_view key) const {
    const boost::json::value* value = Find(key);
    if (value == nullptr) return InvalidJson(PathOf(key), " is missing");
    if (!value->is_array()) return InvalidJson(PathOf(key), " is not a list");
    return &value->get_array();
  }

 private:
  JsonNode(const boost::json::object* object, std::string path)
      : object_(object), path_(std::move(path)) {}
  const boost::json::object* object_;
  std::string path_;
};

absl::StatusOr<int32_t> TokenId(const boost::json::value& value, std::string_view path);

absl::Status Unsupported(const JsonNode& node, std::string_view type);

// Calls `read` for a component, or for each component of a Sequence; `list` names the Sequence's
// member.
template <typename Read>
absl::Status ForEachComponent(const boost::json::value& value, std::string path,
                              std::string_view list, Read read) {
  ASSIGN_OR_RETURN(const JsonNode node, JsonNode::From(value, std::move(path)));
  const absl::StatusOr<std::string> type = node.String("type");
  if (!type.ok()) return type.status();
  if (*type != "Sequence") return read(node, *type);
  ASSIGN_OR_RETURN(const boost::json::array* const components, node.Array(list));
  for (size_t i = 0; i < components->size(); ++i) {
    RETURN_IF_ERROR(ForEachComponent((*components)[i], absl::StrCat(node.PathOf(list), "[", i, "]"),
                                     list, read));
  }
  return absl::OkStatus();
}

}  // namespace fastgen
