// ByteWordEncoder: a word's bytes, merged (Llama 3, Qwen, DeepSeek, SmolLM2, tekken).
//
// Most words are one token: the words that merge to a single piece are in one table, filled at
// construction, and are looked up whole.
// Thread rule: immutable after construction; any thread.
// Tested by tests/engine/text/bpe_tokenizer_test.cc and bpe_oracle_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/text/bpe_merges.h"
#include "engine/text/merge_rules.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer.h"
#include "engine/text/word_encoder.h"

namespace fastgen {

class ByteWordEncoder final : public WordEncoder {
 public:
  // `tokens` holds what each id stands for and must outlive the encoder. INVALID_ARGUMENT naming
  // what is wrong with the source.
  static absl::StatusOr<std::unique_ptr<WordEncoder>> Create(const TokenizerSource& source,
                                                             const TokenTable& tokens);

  void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const override;

 private:
  ByteWordEncoder() = default;
  absl::Status AddMerges(const TokenizerSource& source, const TokenTable& tokens,
                         const PieceIds& ids);
  void AddWholeWords(const TokenizerSource& source, const TokenTable& tokens);

  std::array<int32_t, 256> byte_ids_;  // -1: the vocabulary lacks the byte
  BpeMerges merges_;
  absl::flat_hash_map<absl::string_view, int32_t> whole_words_;  // keys lie in the token table
  size_t max_whole_word_bytes_ = 0;
  std::optional<int32_t> unknown_id_;
};

}  // namespace fastgen
