// WordEncoder: one word to ids. Implementations: ByteWordEncoder, PieceWordEncoder and
// UnigramWordEncoder.
//
// Thread rule: immutable after construction; a Scratch belongs to one call at a time.
// Tested through BpeTokenizer: tests/engine/text/bpe_tokenizer_test.cc, bpe_oracle_test.cc and
// unigram_test.cc.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/bpe_merges.h"

namespace fastgen {

class WordEncoder {
 public:
  // Memory that calls reuse from word to word.
  struct Scratch {
    BpeMerges::Scratch merges;
    std::vector<int32_t> symbols;
    std::vector<double> sums;
  };

  virtual ~WordEncoder() = default;

  // Appends the ids of `word`. REQUIRES: `word` is UTF-8.
  virtual void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const = 0;
};

}  // namespace fastgen
