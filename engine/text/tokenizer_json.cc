#include "engine/text/tokenizer_json.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/json_node.h"
#include "engine/text/piece_word_encoder.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_json_steps.h"
#include "engine/text/unigram_word_encoder.h"

namespace fastgen {
namespace {

namespace json = boost::json;

// What a template may put around a text. Published ones: 1 or 2.
constexpr size_t kMaxTemplateIds = 64;

absl::Status ReadVocabulary(const JsonNode& model, TokenizerSource* source) {
  const json::value* vocab = model.Find("vocab");
  if (vocab == nullptr) return InvalidJson(model.PathOf("vocab"), " is missing");
  ASSIGN_OR_RETURN(const JsonNode node, JsonNode::From(*vocab, model.PathOf("vocab")));
  for (const auto& [key, value] : node.object()) {
    const std::string_view piece(key.data(), key.size());
    if (piece.empty()) return InvalidJson(node.path(), " has an empty piece");
    ASSIGN_OR_RETURN(const int32_t id,
                     TokenId(value, absl::StrCat(node.path(), "[", Quote(piece), "]")));
    if (static_cast<size_t>(id) >= source->pieces.size())
      source->pieces.resize(static_cast<size_t>(id) + 1);
    std::string& slot = source->pieces[static_cast<size_t>(id)];
    if (!slot.empty()) {
      return InvalidJson(node.path(), ": pieces ", Quote(slot), " and ", Quote(piece),
                         " have the same id ", id);
    }
    slot = std::string(piece);
  }
  return absl::OkStatus();
}

absl::Status CheckUnigramPiece(std::string_view path, std::string_view piece, double score) {
  if (piece.empty()) return InvalidJson(ToAbsl(path), " is an empty piece");
  if (piece.size() > UnigramWordEncoder::kMaxPieceBytes) {
    return InvalidJson(ToAbsl(path), ": the piece has ", piece.size(), " bytes, more than ",
                       UnigramWordEncoder::kMaxPieceBytes);
  }
  if (!(std::abs(score) <= std::numeric_limits<float>::max())) {
    return InvalidJson(ToAbsl(path), ": the score ", score, " is not a number of single precision");
  }
  return absl::OkStatus();
}

// A list of [piece, score]; a piece's place is its id.
absl::Status ReadUnigramVocabulary(const JsonNode& model, TokenizerSource* source) {
  ASSIGN_OR_RETURN(const json::array* const vocab, model.Array("vocab"));
  if (vocab->size() > static_cast<size_t>(kMaxVocabularySize)) {
    return InvalidJson(model.PathOf("vocab"), " has ", vocab->size(), " pieces, more than ",
                       kMaxVocabularySize);
  }
  absl::flat_hash_set<absl::string_view> seen;
  seen.reserve(vocab->size());
  source->pieces.reserve(vocab->size());
  source->unigram_scores.reserve(vocab->size());
  for (size_t id = 0; id < vocab->size(); ++id) {
    const std::string path = absl::StrCat(model.PathOf("vocab"), "[", id, "]");
    const json::value& entry = (*vocab)[id];
    const json::array* const pair = entry.if_array();
    if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_string() ||
        !(*pair)[1].is_number()) {
      return InvalidJson(path, " is not a piece and its score");
    }
    const std::string_view piece = View((*pair)[0].get_string());
    const double score = (*pair)[1].to_number<double>();
    RETURN_IF_ERROR(CheckUnigramPiece(path, piece, score));
    if (!seen.insert(ToAbsl(piece)).second) {
      return InvalidJson(path, ": the piece ", Quote(piece), " stands there twice");
    }
    source->pieces.emplace_back(piece);
    source->unigram_scores.push_back(score);
  }
  return absl::OkStatus();
}

absl::Status ReadUnigram(const JsonNode& model, TokenizerSource* source) {
  RETURN_IF_ERROR(ReadUnigramVocabulary(model, source));
  const json::value* unknown = model.Find("unk_id");
  if (unknown == nullptr) return InvalidJson(model.PathOf("unk_id"), " is missing");
  ASSIGN_OR_RETURN(source->unknown_id, TokenId(*unknown, model.PathOf("unk_id")));
  if (static_cast<size_t>(*source->unknown_id) >= source->pieces.size()) {
    return InvalidJson(model.PathOf("unk_id"), " ", *source->unknown_id,
                       " is outside the vocabulary of ", source->pieces.size());
  }
  return absl::OkStatus();
}

// A merge is "left right" in older files and ["left", "right"] in newer ones.
absl::Status ReadMerges(const JsonNode& model, TokenizerSource* source) {
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
    return InvalidJson(model.PathOf("merges"), "[", i, "] is not a pair of pieces");
  }
  return absl::OkStatus();
}

absl::StatusOr<JsonNode> FindModel(const JsonNode& root) {
  const json::value* value = root.Find("model");
  if (value == nullptr) return InvalidJson(root.PathOf("model"), " is missing");
  return JsonNode::From(*value, root.PathOf("model"));
}

// What kind of model it is; its vocabulary is read later.
absl::Status ReadModelKind(const JsonNode& model, TokenizerSource* source) {
  if (model.Find("type") != nullptr) {  // files of the first versions do not name it
    ASSIGN_OR_RETURN(const std::string type, model.String("type"));
    if (type == "Unigram") {
      source->model = TokenizerSource::Model::kUnigram;
      ASSIGN_OR_RETURN(source->unigram_byte_fallback, model.Bool("byte_fallback", false));
      return absl::OkStatus();
    }
    if (type != "BPE") return Unsupported(model, type);
  }
  for (const std::string_view affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.Find(affix) == nullptr) continue;
    ASSIGN_OR_RETURN(const std::string text, model.String(affix));
    if (!text.empty()) {
      return InvalidJson(model.PathOf(affix), " ", Quote(text), " is not supported");
    }
  }
  if (const json::value* dropout = model.Find("dropout"); dropout != nullptr) {
    json::error_code error;
    const double rate = dropout->to_number<double>(error);
    if (error || rate != 0) return InvalidJson(model.PathOf("dropout"), " is not supported");
  }
  ASSIGN_OR_RETURN(source->ignore_merges, model.Bool("ignore_merges", false));
  ASSIGN_OR_RETURN(source->fuse_unknown, model.Bool("fuse_unk", false));
  ASSIGN_OR_RETURN(const bool byte_fallback, model.Bool("byte_fallback", false));
  if (!byte_fallback) return absl::OkStatus();
  source->model = TokenizerSource::Model::kPieceBpe;
  if (source->ignore_merges) {
    return InvalidJson(model.PathOf("ignore_merges"), " true with byte_fallback is not supported");
  }
  return absl::OkStatus();
}

void MarkBytes(TokenizerSource* source) {
  source->byte_fallback.reserve(source->pieces.size());
  for (const std::string& piece : source->pieces) {
    source->byte_fallback.push_back(ByteOfPiece(piece).has_value() ? 1 : 0);
  }
}

absl::Status ReadModel(const JsonNode& model, DecodedBytes decoded_bytes, TokenizerSource* source) {
  if (source->model == TokenizerSource::Model::kUnigram) {
    RETURN_IF_ERROR(ReadUnigram(model, source));
    if (decoded_bytes == DecodedBytes::kFromPieces) MarkBytes(source);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(ReadVocabulary(model, source));
  RETURN_IF_ERROR(ReadMerges(model, source));
  if (source->model != TokenizerSource::Model::kPieceBpe) return absl::OkStatus();
  MarkBytes(source);
  if (model.Find("unk_token") == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string unknown, model.String("unk_token"));
  const auto piece = std::find(source->pieces.begin(), source->pieces.end(), unknown);
  if (unknown.empty() || piece == source->pieces.end()) {
    return InvalidJson(model.PathOf("unk_token"), " ", Quote(unknown), " is not in the vocabulary");
  }
  source->unknown_id = static_cast<int32_t>(piece - source->pieces.begin());
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const JsonNode& root, TokenizerSource* source) {
  if (root.Find("added_tokens") == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const json::array* const tokens, root.Array("added_tokens"));
  for (size_t i = 0; i < tokens->size(); ++i) {
    ASSIGN_OR_RETURN(
        const JsonNode node,
        JsonNode::From((*tokens)[i], absl::StrCat(root.PathOf("added_tokens"), "[", i, "]")));
    ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(node));
    const json::value* token_id = node.Find("id");
    if (token_id == nullptr) return InvalidJson(node.PathOf("id"), " is missing");
    ASSIGN_OR_RETURN(token.id, TokenId(*token_id, node.PathOf("id")));
    const size_t id = static_cast<size_t>(token.id);
    if (id < source->pieces.size() && !source->pieces[id].empty() &&
        source->pieces[id] != token.content) {
      return InvalidJson(node.path(), ": ", Quote(token.content), " has the id ", id,
                         " of the piece ", Quote(source->pieces[id]));
    }
    source->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// The ids of the special token that a template names.
absl::StatusOr<std::vector<int32_t>> TemplateIds(const JsonNode& processor,
                                                 const std::string& name) {
  const json::value* value = processor.Find("special_tokens");
  if (value == nullptr) return InvalidJson(processor.PathOf("special_tokens"), " is missing");
  ASSIGN_OR_RETURN(const JsonNode tokens,
                   JsonNode::From(*value, processor.PathOf("special_tokens")));
  const json::value* token = tokens.Find(name);
  if (token == nullptr) return InvalidJson(tokens.path(), " lacks ", Quote(name));
  ASSIGN_OR_RETURN(const JsonNode node, JsonNode::From(*token, tokens.PathOf(name)));
  ASSIGN_OR_RETURN(const json::array* const list, node.Array("ids"));
  std::vector<int32_t> ids;
  for (const json::value& id : *list) {
    ASSIGN_OR_RETURN(ids.emplace_back(), TokenId(id, node.PathOf("ids")));
  }
  return ids;
}

absl::Status ReadTemplate(const JsonNode& processor, TokenizerSource* source) {
  ASSIGN_OR_RETURN(const json::array* const single, processor.Array("single"));
  bool text_seen = false;
  for (size_t i = 0; i < single->size(); ++i) {
    ASSIGN_OR_RETURN(
        const JsonNode item,
        JsonNode::From((*single)[i], absl::StrCat(processor.PathOf("single"), "[", i, "]")));
    if (item.Find("Sequence") != nullptr) {
      if (text_seen) return InvalidJson(item.path(), ": the text stands twice in the template");
      text_seen = true;
      continue;
    }
    const json::value* value = item.Find("SpecialToken");
    if (value == nullptr) return InvalidJson(item.path(), " is neither Sequence nor SpecialToken");
    ASSIGN_OR_RETURN(const JsonNode special, JsonNode::From(*value, item.PathOf("SpecialToken")));
    ASSIGN_OR_RETURN(const std::string name, special.String("id"));
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, TemplateIds(processor, name));
    const size_t num_ids = source->prefix_ids.size() + source->suffix_ids.size() + ids.size();
    if (num_ids > kMaxTemplateIds) {
      return InvalidJson(item.path(), ": the template puts ", num_ids,
                         " ids around a text, more than ", kMaxTemplateIds);
    }
    std::vector<int32_t>& side = text_seen ? source->suffix_ids : source->prefix_ids;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (!text_seen) return InvalidJson(processor.PathOf("single"), " lacks the text");
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const JsonNode& root, TokenizerSource* source) {
  const json::value* value = root.Find("post_processor");
  if (value == nullptr) return absl::OkStatus();
  bool template_seen = false;
  return ForEachComponent(*value, root.PathOf("post_processor"), "processors",
                          [&](const JsonNode& node, const std::string& type) {
                            if (type == "ByteLevel") return absl::OkStatus();  // moves offsets only
                            if (type != "TemplateProcessing") return Unsupported(node, type);
                            if (template_seen)
                              return InvalidJson(node.path(),
                                                 ": a second template is not supported");
                            template_seen = true;
                            return ReadTemplate(node, source);
                          });
}

}  // namespace

absl::StatusOr<TokenizerSource> ParseTokenizerJson(std::string_view tokenizer_json,
                                                   std::string_view tokenizer_config_json) {
  ASSIGN_OR_RETURN(const TokenizerConfig config, ParseTokenizerConfig(tokenizer_config_json));
  TokenizerSource source;
  source.model = TokenizerSource::Model::kByteLevelBpe;
  json::monotonic_resource memory;
  ASSIGN_OR_RETURN(const json::value value, ParseJson("tokenizer.json", tokenizer_json, &memory));
  ASSIGN_OR_RETURN(const JsonNode root, JsonNode::From(value, "tokenizer.json"));
  // Components first: what is unsupported is named before a large vocabulary is read.
  ASSIGN_OR_RETURN(const JsonNode model, FindModel(root));
  RETURN_IF_ERROR(ReadModelKind(model, &source));
  RETURN_IF_ERROR(ReadNormalizer(root, &source));
  RETURN_IF_ERROR(ReadPreTokenizer(root, &source));
  RETURN_IF_ERROR(ReadPostProcessor(root, &source));
  ASSIGN_OR_RETURN(const DecodedBytes decoded_bytes, ReadDecoder(root, &source));
  RETURN_IF_ERROR(ReadModel(model, decoded_bytes, &source));
  RETURN_IF_ERROR(ReadAddedTokens(root, &source));
  RETURN_IF_ERROR(ApplyConfig(config, &source));
  return source;
}

}  // namespace fastgen
