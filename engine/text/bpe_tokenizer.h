// BpeTokenizer: byte-level BPE (Llama 3, Qwen, DeepSeek, SmolLM2).
//
// A text goes through: added tokens found in the text as it is; NFC, if the model asks for it;
// added tokens found in the normalised text; split patterns, one after another, each isolating its
// matches; then each word's bytes merge. Most words are one token: those that merge to a single
// piece are in one table, filled at construction, and are looked up whole. No step is more than
// linearithmic in the text. No word ever becomes a special token: those come from added tokens
// alone, which untrusted bytes cannot spell.
// Thread rule: immutable after construction; Encode from any thread, its state is the call's own.
// Tested by tests/engine/text/bpe_tokenizer_test.cc and golden_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe_merges.h"
#include "engine/text/split_regex.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

// The split pattern of GPT-2, which ByteLevel pre-tokenizers imply.
inline constexpr std::string_view kGpt2SplitPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class BpeTokenizer final : public Tokenizer {
 public:
  // INVALID_ARGUMENT naming what is wrong with the source.
  static absl::StatusOr<std::unique_ptr<BpeTokenizer>> Create(const TokenizerSource& source);

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options) const override;
  std::string_view TokenBytes(int32_t id) const override { return tokens_.Bytes(id); }
  bool IsSpecial(int32_t id) const override { return tokens_.IsSpecial(id); }
  int32_t vocab_size() const override { return tokens_.size(); }
  bool has_byte_fallback() const override { return false; }
  std::optional<int32_t> bos_id() const override { return bos_id_; }

 private:
  class Encoding;  // one call of Encode

  BpeTokenizer() = default;
  absl::Status AddMerges(const TokenizerSource& source);
  absl::Status AddSplits(const TokenizerSource& source);
  void AddWholeWords(const TokenizerSource& source);

  TokenTable tokens_;
  std::array<int32_t, 256> byte_ids_;  // -1: the vocabulary lacks the byte
  BpeMerges merges_;
  absl::flat_hash_map<absl::string_view, int32_t> whole_words_;  // keys lie in tokens_
  size_t max_whole_word_bytes_ = 0;
  AddedTokenFinder raw_tokens_;
  AddedTokenFinder normalized_tokens_;
  std::vector<SplitRegex> splits_;
  bool normalize_nfc_ = false;
  bool add_prefix_space_ = false;
  std::vector<int32_t> prefix_ids_;
  std::vector<int32_t> suffix_ids_;
  std::optional<int32_t> bos_id_;
  std::optional<int32_t> unknown_id_;
};

}  // namespace fastgen
