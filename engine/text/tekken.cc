#include "engine/text/tekken.h"

#include <algorithm>
#include <boost/json.hpp>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/json_node.h"
#include "engine/text/token_table.h"

namespace fastgen {
namespace {

namespace json = boost::json;

// The special tokens of files that list none; those up to the number that the file names are
// called <SPECIAL_n>.
constexpr const char* kFirstSpecialTokens[] = {
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
};

absl::StatusOr<JsonNode> Member(const JsonNode& node, std::string_view key) {
  const json::value* value = node.Find(key);
  if (value == nullptr) return InvalidJson(node.PathOf(key), " is missing");
  return JsonNode::From(*value, node.PathOf(key));
}

absl::StatusOr<size_t> Count(const JsonNode& node, std::string_view key) {
  const json::value* value = node.Find(key);
  if (value == nullptr) return InvalidJson(node.PathOf(key), " is missing");
  ASSIGN_OR_RETURN(const int32_t count, TokenId(*value, node.PathOf(key)));
  return static_cast<size_t>(count);
}

absl::Status ReadSpecialTokens(const JsonNode& root, size_t num_special, TokenizerSource* source) {
  std::vector<std::string> texts(num_special);
  if (root.Find("special_tokens") == nullptr) {
    for (size_t i = 0; i < std::min(num_special, std::size(kFirstSpecialTokens)); ++i) {
      texts[i] = kFirstSpecialTokens[i];
    }
  } else {
    ASSIGN_OR_RETURN(const json::array* const tokens, root.Array("special_tokens"));
    for (size_t i = 0; i < tokens->size(); ++i) {
      ASSIGN_OR_RETURN(
          const JsonNode token,
          JsonNode::From((*tokens)[i], absl::StrCat(root.PathOf("special_tokens"), "[", i, "]")));
      ASSIGN_OR_RETURN(const size_t rank, Count(token, "rank"));
      if (rank >= num_special || !texts[rank].empty()) {
        return InvalidJson(token.PathOf("rank"), " ", rank, " is taken or not below the ",
                           num_special, " special tokens");
      }
      ASSIGN_OR_RETURN(texts[rank], token.String("token_str"));
      if (texts[rank].empty()) return InvalidJson(token.PathOf("token_str"), " is empty");
    }
  }
  for (size_t i = 0; i < num_special; ++i) {
    const int32_t id = static_cast<int32_t>(i);
    if (texts[i].empty()) texts[i] = absl::StrCat("<SPECIAL_", i, ">");
    if (texts[i] == "<s>") source->bos_id = id;
    if (texts[i] == "</s>") source->eos_ids = {id};
    source->added_tokens.push_back({.content = texts[i], .id = id, .special = true});
  }
  if (source->bos_id.has_value()) source->prefix_ids = {*source->bos_id};
  return absl::OkStatus();
}

absl::Status ReadRanks(const JsonNode& root, size_t num_ranks, TokenizerSource* source) {
  ASSIGN_OR_RETURN(const json::array* const vocab, root.Array("vocab"));
  if (num_ranks > vocab->size()) {
    return InvalidJson(root.PathOf("vocab"), " has ", vocab->size(), " entries for ", num_ranks,
                       " ranks");
  }
  for (size_t i = 0; i < num_ranks; ++i) {
    ASSIGN_OR_RETURN(const JsonNode entry,
                     JsonNode::From((*vocab)[i], absl::StrCat(root.PathOf("vocab"), "[", i, "]")));
    ASSIGN_OR_RETURN(const size_t rank, Count(entry, "rank"));
    if (rank != i) return InvalidJson(entry.PathOf("rank"), " is ", rank, " and not ", i);
    ASSIGN_OR_RETURN(const std::string base64, entry.String("token_bytes"));
    std::string bytes;
    if (!absl::Base64Unescape(base64, &bytes) || bytes.empty()) {
      return InvalidJson(entry.PathOf("token_bytes"), " ", Quote(base64), " is not base64");
    }
    if (i < 256 && bytes.size() != 1) {
      return InvalidJson(entry.PathOf("token_bytes"), " has ", bytes.size(),
                         " bytes: the first 256 ranks are the single bytes");
    }
    source->pieces.push_back(std::move(bytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSource> ParseTekken(std::string_view tekken_json) {
  json::monotonic_resource memory;
  ASSIGN_OR_RETURN(const json::value value, ParseJson("tekken.json", tekken_json, &memory));
  ASSIGN_OR_RETURN(const JsonNode root, JsonNode::From(value, "tekken.json"));
  ASSIGN_OR_RETURN(const JsonNode config, Member(root, "config"));
  TokenizerSource source;
  source.model = TokenizerSource::Model::kByteLevelBpe;
  source.pieces_are_bytes = true;
  source.merge_order = TokenizerSource::MergeOrder::kById;
  source.ignore_merges = true;
  ASSIGN_OR_RETURN(std::string pattern, config.String("pattern"));
  source.splits.push_back({std::move(pattern)});
  ASSIGN_OR_RETURN(const size_t vocab_size, Count(config, "default_vocab_size"));
  ASSIGN_OR_RETURN(const size_t num_special, Count(config, "default_num_special_tokens"));
  if (vocab_size < num_special + 256) {
    return InvalidJson(config.PathOf("default_vocab_size"), " ", vocab_size, " leaves no room for ",
                       num_special, " special tokens and 256 bytes");
  }
  source.pieces.resize(num_special);
  RETURN_IF_ERROR(ReadRanks(root, vocab_size - num_special, &source));
  RETURN_IF_ERROR(ReadSpecialTokens(root, num_special, &source));
  return source;
}

}  // namespace fastgen
