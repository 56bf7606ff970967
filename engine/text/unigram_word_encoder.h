// UnigramWordEncoder: a word cut into the pieces whose scores have the greatest sum (T5, XLM-R and
// other sentencepiece unigram models as tokenizer.json has them).
//
// score(end) = max over pieces that end there of score(begin) + score of the piece, from left to
// right; of equal sums the one from the leftmost begin stays. A character without a piece of its
// own may be taken alone for the lowest score less 10. Such characters in a row are one text, which
// becomes its bytes' pieces, where byte fallback is on and all are there, or else the unknown id.
// Time is linear in the word (times the longest piece, at worst), memory 4 bytes a byte: sums are
// kept only as far back as a piece reaches.
// Thread rule: immutable after construction; any thread.
// Tested by tests/engine/text/unigram_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/piece_trie.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer.h"
#include "engine/text/word_encoder.h"

namespace fastgen {

class UnigramWordEncoder final : public WordEncoder {
 public:
  // The longest piece. Trained ones have 16 characters by default.
  static constexpr size_t kMaxPieceBytes = 1024;

  // INVALID_ARGUMENT naming what is wrong with the source.
  static absl::StatusOr<std::unique_ptr<WordEncoder>> Create(const TokenizerSource& source,
                                                             const TokenTable& tokens);

  void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const override;

 private:
  UnigramWordEncoder(const TokenizerSource& source, const TokenTable& tokens);

  // Fills scratch->symbols: [end] the id of the last piece of the best way to there.
  void FindBestEnds(std::string_view word, Scratch* scratch) const;
  // The size of the piece `id`, or of the character at `pos` that has none.
  size_t NumBytes(int32_t id, std::string_view word, size_t pos) const;
  void AppendUnknown(std::string_view text, std::vector<int32_t>* ids) const;

  PieceTrie trie_;
  std::vector<double> scores_;         // [vocab]
  std::vector<uint16_t> num_bytes_;    // [vocab]
  std::array<int32_t, 256> byte_ids_;  // -1: the vocabulary lacks the byte
  double unknown_score_ = 0;
  int32_t unknown_id_;
  size_t num_sums_;  // a power of two above the longest piece
};

}  // namespace fastgen
