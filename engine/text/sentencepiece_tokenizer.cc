#include "engine/text/sentencepiece_tokenizer.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"

namespace fastgen {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581 stands for a space
constexpr std::string_view kUnknownText =
    " \xE2\x81\x87 ";  // what the library prints for an unknown piece

// "<0x41>" to "A"; other texts to "".
std::string ByteOfPiece(const std::string& piece) {
  if (piece.size() != 6 || piece.compare(0, 3, "<0x") != 0 || piece[5] != '>') return "";
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return "";
    value = value * 16 + digit;
  }
  return std::string(1, static_cast<char>(value));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SentencePieceTokenizer>> SentencePieceTokenizer::Create(
    const TokenizerSource& source) {
  if (source.sentencepiece_model.empty()) {
    return absl::InvalidArgumentError("the sentencepiece model is empty");
  }
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
        bytes.push_back(ByteOfPiece(piece));
        break;
      case SentencePieceModel::Kind::kControl:
        special.push_back({.content = piece, .id = id, .special = true});
        bytes.push_back(std::move(piece));
        break;
      case SentencePieceModel::Kind::kUnknown:
        bytes.emplace_back(kUnknownText);
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
  if (source.prefix_ids.empty() && source.suffix_ids.empty() && tokenizer->bos_id_.has_value()) {
    tokenizer->prefix_ids_ = {*tokenizer->bos_id_};
  }
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
