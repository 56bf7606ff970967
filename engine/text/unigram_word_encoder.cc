#include "engine/text/unigram_word_encoder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/unicode.h"
#include "engine/text/piece_word_encoder.h"

namespace fastgen {
namespace {

// How much less likely than the rarest piece a character without one is.
constexpr double kUnknownPenalty = 10;
constexpr int32_t kUnknownCharacter = -1;
constexpr double kUnreached = -std::numeric_limits<double>::infinity();

// The pieces that a text may contain. Special tokens never come from a text's words.
std::vector<std::pair<std::string_view, int32_t>> PiecesOfText(const TokenizerSource& source,
                                                               const TokenTable& tokens) {
  std::vector<std::pair<std::string_view, int32_t>> pieces;
  pieces.reserve(source.pieces.size());
  for (size_t id = 0; id < source.pieces.size(); ++id) {
    if (tokens.IsSpecial(static_cast<int32_t>(id))) continue;
    pieces.emplace_back(source.pieces[id], static_cast<int32_t>(id));
  }
  return pieces;
}

absl::Status CheckPieces(const TokenizerSource& source) {
  if (source.unigram_scores.size() != source.pieces.size()) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", source.pieces.size(),
                                                   " pieces, but ", source.unigram_scores.size(),
                                                   " scores"));
  }
  if (!source.unknown_id.has_value()) {
    return absl::InvalidArgumentError("a unigram tokenizer needs an unknown id");
  }
  for (size_t id = 0; id < source.pieces.size(); ++id) {
    const std::string& piece = source.pieces[id];
    const auto invalid = [&](absl::string_view what) {
      return absl::InvalidArgumentError(
          absl::StrCat("piece ", id, " ('", absl::CHexEscape(piece.substr(0, 64)), "') ", what));
    };
    if (piece.size() > UnigramWordEncoder::kMaxPieceBytes) {
      return invalid(absl::StrCat("has ", piece.size(), " bytes, more than ",
                                  UnigramWordEncoder::kMaxPieceBytes));
    }
    if (!IsValidUtf8(piece)) return invalid("is not UTF-8");
    // Sums of floats stay far inside what a double holds.
    if (!(std::abs(source.unigram_scores[id]) <= std::numeric_limits<float>::max())) {
      return invalid("has a score that is not a number of single precision");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<WordEncoder>> UnigramWordEncoder::Create(
    const TokenizerSource& source, const TokenTable& tokens) {
  const absl::Status status = CheckPieces(source);
  if (!status.ok()) return status;
  return std::unique_ptr<WordEncoder>(new UnigramWordEncoder(source, tokens));
}

UnigramWordEncoder::UnigramWordEncoder(const TokenizerSource& source, const TokenTable& tokens)
    : trie_(PiecesOfText(source, tokens)),
      scores_(source.unigram_scores),
      unknown_id_(*source.unknown_id) {
  byte_ids_.fill(-1);
  size_t longest = 4;  // a character without a piece
  for (size_t i = 0; i < source.pieces.size(); ++i) {
    const std::string& piece = source.pieces[i];
    const int32_t id = static_cast<int32_t>(i);
    num_bytes_.push_back(static_cast<uint16_t>(piece.size()));
    longest = std::max(longest, piece.size());
    const std::optional<uint8_t> byte = ByteOfPiece(piece);
    if (source.unigram_byte_fallback && byte.has_value() && !tokens.IsSpecial(id)) {
      byte_ids_[*byte] = id;
    }
  }
  num_sums_ = 1;
  while (num_sums_ <= longest) num_sums_ *= 2;
  if (!scores_.empty()) {
    unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
  }
}

void UnigramWordEncoder::FindBestEnds(std::string_view word, Scratch* scratch) const {
  std::vector<int32_t>& best = scratch->symbols;
  best.resize(word.size() + 1);
  // The sum at a place, which begin + num_sums_ takes over once it has been read.
  std::vector<double>& sums = scratch->sums;
  if (sums.size() != num_sums_) sums.assign(num_sums_, kUnreached);
  const size_t mask = num_sums_ - 1;
  sums[0] = 0;
  for (size_t begin = 0; begin < word.size();) {
    const double sum = std::exchange(sums[begin & mask], kUnreached);
    const auto offer = [&](size_t end, double score, int32_t id) {
      if (!(sum + score > sums[end & mask])) return;
      sums[end & mask] = sum + score;
      best[end] = id;
    };
    const size_t num_bytes = DecodeUtf8(word, begin).num_bytes;
    bool has_piece = false;
    trie_.ForEachPrefix(word.substr(begin), [&](size_t size, int32_t id) {
      offer(begin + size, scores_[static_cast<size_t>(id)], id);
      has_piece = has_piece || size == num_bytes;
    });
    if (!has_piece) offer(begin + num_bytes, unknown_score_, kUnknownCharacter);
    begin += num_bytes;
  }
  sums[word.size() & mask] = kUnreached;
}

size_t UnigramWordEncoder::NumBytes(int32_t id, std::string_view word, size_t pos) const {
  if (id != kUnknownCharacter) return num_bytes_[static_cast<size_t>(id)];
  return DecodeUtf8(word, pos).num_bytes;
}

void UnigramWordEncoder::Encode(std::string_view word, Scratch* scratch,
                                std::vector<int32_t>* ids) const {
  if (word.empty()) return;
  FindBestEnds(word, scratch);
  // From the end back to the beginning: each id moves from its piece's end to its begin.
  std::vector<int32_t>& best = scratch->symbols;
  int32_t id = best[word.size()];
  for (size_t end = word.size(); end > 0;) {
    size_t begin = end - 1;
    if (id != kUnknownCharacter) {
      begin = end - num_bytes_[static_cast<size_t>(id)];
    } else {
      while ((static_cast<uint8_t>(word[begin]) & 0xC0) == 0x80) --begin;
    }
    id = std::exchange(best[begin], id);
    end = begin;
  }
  size_t unknown_begin = 0;  // of the text without pieces that ends at pos
  size_t pos = 0;
  while (pos < word.size()) {
    const int32_t next = best[pos];
    const size_t num_bytes = NumBytes(next, word, pos);
    if (next != kUnknownCharacter && next != unknown_id_) {
      AppendUnknown(word.substr(unknown_begin, pos - unknown_begin), ids);
      ids->push_back(next);
      unknown_begin = pos + num_bytes;
    }
    pos += num_bytes;
  }
  AppendUnknown(word.substr(unknown_begin), ids);
}

void UnigramWordEncoder::AppendUnknown(std::string_view text, std::vector<int32_t>* ids) const {
  if (text.empty()) return;
  // Characters that were taken one by one may be a piece together.
  const int32_t piece = trie_.Find(text);
  if (piece >= 0) {
    ids->push_back(piece);
    return;
  }
  const auto id_of = [&](char byte) { return byte_ids_[static_cast<uint8_t>(byte)]; };
  if (!std::all_of(text.begin(), text.end(), [&](char byte) { return id_of(byte) >= 0; })) {
    ids->push_back(unknown_id_);
    return;
  }
  for (const char byte : text) ids->push_back(id_of(byte));
}

}  // namespace fastgen
