#include "engine/text/tokenizer_json.h"

#include <boost/json.hpp>
#include <exception>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/bpe_tokenizer.h"
#include "engine/text/token_table.h"

namespace fastgen {
namespace {

namespace json = boost::json;

constexpr size_t kMaxDepth = 32;

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// A text of the file for use in a message: short, and printable.
std::string Quote(std::string_view text) {
  return absl::StrCat("'", absl::CHexEscape(ToAbsl(text.substr(0, 64))), "'");
}

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

absl::StatusOr<json::value> ParseJson(std::string_view file, std::string_view text,
                                      json::storage_ptr storage) {
  if (text.size() > kMaxTokenizerJsonBytes) {
    return Invalid(ToAbsl(file), " has ", text.size(), " bytes, more than ",
                   kMaxTokenizerJsonBytes);
  }
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code error;
  try {
    json::value value = json::parse(json::string_view(text.data(), text.size()), error,
                                    std::move(storage), options);
    if (error) return Invalid(ToAbsl(file), " is not JSON: ", error.message());
    return value;
  } catch (const std::exception& e) {
    return Invalid(ToAbsl(file), " cannot be read: ", e.what());
  }
}

// A JSON object together with its place in the file, for messages.
class Node {
 public:
  static absl::StatusOr<Node> From(const json::value& value, std::string path) {
    if (!value.is_object()) return Invalid(path, " is not an object");
    return Node(&value.get_object(), std::move(path));
  }

  const std::string& path() const { return path_; }
  const json::object& object() const { return *object_; }
  std::string PathOf(std::string_view key) const { return absl::StrCat(path_, ".", ToAbsl(key)); }

  // nullptr where the member is missing or null.
  const json::value* Find(std::string_view key) const {
    const json::value* value = object_->if_contains(json::string_view(key.data(), key.size()));
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  absl::StatusOr<bool> Bool(std::string_view key, bool missing) const {
    const json::value* value = Find(key);
    if (value == nullptr) return missing;
    if (!value->is_bool()) return Invalid(PathOf(key), " is not true or false");
    return value->get_bool();
  }

  absl::StatusOr<std::string> String(std::string_view key) const {
    const json::value* value = Find(key);
    if (value == nullptr) return Invalid(PathOf(key), " is missing");
    if (!value->is_string()) return Invalid(PathOf(key), " is not a string");
    return std::string(View(value->get_string()));
  }

  absl::StatusOr<const json::array*> Array(std::string_view key) const {
    const json::value* value = Find(key);
    if (value == nullptr) return Invalid(PathOf(key), " is missing");
    if (!value->is_array()) return Invalid(PathOf(key), " is not a list");
    return &value->get_array();
  }

 private:
  Node(const json::object* object, std::string path) : object_(object), path_(std::move(path)) {}
  const json::object* object_;
  std::string path_;
};

absl::StatusOr<int32_t> TokenId(const json::value& value, std::string_view path) {
  if (value.is_int64() && value.get_int64() >= 0 && value.get_int64() < kMaxVocabularySize) {
    return static_cast<int32_t>(value.get_int64());
  }
  return Invalid(ToAbsl(path), ": ", Quote(json::serialize(value)), " is not an id in [0, ",
                 kMaxVocabularySize, ")");
}

absl::Status Unsupported(const Node& node, std::string_view type) {
  return Invalid(node.path(), " type ", Quote(type), " is not supported");
}

// Calls `read` for a component, or for each component of a Sequence; `list` names the Sequence's
// member.
template <typename Read>
absl::Status ForEachComponent(const json::value& value, std::string path, std::string_view list,
                              Read read) {
  ASSIGN_OR_RETURN(const Node node, Node::From(value, std::move(path)));
  const absl::StatusOr<std::string> type = node.String("type");
  if (!type.ok()) return type.status();
  if (*type != "Sequence") return read(node, *type);
  ASSIGN_OR_RETURN(const json::array* const components, node.Array(list));
  for (size_t i = 0; i < components->size(); ++i) {
    RETURN_IF_ERROR(ForEachComponent((*components)[i], absl::StrCat(node.PathOf(list), "[", i, "]"),
                                     list, read));
  }
  return absl::OkStatus();
}

absl::Status ReadVocabulary(const Node& model, TokenizerSource* source) {
  const json::value* vocab = model.Find("vocab");
  if (vocab == nullptr) return Invalid(model.PathOf("vocab"), " is missing");
  ASSIGN_OR_RETURN(const Node node, Node::From(*vocab, model.PathOf("vocab")));
  for (const auto& [key, value] : node.object()) {
    const std::string_view piece(key.data(), key.size());
    if (piece.empty()) return Invalid(node.path(), " has an empty piece");
    ASSIGN_OR_RETURN(const int32_t id,
                     TokenId(value, absl::StrCat(node.path(), "[", Quote(piece), "]")));
    if (static_cast<size_t>(id) >= source->pieces.size())
      source->pieces.resize(static_cast<size_t>(id) + 1);
    std::string& slot = source->pieces[static_cast<size_t>(id)];
    if (!slot.empty()) {
      return Invalid(node.path(), ": pieces ", Quote(slot), " and ", Quote(piece),
                     " have the same id ", id);
    }
    slot = std::string(piece);
  }
  return absl::OkStatus();
}

// A merge is "left right" in older files and ["left", "right"] in newer ones.
absl::Status ReadMerges(const Node& model, TokenizerSource* source) {
  ASSIGN_OR_RETURN(const json::array* const merges, model.Array("merges"));
  source->merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const json::value& merge = (*merges)[i];
    if (merge.is_string()) {
      const std::string_view text = View(merge.get_string());
      const size_t space = text.find(' ');
      if (space != std::string_view::npos && space > 0 && space + 1 < text.size() &&
          text.find(' ', space + 1) == std::string_view::npos) {
        source->merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.get_array().size() == 2 &&
               merge.get_array()[0].is_string() && merge.get_array()[1].is_string()) {
      source->merges.emplace_back(View(merge.get_array()[0].get_string()),
                                  View(merge.get_array()[1].get_string()));
      continue;
    }
    return Invalid(model.PathOf("merges"), "[", i, "] is not a pair of pieces");
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const Node& root, TokenizerSource* source) {
  const json::value* value = root.Find("model");
  if (value == nullptr) return Invalid(root.PathOf("model"), " is missing");
  ASSIGN_OR_RETURN(const Node model, Node::From(*value, root.PathOf("model")));
  if (model.Find("type") != nullptr) {  // files of the first versions do not name it
    ASSIGN_OR_RETURN(const std::string type, model.String("type"));
    if (type != "BPE") return Unsupported(model, type);
  }
  for (const std::string_view affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.Find(affix) == nullptr) continue;
    ASSIGN_OR_RETURN(const std::string text, model.String(affix));
    if (!text.empty()) return Invalid(model.PathOf(affix), " ", Quote(text), " is not supported");
  }
  if (const json::value* dropout = model.Find("dropout"); dropout != nullptr) {
    json::error_code error;
    const double rate = dropout->to_number<double>(error);
    if (error || rate != 0) return Invalid(model.PathOf("dropout"), " is not supported");
  }
  ASSIGN_OR_RETURN(const bool byte_fallback, model.Bool("byte_fallback", false));
  if (byte_fallback) return Invalid(model.PathOf("byte_fallback"), " true is not supported");
  ASSIGN_OR_RETURN(source->ignore_merges, model.Bool("ignore_merges", false));
  RETURN_IF_ERROR(ReadVocabulary(model, source));
  return ReadMerges(model, source);
}

absl::StatusOr<AddedToken> ReadAddedToken(const Node& node) {
  AddedToken token;
  ASSIGN_OR_RETURN(token.content, node.String("content"));
  if (token.content.empty()) return Invalid(node.PathOf("content"), " is empty");
  const json::value* id = node.Find("id");
  if (id == nullptr) return Invalid(node.PathOf("id"), " is missing");
  ASSIGN_OR_RETURN(token.id, TokenId(*id, node.PathOf("id")));
  ASSIGN_OR_RETURN(token.special, node.Bool("special", false));
  ASSIGN_OR_RETURN(token.lstrip, node.Bool("lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, node.Bool("rstrip", false));
  ASSIGN_OR_RETURN(token.single_word, node.Bool("single_word", false));
  ASSIGN_OR_RETURN(token.normalized, node.Bool("normalized", !token.special));
  return token;
}

absl::Status ReadAddedTokens(const Node& root, TokenizerSource* source) {
  if (root.Find("added_tokens") == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const json::array* const tokens, root.Array("added_tokens"));
  for (size_t i = 0; i < tokens->size(); ++i) {
    ASSIGN_OR_RETURN(
        const Node node,
        Node::From((*tokens)[i], absl::StrCat(root.PathOf("added_tokens"), "[", i, "]")));
    ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(node));
    const size_t id = static_cast<size_t>(token.id);
    if (id < source->pieces.size() && !source->pieces[id].empty() &&
        source->pieces[id] != token.content) {
      return Invalid(node.path(), ": ", Quote(token.content), " has the id ", id, " of the piece ",
                     Quote(source->pieces[id]));
    }
    source->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status ReadNormalizer(const Node& root, TokenizerSource* source) {
  const json::value* value = root.Find("normalizer");
  if (value == nullptr) return absl::OkStatus();
  return ForEachComponent(*value, root.PathOf("normalizer"), "normalizers",
                          [&](const Node& node, const std::string& type) {
                            if (type != "NFC") return Unsupported(node, type);
                            source->normalize_nfc = true;
                            return absl::OkStatus();
                          });
}

// A regex that matches `text` and nothing else.
std::string LiteralPattern(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && !absl::ascii_isalnum(static_cast<unsigned char>(c)))
      pattern += '\\';
    pattern += c;
  }
  return pattern;
}

absl::Status ReadSplit(const Node& node, TokenizerSource* source) {
  ASSIGN_OR_RETURN(const std::string behavior, node.String("behavior"));
  if (behavior != "Isolated")
    return Invalid(node.PathOf("behavior"), " ", Quote(behavior), " is not supported");
  ASSIGN_OR_RETURN(const bool invert, node.Bool("invert", false));
  if (invert) return Invalid(node.PathOf("invert"), " true is not supported");
  const json::value* value = node.Find("pattern");
  if (value == nullptr) return Invalid(node.PathOf("pattern"), " is missing");
  ASSIGN_OR_RETURN(const Node pattern, Node::From(*value, node.PathOf("pattern")));
  if (pattern.Find("Regex") != nullptr) {
    ASSIGN_OR_RETURN(std::string regex, pattern.String("Regex"));
    source->split_patterns.push_back(std::move(regex));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::string text, pattern.String("String"));
  source->split_patterns.push_back(LiteralPattern(text));
  return absl::OkStatus();
}

absl::Status ReadDigits(const Node& node, TokenizerSource* source) {
  ASSIGN_OR_RETURN(const bool individual, node.Bool("individual_digits", false));
  if (individual && source->split_patterns.empty()) {
    source->split_digits = true;
  } else {
    source->split_patterns.emplace_back(individual ? R"(\p{N})" : R"(\p{N}+)");
  }
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const Node& root, TokenizerSource* source) {
  const json::value* value = root.Find("pre_tokenizer");
  if (value == nullptr)
    return Invalid(root.PathOf("pre_tokenizer"), " is missing: only byte-level BPE is supported");
  bool byte_level = false;
  RETURN_IF_ERROR(ForEachComponent(
      *value, root.PathOf("pre_tokenizer"), "pretokenizers",
      [&](const Node& node, const std::string& type) {
        if (byte_level)
          return Invalid(node.path(), ": ", Quote(type), " after ByteLevel is not supported");
        if (type == "Split") return ReadSplit(node, source);
        if (type == "Digits") return ReadDigits(node, source);
        if (type != "ByteLevel") return Unsupported(node, type);
        byte_level = true;
        ASSIGN_OR_RETURN(source->add_prefix_space, node.Bool("add_prefix_space", true));
        if (source->add_prefix_space && (source->split_digits || !source->split_patterns.empty())) {
          return Invalid(node.PathOf("add_prefix_space"), " true after a split is not supported");
        }
        ASSIGN_OR_RETURN(const bool use_regex, node.Bool("use_regex", true));
        if (use_regex) source->split_patterns.emplace_back(kGpt2SplitPattern);
        return absl::OkStatus();
      }));
  if (!byte_level) {
    return Invalid(root.PathOf("pre_tokenizer"),
                   " has no ByteLevel: only byte-level BPE is supported");
  }
  return absl::OkStatus();
}

absl::Status ReadDecoder(const Node& root) {
  const json::value* value = root.Find("decoder");
  if (value == nullptr)
    return Invalid(root.PathOf("decoder"), " is missing: only byte-level BPE is supported");
  return ForEachComponent(*value, root.PathOf("decoder"), "decoders",
                          [&](const Node& node, const std::string& type) {
                            return type == "ByteLevel" ? absl::OkStatus() : Unsupported(node, type);
                          });
}

// The ids of the special token that a template names.
absl::StatusOr<std::vector<int32_t>> TemplateIds(const Node& processor, const std::string& name) {
  const json::value* value = processor.Find("special_tokens");
  if (value == nullptr) return Invalid(processor.PathOf("special_tokens"), " is missing");
  ASSIGN_OR_RETURN(const Node tokens, Node::From(*value, processor.PathOf("special_tokens")));
  const json::value* token = tokens.Find(name);
  if (token == nullptr) return Invalid(tokens.path(), " lacks ", Quote(name));
  ASSIGN_OR_RETURN(const Node node, Node::From(*token, tokens.PathOf(name)));
  ASSIGN_OR_RETURN(const json::array* const list, node.Array("ids"));
  std::vector<int32_t> ids;
  for (const json::value& id : *list) {
    ASSIGN_OR_RETURN(ids.emplace_back(), TokenId(id, node.PathOf("ids")));
  }
  return ids;
}

absl::Status ReadTemplate(const Node& processor, TokenizerSource* source) {
  ASSIGN_OR_RETURN(const json::array* const single, processor.Array("single"));
  bool text_seen = false;
  for (size_t i = 0; i < single->size(); ++i) {
    ASSIGN_OR_RETURN(
        const Node item,
        Node::From((*single)[i], absl::StrCat(processor.PathOf("single"), "[", i, "]")));
    if (item.Find("Sequence") != nullptr) {
      if (text_seen) return Invalid(item.path(), ": the text stands twice in the template");
      text_seen = true;
      continue;
    }
    const json::value* value = item.Find("SpecialToken");
    if (value == nullptr) return Invalid(item.path(), " is neither Sequence nor SpecialToken");
    ASSIGN_OR_RETURN(const Node special, Node::From(*value, item.PathOf("SpecialToken")));
    ASSIGN_OR_RETURN(const std::string name, special.String("id"));
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, TemplateIds(processor, name));
    std::vector<int32_t>& side = text_seen ? source->suffix_ids : source->prefix_ids;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (!text_seen) return Invalid(processor.PathOf("single"), " lacks the text");
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const Node& root, TokenizerSource* source) {
  const json::value* value = root.Find("post_processor");
  if (value == nullptr) return absl::OkStatus();
  bool template_seen = false;
  return ForEachComponent(*value, root.PathOf("post_processor"), "processors",
                          [&](const Node& node, const std::string& type) {
                            if (type == "ByteLevel") return absl::OkStatus();  // moves offsets only
                            if (type != "TemplateProcessing") return Unsupported(node, type);
                            if (template_seen)
                              return Invalid(node.path(), ": a second template is not supported");
                            template_seen = true;
                            return ReadTemplate(node, source);
                          });
}

std::optional<int32_t> FindToken(const TokenizerSource& source, std::string_view text) {
  for (const AddedToken& token : source.added_tokens) {
    if (token.content == text) return token.id;
  }
  for (size_t id = 0; id < source.pieces.size(); ++id) {
    if (!text.empty() && source.pieces[id] == text) return static_cast<int32_t>(id);
  }
  return std::nullopt;
}

// What tokenizer_config.json says about the begin and end tokens.
absl::Status ApplyConfig(const TokenizerConfig& config, TokenizerSource* source) {
  const auto find = [&](std::string_view member,
                        const std::string& text) -> absl::StatusOr<std::optional<int32_t>> {
    if (text.empty()) return std::nullopt;
    const std::optional<int32_t> id = FindToken(*source, text);
    if (!id.has_value()) {
      return Invalid("tokenizer_config.json: ", ToAbsl(member), " ", Quote(text),
                     " is not in the vocabulary");
    }
    return id;
  };
  ASSIGN_OR_RETURN(source->bos_id, find("bos_token", config.bos_token));
  ASSIGN_OR_RETURN(const std::optional<int32_t> eos_id, find("eos_token", config.eos_token));
  if (eos_id.has_value()) source->eos_ids = {*eos_id};
  if (config.add_bos_token && source->bos_id.has_value() && source->prefix_ids.empty()) {
    source->prefix_ids = {*source->bos_id};
  }
  if (config.add_eos_token && eos_id.has_value() && source->suffix_ids.empty())
    source->suffix_ids = {*eos_id};
  if (!source->bos_id.has_value() && source->prefix_ids.size() == 1)
    source->bos_id = source->prefix_ids[0];
  return absl::OkStatus();
}

// A token of the config is a string, or an object with the string as its content.
absl::StatusOr<std::string> ConfigToken(const Node& config, std::string_view key) {
  const json::value* value = config.Find(key);
  if (value == nullptr) return std::string();
  if (value->is_string()) return std::string(View(value->get_string()));
  ASSIGN_OR_RETURN(const Node token, Node::From(*value, config.PathOf(key)));
  return token.String("content");
}

absl::StatusOr<std::string> ConfigTemplate(const Node& config) {
  const json::value* value = config.Find("chat_template");
  if (value == nullptr) return std::string();
  if (value->is_string()) return std::string(View(value->get_string()));
  ASSIGN_OR_RETURN(const json::array* const templates, config.Array("chat_template"));
  for (size_t i = 0; i < templates->size(); ++i) {
    ASSIGN_OR_RETURN(
        const Node node,
        Node::From((*templates)[i], absl::StrCat(config.PathOf("chat_template"), "[", i, "]")));
    ASSIGN_OR_RETURN(const std::string name, node.String("name"));
    if (name == "default") return node.String("template");
  }
  return std::string();
}

}  // namespace

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view tokenizer_config_json) {
  TokenizerConfig config;
  if (tokenizer_config_json.empty()) return config;
  json::monotonic_resource memory;
  ASSIGN_OR_RETURN(const json::value value,
                   ParseJson("tokenizer_config.json", tokenizer_config_json, &memory));
  ASSIGN_OR_RETURN(const Node root, Node::From(value, "tokenizer_config.json"));
  ASSIGN_OR_RETURN(config.chat_template, ConfigTemplate(root));
  ASSIGN_OR_RETURN(config.bos_token, ConfigToken(root, "bos_token"));
  ASSIGN_OR_RETURN(config.eos_token, ConfigToken(root, "eos_token"));
  ASSIGN_OR_RETURN(config.add_bos_token, root.Bool("add_bos_token", false));
  ASSIGN_OR_RETURN(config.add_eos_token, root.Bool("add_eos_token", false));
  return config;
}

absl::StatusOr<TokenizerSource> ParseTokenizerJson(std::string_view tokenizer_json,
                                                   std::string_view tokenizer_config_json) {
  ASSIGN_OR_RETURN(const TokenizerConfig config, ParseTokenizerConfig(tokenizer_config_json));
  TokenizerSource source;
  source.model = TokenizerSource::Model::kByteLevelBpe;
  json::monotonic_resource memory;
  ASSIGN_OR_RETURN(const json::value value, ParseJson("tokenizer.json", tokenizer_json, &memory));
  ASSIGN_OR_RETURN(const Node root, Node::From(value, "tokenizer.json"));
  // Components first: what is unsupported is named before a large vocabulary is read.
  RETURN_IF_ERROR(ReadNormalizer(root, &source));
  RETURN_IF_ERROR(ReadPreTokenizer(root, &source));
  RETURN_IF_ERROR(ReadPostProcessor(root, &source));
  RETURN_IF_ERROR(ReadDecoder(root));
  RETURN_IF_ERROR(ReadModel(root, &source));
  RETURN_IF_ERROR(ReadAddedTokens(root, &source));
  RETURN_IF_ERROR(ApplyConfig(config, &source));
  return source;
}

}  // namespace fastgen
