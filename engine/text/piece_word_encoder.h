// PieceWordEncoder: a word's characters, merged; characters without a piece become bytes (Llama 2,
// Mistral: what sentencepiece's BPE does).
//
// Here a "word" is often the whole text, spaces and all. It is cut where no merge can ever reach
// across: between two characters that are neighbours inside no merged piece. The parts then merge
// by themselves, with the same result, and most are one token, found in a table. A character
// without a piece is a symbol of its own (kFirstCharacterSymbol + code point), for a merge may
// still take it into a piece; what is left of them becomes bytes at the end, or the unknown token.
// Thread rule: immutable after construction; any thread.
// Tested by tests/engine/text/piece_bpe_test.cc, bpe_oracle_test.cc and golden_test.cc.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/text/bpe_merges.h"
#include "engine/text/merge_rules.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer.h"
#include "engine/text/word_encoder.h"

namespace fastgen {

// The byte that a piece such as "<0x41>" stands for; nullopt for other texts.
std::optional<uint8_t> ByteOfPiece(std::string_view piece);

class PieceWordEncoder final : public WordEncoder {
 public:
  // INVALID_ARGUMENT naming what is wrong with the source.
  static absl::StatusOr<std::unique_ptr<WordEncoder>> Create(const TokenizerSource& source,
                                                             const TokenTable& tokens);

  void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const override;

 private:
  static constexpr int32_t kFirstCharacterSymbol = 1 << 22;

  PieceWordEncoder() = default;
  absl::Status AddBytes(const TokenizerSource& source, const TokenTable& tokens);
  absl::Status AddMerges(const TokenizerSource& source, const TokenTable& tokens);
  // Notes the pairs of neighbouring characters inside the pieces that merges lead to.
  void AddInnerPairs(std::string_view piece);
  void AddWholeWords(const TokenizerSource& source, const TokenTable& tokens);

  bool MayMerge(char32_t left, char32_t right) const;
  int32_t SymbolOf(char32_t character) const;
  void EncodePart(std::string_view part, Scratch* scratch, bool* after_unknown,
                  std::vector<int32_t>* ids) const;
  void AppendCharacter(char32_t character, bool* after_unknown, std::vector<int32_t>* ids) const;

  bool has_bytes_ = false;
  std::array<int32_t, 256> byte_ids_;
  std::array<int32_t, 128> ascii_symbols_;
  absl::flat_hash_map<char32_t, int32_t> symbols_;  // of the other characters that are pieces
  BpeMerges merges_;
  std::array<std::bitset<128>, 128> ascii_pairs_;
  absl::flat_hash_set<uint64_t> pairs_;                          // left << 32 | right
  absl::flat_hash_map<absl::string_view, int32_t> whole_words_;  // keys lie in texts_
  std::vector<std::string> texts_;                               // [vocab]
  size_t max_whole_word_bytes_ = 0;
  std::optional<int32_t> unknown_id_;
  bool fuse_unknown_ = false;
};

}  // namespace fastgen
