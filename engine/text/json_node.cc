#include "engine/text/json_node.h"

#include <exception>

#include "absl/strings/escaping.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer_json.h"

namespace fastgen {
namespace {

namespace json = boost::json;

constexpr size_t kMaxDepth = 32;

}  // namespace

std::string Quote(std::string_view text) {
  return absl::StrCat("'", absl::CHexEscape(ToAbsl(text.substr(0, 64))), "'");
}

absl::StatusOr<json::value> ParseJson(std::string_view file, std::string_view text,
                                      json::storage_ptr storage) {
  if (text.size() > kMaxTokenizerJsonBytes) {
    return InvalidJson(ToAbsl(file), " has ", text.size(), " bytes, more than ",
                       kMaxTokenizerJsonBytes);
  }
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code error;
  try {
    json::value value = json::parse(json::string_view(text.data(), text.size()), error,
                                    std::move(storage), options);
    if (error) return InvalidJson(ToAbsl(file), " is not JSON: ", error.message());
    return value;
  } catch (const std::exception& e) {
    return InvalidJson(ToAbsl(file), " cannot be read: ", e.what());
  }
}

absl::StatusOr<int32_t> TokenId(const json::value& value, std::string_view path) {
  if (value.is_int64() && value.get_int64() >= 0 && value.get_int64() < kMaxVocabularySize) {
    return static_cast<int32_t>(value.get_int64());
  }
  return InvalidJson(ToAbsl(path), ": ", Quote(json::serialize(value)), " is not an id in [0, ",
                     kMaxVocabularySize, ")");
}

absl::Status Unsupported(const JsonNode& node, std::string_view type) {
  return InvalidJson(node.path(), " type ", Quote(type), " is not supported");
}

}  // namespace fastgen
