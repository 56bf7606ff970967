#include "engine/text/merge_rules.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace fastgen {
namespace {

// The sum of the squares of the pieces' lengths. The largest published vocabularies need 2^25.
constexpr size_t kMaxSquaredLengths = size_t{1} << 28;

// [vocab] how early each piece is made; equal scores have equal ranks.
absl::StatusOr<std::vector<uint32_t>> Ranks(const TokenizerSource& source) {
  std::vector<uint32_t> ranks(source.pieces.size());
  if (source.merge_order == TokenizerSource::MergeOrder::kById) {
    for (size_t id = 0; id < ranks.size(); ++id) ranks[id] = static_cast<uint32_t>(id);
    return ranks;
  }
  if (source.scores.size() != source.pieces.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", source.scores.size(), " scores for ", source.pieces.size(), " pieces"));
  }
  std::vector<int32_t> order(source.pieces.size());
  for (size_t id = 0; id < order.size(); ++id) {
    if (std::isnan(source.scores[id])) {
      return absl::InvalidArgumentError(
          absl::StrCat("the score of piece ", id, " is not a number"));
    }
    order[id] = static_cast<int32_t>(id);
  }
  const auto score = [&](int32_t id) { return source.scores[static_cast<size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return score(a) > score(b); });
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && score(order[i]) != score(order[i - 1])) ++rank;
    ranks[static_cast<size_t>(order[i])] = rank;
  }
  return ranks;
}

bool BeginsCharacter(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; }

}  // namespace

PieceIds IndexPieces(const TokenizerSource& source) {
  PieceIds ids;
  ids.reserve(source.pieces.size());
  for (size_t i = 0; i < source.pieces.size(); ++i) {
    if (!source.pieces[i].empty()) ids.try_emplace(source.pieces[i], static_cast<int32_t>(i));
  }
  return ids;
}

absl::Status AddListedMerges(const TokenizerSource& source, const PieceIds& ids,
                             const TokenTable& tokens, BpeMerges* merges) {
  merges->Reserve(source.merges.size());
  std::string merged;
  for (size_t rank = 0; rank < source.merges.size(); ++rank) {
    const auto& [left, right] = source.merges[rank];
    merged.assign(left).append(right);
    int32_t parts[3];
    const std::string* names[3] = {&left, &right, &merged};
    for (int i = 0; i < 3; ++i) {
      const auto id = ids.find(*names[i]);
      if (id == ids.end()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "merge ", rank, " ('", absl::CHexEscape(left.substr(0, 64)), "' '",
            absl::CHexEscape(right.substr(0, 64)), "') needs the piece '",
            absl::CHexEscape(names[i]->substr(0, 128)), "', which the vocabulary lacks"));
      }
      parts[i] = id->second;
    }
    if (tokens.IsSpecial(parts[2])) continue;
    merges->Add(parts[0], parts[1], static_cast<uint32_t>(rank), parts[2]);
  }
  return absl::OkStatus();
}

absl::Status AddImpliedMerges(const TokenizerSource& source, absl::Span<const int32_t> candidates,
                              const SymbolOf& symbol_of, BpeMerges* merges) {
  size_t squared_lengths = 0;
  for (const int32_t id : candidates) {
    const size_t length = source.pieces[static_cast<size_t>(id)].size();
    // Summed piece by piece, so that it cannot wrap round.
    squared_lengths += std::min(length, kMaxSquaredLengths) * std::min(length, kMaxSquaredLengths);
    if (squared_lengths > kMaxSquaredLengths) {
      return absl::InvalidArgumentError(
          absl::StrCat("the pieces up to ", id,
                       " are too long: the squares of their lengths exceed ", kMaxSquaredLengths));
    }
  }
  auto ranks = Ranks(source);
  if (!ranks.ok()) return ranks.status();
  merges->Reserve(candidates.size() * 2);
  for (const int32_t id : candidates) {
    const std::string_view piece = source.pieces[static_cast<size_t>(id)];
    for (size_t i = 1; i < piece.size(); ++i) {
      if (!source.pieces_are_bytes && !BeginsCharacter(piece[i])) continue;
      const int32_t left = symbol_of(piece.substr(0, i));
      if (left < 0) continue;
      const int32_t right = symbol_of(piece.substr(i));
      if (right < 0) continue;
      merges->Add(left, right, (*ranks)[static_cast<size_t>(id)], id);
    }
  }
  return absl::OkStatus();
}

}  // namespace fastgen
