#include "engine/text/piece_word_encoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "base/unicode.h"

namespace fastgen {
namespace {

uint64_t PairKey(char32_t left, char32_t right) { return uint64_t{left} << 32 | right; }

bool IsByte(const TokenizerSource& source, size_t id) {
  return id < source.byte_fallback.size() && source.byte_fallback[id] != 0;
}

}  // namespace

std::optional<uint8_t> ByteOfPiece(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<uint8_t>(value);
}

absl::StatusOr<std::unique_ptr<WordEncoder>> PieceWordEncoder::Create(const TokenizerSource& source,
                                                                      const TokenTable& tokens) {
  for (size_t id = 0; id < source.pieces.size(); ++id) {
    if (IsValidUtf8(source.pieces[id])) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "piece ", id, " ('", absl::CHexEscape(source.pieces[id].substr(0, 64)), "') is not UTF-8"));
  }
  std::unique_ptr<PieceWordEncoder> encoder(new PieceWordEncoder);
  encoder->unknown_id_ = source.unknown_id;
  encoder->fuse_unknown_ = source.fuse_unknown;
  RETURN_IF_ERROR(encoder->AddBytes(source, tokens));
  RETURN_IF_ERROR(encoder->AddMerges(source, tokens));
  encoder->AddWholeWords(source, tokens);
  return std::unique_ptr<WordEncoder>(std::move(encoder));
}

absl::Status PieceWordEncoder::AddBytes(const TokenizerSource& source, const TokenTable& tokens) {
  byte_ids_.fill(-1);
  ascii_symbols_.fill(-1);
  for (size_t i = 0; i < source.pieces.size(); ++i) {
    const std::string& piece = source.pieces[i];
    const int32_t id = static_cast<int32_t>(i);
    if (piece.empty() || tokens.IsSpecial(id)) continue;
    if (IsByte(source, i)) {
      const std::optional<uint8_t> byte = ByteOfPiece(piece);
      if (!byte.has_value()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "byte piece ", id, " ('", absl::CHexEscape(piece.substr(0, 64)), "') is not <0xXX>"));
      }
      if (byte_ids_[*byte] < 0) byte_ids_[*byte] = id;
      has_bytes_ = true;
      continue;
    }
    const Utf8Char first = DecodeUtf8(piece, 0);
    if (first.num_bytes != piece.size()) continue;
    if (first.code_point < 128) {
      if (ascii_symbols_[first.code_point] < 0) ascii_symbols_[first.code_point] = id;
    } else {
      symbols_.try_emplace(first.code_point, id);
    }
  }
  for (size_t byte = 0; has_bytes_ && byte < 256; ++byte) {
    if (byte_ids_[byte] >= 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("the vocabulary has byte pieces, but none for byte ", byte));
  }
  return absl::OkStatus();
}

absl::Status PieceWordEncoder::AddMerges(const TokenizerSource& source, const TokenTable& tokens) {
  const PieceIds ids = IndexPieces(source);
  if (source.merge_order == TokenizerSource::MergeOrder::kListed) {
    for (size_t i = 0; i < source.merges.size(); ++i) {
      const auto& [left, right] = source.merges[i];
      for (const std::string* part : {&left, &right}) {
        const auto id = ids.find(*part);
        if (id == ids.end() || !IsByte(source, static_cast<size_t>(id->second))) continue;
        return absl::InvalidArgumentError(absl::StrCat("merge ", i, ": the byte piece '", *part,
                                                       "' in a merge is not supported"));
      }
    }
    RETURN_IF_ERROR(AddListedMerges(source, ids, tokens, &merges_));
    for (const auto& [left, right] : source.merges) AddInnerPairs(absl::StrCat(left, right));
    return absl::OkStatus();
  }
  std::vector<int32_t> candidates;
  for (size_t i = 0; i < source.pieces.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    if (source.pieces[i].size() < 2 || IsByte(source, i) || tokens.IsSpecial(id)) continue;
    candidates.push_back(id);
    AddInnerPairs(source.pieces[i]);
  }
  return AddImpliedMerges(
      source, candidates,
      [&](std::string_view text) {
        const Utf8Char first = DecodeUtf8(text, 0);
        if (first.num_bytes == text.size()) return SymbolOf(first.code_point);
        const auto id = ids.find(ToAbsl(text));
        if (id == ids.end() || IsByte(source, static_cast<size_t>(id->second)) ||
            tokens.IsSpecial(id->second)) {
          return -1;
        }
        return id->second;
      },
      &merges_);
}

void PieceWordEncoder::AddInnerPairs(std::string_view piece) {
  char32_t left = 0;
  for (size_t pos = 0; pos < piece.size();) {
    const Utf8Char right = DecodeUtf8(piece, pos);
    if (pos > 0) {
      if (left < 128 && right.code_point < 128) {
        ascii_pairs_[left].set(right.code_point);
      } else {
        pairs_.insert(PairKey(left, right.code_point));
      }
    }
    left = right.code_point;
    pos += right.num_bytes;
  }
}

void PieceWordEncoder::AddWholeWords(const TokenizerSource& source, const TokenTable& tokens) {
  std::vector<int32_t> symbols;
  BpeMerges::Scratch scratch;
  texts_ = source.pieces;
  whole_words_.reserve(texts_.size());
  for (size_t i = 0; i < texts_.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    const std::string& text = texts_[i];
    if (text.empty() || IsByte(source, i) || tokens.IsSpecial(id)) continue;
    symbols.clear();
    for (size_t pos = 0; pos < text.size();) {
      const Utf8Char c = DecodeUtf8(text, pos);
      symbols.push_back(SymbolOf(c.code_point));
      pos += c.num_bytes;
    }
    merges_.Merge(&symbols, &scratch);
    if (symbols.size() != 1 || symbols[0] != id) continue;
    whole_words_.try_emplace(text, id);
    max_whole_word_bytes_ = std::max(max_whole_word_bytes_, text.size());
  }
}

bool PieceWordEncoder::MayMerge(char32_t left, char32_t right) const {
  if (left < 128 && right < 128) return ascii_pairs_[left][right];
  return pairs_.contains(PairKey(left, right));
}

int32_t PieceWordEncoder::SymbolOf(char32_t character) const {
  if (character < 128) {
    const int32_t id = ascii_symbols_[character];
    return id >= 0 ? id : kFirstCharacterSymbol + static_cast<int32_t>(character);
  }
  const auto id = symbols_.find(character);
  return id != symbols_.end() ? id->second
                              : kFirstCharacterSymbol + static_cast<int32_t>(character);
}

void PieceWordEncoder::Encode(std::string_view word, Scratch* scratch,
                              std::vector<int32_t>* ids) const {
  if (word.empty()) return;
  bool after_unknown = false;
  size_t begin = 0;
  Utf8Char left = DecodeUtf8(word, 0);
  for (size_t pos = left.num_bytes; pos < word.size();) {
    const Utf8Char right = DecodeUtf8(word, pos);
    if (!MayMerge(left.code_point, right.code_point)) {
      EncodePart(word.substr(begin, pos - begin), scratch, &after_unknown, ids);
      begin = pos;
    }
    left = right;
    pos += right.num_bytes;
  }
  EncodePart(word.substr(begin), scratch, &after_unknown, ids);
}

void PieceWordEncoder::EncodePart(std::string_view part, Scratch* scratch, bool* after_unknown,
                                  std::vector<int32_t>* ids) const {
  if (part.size() <= max_whole_word_bytes_) {
    const auto whole = whole_words_.find(ToAbsl(part));
    if (whole != whole_words_.end()) {
      ids->push_back(whole->second);
      *after_unknown = false;
      return;
    }
  }
  std::vector<int32_t>& symbols = scratch->symbols;
  symbols.clear();
  for (size_t pos = 0; pos < part.size();) {
    const Utf8Char c = DecodeUtf8(part, pos);
    symbols.push_back(SymbolOf(c.code_point));
    pos += c.num_bytes;
  }
  merges_.Merge(&symbols, &scratch->merges);
  for (const int32_t symbol : symbols) {
    if (symbol >= kFirstCharacterSymbol) {
      AppendCharacter(static_cast<char32_t>(symbol - kFirstCharacterSymbol), after_unknown, ids);
    } else {
      ids->push_back(symbol);
      *after_unknown = false;
    }
  }
}

void PieceWordEncoder::AppendCharacter(char32_t character, bool* after_unknown,
                                       std::vector<int32_t>* ids) const {
  if (has_bytes_) {
    std::string bytes;
    AppendUtf8(character, &bytes);
    for (const char c : bytes) ids->push_back(byte_ids_[static_cast<uint8_t>(c)]);
    return;
  }
  // Without an unknown token, the character is left out.
  if (!unknown_id_.has_value() || (*after_unknown && fuse_unknown_)) return;
  ids->push_back(*unknown_id_);
  *after_unknown = true;
}

}  // namespace fastgen
