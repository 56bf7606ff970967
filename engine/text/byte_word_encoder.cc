#include "engine/text/byte_word_encoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/byte_alphabet.h"

namespace fastgen {

absl::StatusOr<std::unique_ptr<WordEncoder>> ByteWordEncoder::Create(const TokenizerSource& source,
                                                                     const TokenTable& tokens) {
  std::unique_ptr<ByteWordEncoder> encoder(new ByteWordEncoder);
  const PieceIds ids = IndexPieces(source);
  for (size_t byte = 0; byte < 256; ++byte) {
    const auto id =
        ids.find(source.pieces_are_bytes ? std::string(1, static_cast<char>(byte))
                                         : AlphabetCharacter(static_cast<uint8_t>(byte)));
    encoder->byte_ids_[byte] = id == ids.end() || tokens.IsSpecial(id->second) ? -1 : id->second;
  }
  RETURN_IF_ERROR(encoder->AddMerges(source, tokens, ids));
  encoder->AddWholeWords(source, tokens);
  encoder->unknown_id_ = source.unknown_id;
  return std::unique_ptr<WordEncoder>(std::move(encoder));
}

absl::Status ByteWordEncoder::AddMerges(const TokenizerSource& source, const TokenTable& tokens,
                                        const PieceIds& ids) {
  if (source.merge_order == TokenizerSource::MergeOrder::kListed) {
    return AddListedMerges(source, ids, tokens, &merges_);
  }
  std::vector<int32_t> candidates;
  candidates.reserve(source.pieces.size());
  for (size_t id = 0; id < source.pieces.size(); ++id) {
    if (source.pieces[id].size() > 1 && !tokens.IsSpecial(static_cast<int32_t>(id))) {
      candidates.push_back(static_cast<int32_t>(id));
    }
  }
  return AddImpliedMerges(
      source, candidates,
      [&](std::string_view text) {
        const auto id = ids.find(ToAbsl(text));
        return id == ids.end() || tokens.IsSpecial(id->second) ? -1 : id->second;
      },
      &merges_);
}

void ByteWordEncoder::AddWholeWords(const TokenizerSource& source, const TokenTable& tokens) {
  std::vector<int32_t> word;
  BpeMerges::Scratch scratch;
  whole_words_.reserve(source.pieces.size());
  for (size_t i = 0; i < source.pieces.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    if (source.pieces[i].empty() || tokens.IsSpecial(id)) continue;
    const std::string_view bytes = tokens.Bytes(id);
    // Outside the alphabet, or an added token.
    if (!source.pieces_are_bytes && BytesFromAlphabet(source.pieces[i]) != bytes) continue;
    if (!source.ignore_merges) {
      word.clear();
      for (const char c : bytes) word.push_back(byte_ids_[static_cast<uint8_t>(c)]);
      if (std::find(word.begin(), word.end(), -1) != word.end()) continue;
      merges_.Merge(&word, &scratch);
      if (word.size() != 1 || word[0] != id) continue;
    }
    whole_words_.try_emplace(ToAbsl(bytes), id);
    max_whole_word_bytes_ = std::max(max_whole_word_bytes_, bytes.size());
  }
}

void ByteWordEncoder::Encode(std::string_view word, Scratch* scratch,
                             std::vector<int32_t>* ids) const {
  if (word.size() <= max_whole_word_bytes_) {
    const auto whole = whole_words_.find(ToAbsl(word));
    if (whole != whole_words_.end()) {
      ids->push_back(whole->second);
      return;
    }
  }
  std::vector<int32_t>& symbols = scratch->symbols;
  symbols.clear();
  for (const char c : word) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
    // A byte that the vocabulary lacks is left out where it has no unknown token either.
    if (id >= 0) {
      symbols.push_back(id);
    } else if (unknown_id_.has_value()) {
      symbols.push_back(*unknown_id_);
    }
  }
  merges_.Merge(&symbols, &scratch->merges);
  ids->insert(ids->end(), symbols.begin(), symbols.end());
}

}  // namespace fastgen
