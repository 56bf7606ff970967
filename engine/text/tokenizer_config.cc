#include "engine/text/tokenizer_config.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/json_node.h"
#include "engine/text/token_table.h"

namespace fastgen {
namespace {

namespace json = boost::json;

std::optional<int32_t> FindToken(const TokenizerSource& source, std::string_view text) {
  for (const AddedToken& token : source.added_tokens) {
    if (token.content == text) return token.id;
  }
  for (size_t id = 0; id < source.pieces.size(); ++id) {
    if (!text.empty() && source.pieces[id] == text) return static_cast<int32_t>(id);
  }
  return std::nullopt;
}

// A token of the config is a string, or an object with the string as its content.
absl::StatusOr<std::string> ConfigToken(const JsonNode& config, std::string_view key) {
  const json::value* value = config.Find(key);
  if (value == nullptr) return std::string();
  if (value->is_string()) return std::string(View(value->get_string()));
  ASSIGN_OR_RETURN(const JsonNode token, JsonNode::From(*value, config.PathOf(key)));
  return token.String("content");
}

absl::StatusOr<std::string> ConfigTemplate(const JsonNode& config) {
  const json::value* value = config.Find("chat_template");
  if (value == nullptr) return std::string();
  if (value->is_string()) return std::string(View(value->get_string()));
  ASSIGN_OR_RETURN(const json::array* const templates, config.Array("chat_template"));
  for (size_t i = 0; i < templates->size(); ++i) {
    ASSIGN_OR_RETURN(
        const JsonNode node,
        JsonNode::From((*templates)[i], absl::StrCat(config.PathOf("chat_template"), "[", i, "]")));
    ASSIGN_OR_RETURN(const std::string name, node.String("name"));
    if (name == "default") return node.String("template");
  }
  return std::string();
}

absl::StatusOr<std::optional<bool>> OptionalBool(const JsonNode& config, std::string_view key) {
  if (config.Find(key) == nullptr) return std::optional<bool>();
  ASSIGN_OR_RETURN(const bool value, config.Bool(key, false));
  return std::optional<bool>(value);
}

// {"3": {"content": "[INST]", ...}, ...}
absl::Status ReadAddedTokensDecoder(const JsonNode& config, TokenizerConfig* out) {
  const json::value* value = config.Find("added_tokens_decoder");
  if (value == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const JsonNode tokens,
                   JsonNode::From(*value, config.PathOf("added_tokens_decoder")));
  for (const auto& [key, member] : tokens.object()) {
    const std::string_view name(key.data(), key.size());
    ASSIGN_OR_RETURN(const JsonNode node, JsonNode::From(member, tokens.PathOf(Quote(name))));
    ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(node));
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), token.id);
    if (error != std::errc() || end != name.data() + name.size() || token.id < 0 ||
        token.id >= kMaxVocabularySize) {
      return InvalidJson(tokens.path(), ": ", Quote(name), " is not an id in [0, ",
                         kMaxVocabularySize, ")");
    }
    out->added_tokens.push_back(std::move(token));
  }
  std::sort(out->added_tokens.begin(), out->added_tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AddedToken> ReadAddedToken(const JsonNode& node) {
  AddedToken token;
  ASSIGN_OR_RETURN(token.content, node.String("content"));
  if (token.content.empty()) return InvalidJson(node.PathOf("content"), " is empty");
  ASSIGN_OR_RETURN(token.special, node.Bool("special", false));
  ASSIGN_OR_RETURN(token.lstrip, node.Bool("lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, node.Bool("rstrip", false));
  ASSIGN_OR_RETURN(token.single_word, node.Bool("single_word", false));
  ASSIGN_OR_RETURN(token.normalized, node.Bool("normalized", !token.special));
  return token;
}

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view tokenizer_config_json) {
  TokenizerConfig config;
  if (tokenizer_config_json.empty()) return config;
  json::monotonic_resource memory;
  ASSIGN_OR_RETURN(const json::value value,
                   ParseJson("tokenizer_config.json", tokenizer_config_json, &memory));
  ASSIGN_OR_RETURN(const JsonNode root, JsonNode::From(value, "tokenizer_config.json"));
  ASSIGN_OR_RETURN(config.chat_template, ConfigTemplate(root));
  ASSIGN_OR_RETURN(config.bos_token, ConfigToken(root, "bos_token"));
  ASSIGN_OR_RETURN(config.eos_token, ConfigToken(root, "eos_token"));
  ASSIGN_OR_RETURN(config.add_bos_token, OptionalBool(root, "add_bos_token"));
  ASSIGN_OR_RETURN(config.add_eos_token, OptionalBool(root, "add_eos_token"));
  RETURN_IF_ERROR(ReadAddedTokensDecoder(root, &config));
  return config;
}

absl::StatusOr<std::string> ParseChatTemplateJson(std::string_view chat_template_json) {
  json::monotonic_resource memory;
  ASSIGN_OR_RETURN(const json::value value,
                   ParseJson("chat_template.json", chat_template_json, &memory));
  ASSIGN_OR_RETURN(const JsonNode root, JsonNode::From(value, "chat_template.json"));
  return ConfigTemplate(root);
}

absl::Status ApplyConfig(const TokenizerConfig& config, TokenizerSource* source) {
  const auto find = [&](std::string_view member,
                        const std::string& text) -> absl::StatusOr<std::optional<int32_t>> {
    if (text.empty()) return std::nullopt;
    const std::optional<int32_t> id = FindToken(*source, text);
    if (!id.has_value()) {
      return InvalidJson("tokenizer_config.json: ", ToAbsl(member), " ", Quote(text),
                         " is not in the vocabulary");
    }
    return id;
  };
  ASSIGN_OR_RETURN(source->bos_id, find("bos_token", config.bos_token));
  ASSIGN_OR_RETURN(const std::optional<int32_t> eos_id, find("eos_token", config.eos_token));
  if (eos_id.has_value()) source->eos_ids = {*eos_id};
  if (config.add_bos_token.value_or(false) && source->bos_id.has_value() &&
      source->prefix_ids.empty()) {
    source->prefix_ids = {*source->bos_id};
  }
  if (config.add_eos_token.value_or(false) && eos_id.has_value() && source->suffix_ids.empty())
    source->suffix_ids = {*eos_id};
  if (!source->bos_id.has_value() && source->prefix_ids.size() == 1)
    source->bos_id = source->prefix_ids[0];
  return absl::OkStatus();
}

absl::Status ApplyWholeConfig(const TokenizerConfig& config, TokenizerSource* source) {
  absl::flat_hash_map<int32_t, size_t> index_of_id;  // the first of each id
  for (size_t i = 0; i < source->added_tokens.size(); ++i) {
    index_of_id.try_emplace(source->added_tokens[i].id, i);
  }
  for (const AddedToken& token : config.added_tokens) {
    const size_t id = static_cast<size_t>(token.id);
    if (id < source->pieces.size() && !source->pieces[id].empty() &&
        source->pieces[id] != token.content) {
      return InvalidJson("tokenizer_config.json.added_tokens_decoder: ", Quote(token.content),
                         " has the id ", id, " of the piece ", Quote(source->pieces[id]));
    }
    const auto [known, is_new] = index_of_id.try_emplace(token.id, source->added_tokens.size());
    if (is_new) {
      source->added_tokens.push_back(token);
    } else {
      source->added_tokens[known->second] = token;
    }
  }
  if (config.add_bos_token.has_value() && !*config.add_bos_token) source->prefix_ids.clear();
  const std::optional<int32_t> bos_id = source->bos_id;
  const std::vector<int32_t> eos_ids = source->eos_ids;
  RETURN_IF_ERROR(ApplyConfig(config, source));
  // What the config does not name, the model does.
  if (!source->bos_id.has_value()) source->bos_id = bos_id;
  if (source->eos_ids.empty()) source->eos_ids = eos_ids;
  return absl::OkStatus();
}

}  // namespace fastgen
