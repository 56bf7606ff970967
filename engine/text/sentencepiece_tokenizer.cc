#include "engine/text/sentencepiece_tokenizer.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "engine/text/piece_word_encoder.h"
#include "engine/text/sentencepiece_source.h"

namespace fastgen {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581 stands for a space
}  // namespace

absl::StatusOr<std::unique_ptr<SentencePieceTokenizer>> SentencePieceTokenizer::Create(
    const TokenizerSource& source) {
  ASSIGN_OR_RETURN(const SentencePieceSpec spec,
                   ParseSentencePieceModel(source.sentencepiece_model));
  std::unique_ptr<SentencePieceTokenizer> tokenizer(new SentencePieceTokenizer);
  std::string error;
  tokenizer->model_ = SentencePieceModel::Load(source.sentencepiece_model, &error);
  if (tokenizer->model_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("not a sentencepiece model: ", error));
  }
  const SentencePieceModel& model = *tokenizer->model_;
  std::vector<std::string> bytes;
  std::vector<AddedToken> special = source.added_tokens;
  for (int32_t id = 0; id < model.num_pieces(); ++id) {
    std::string piece = model.Piece(id);
    switch (model.KindOf(id)) {
      case SentencePieceModel::Kind::kByte:
        bytes.emplace_back(1, static_cast<char>(ByteOfPiece(piece).value_or(0)));
        break;
      case SentencePieceModel::Kind::kControl:
        special.push_back({.content = piece, .id = id, .special = true});
        bytes.push_back(std::move(piece));
        break;
      case SentencePieceModel::Kind::kUnknown:
        bytes.push_back(spec.unknown_surface);
        break;
      case SentencePieceModel::Kind::kText:
      case SentencePieceModel::Kind::kUnused:
        bytes.push_back(absl::StrReplaceAll(piece, {{std::string(kSpaceMark), " "}}));
        break;
    }
  }
  ASSIGN_OR_RETURN(tokenizer->tokens_, TokenTable::Create(std::move(bytes), special));
  RETURN_IF_ERROR(CheckNamedIds(source, tokenizer->tokens_));
  tokenizer->special_tokens_ = AddedTokenFinder(std::move(special));
  tokenizer->bos_id_ = source.bos_id;
  if (!tokenizer->bos_id_.has_value() && model.bos_id() >= 0) tokenizer->bos_id_ = model.bos_id();
  tokenizer->prefix_ids_ = source.prefix_ids;
  tokenizer->suffix_ids_ = source.suffix_ids;
  tokenizer->drops_first_space_ = spec.add_dummy_prefix;
  return tokenizer;
}

absl::Status SentencePieceTokenizer::EncodePart(std::string_view text,
                                                std::vector<int32_t>* ids) const {
  if (text.empty()) return absl::OkStatus();
  std::vector<int> part;
  std::string error;
  if (!model_->Encode(text, &part, &error)) {
    return absl::InternalError(absl::StrCat("sentencepiece on ", text.size(), " bytes: ", error));
  }
  ids->insert(ids->end(), part.begin(), part.end());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> SentencePieceTokenizer::Encode(
    std::string_view text, const EncodeOptions& options) const {
  RETURN_IF_ERROR(CheckText(text));
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = prefix_ids_;
  size_t begin = 0;
  while (begin < text.size()) {
    const auto match = special_tokens_.Find(text, begin, options.parse_special, options.untrusted);
    const size_t end = match.has_value() ? match->begin : text.size();
    RETURN_IF_ERROR(EncodePart(text.substr(begin, end - begin), &ids));
    if (!match.has_value()) break;
    ids.push_back(match->id);
    begin = match->end;
  }
  if (options.add_special_tokens) ids.insert(ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  return ids;
}

}  // namespace fastgen
