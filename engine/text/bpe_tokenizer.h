// BpeTokenizer: byte-level BPE (Llama 3, Qwen, DeepSeek, SmolLM2, tekken), and BPE over characters
// with byte fallback (Llama 2, Mistral); and unigram tokenizers, which differ in their words alone.
//
// A text goes through: added tokens found in the text as it is; the normalizer; added tokens found
// in the normalised text; splits, one after another; then each word becomes pieces (WordEncoder).
// No step is more than linearithmic in the text. No word ever becomes a special token: those come
// from added tokens alone, which untrusted bytes cannot spell.
// Thread rule: immutable after construction; Encode from any thread, its state is the call's own.
// Tested by tests/engine/text/bpe_tokenizer_test.cc and golden_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/split_regex.h"
#include "engine/text/text_normalizer.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer.h"
#include "engine/text/word_encoder.h"

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
  std::string_view FirstTokenBytes(int32_t id) const override;
  bool IsSpecial(int32_t id) const override { return tokens_.IsSpecial(id); }
  int32_t vocab_size() const override { return tokens_.size(); }
  bool has_byte_fallback() const override { return has_byte_fallback_; }
  bool drops_first_space() const override { return drops_first_space_; }
  std::optional<int32_t> bos_id() const override { return bos_id_; }

 private:
  class Encoding;  // one call of Encode

  struct CompiledSplit {
    SplitRegex regex;
    SplitStep::Behavior behavior;
    bool invert;
  };

  BpeTokenizer() = default;
  absl::Status AddSplits(const TokenizerSource& source);
  void AddFirstTokens(const TokenizerSource& source);

  TokenTable tokens_;
  bool first_token_drops_space_ = false;
  // What other first tokens stand for than their bytes without one space at the beginning.
  absl::flat_hash_map<int32_t, std::string> first_token_bytes_;
  std::unique_ptr<WordEncoder> words_;
  AddedTokenFinder raw_tokens_;
  AddedTokenFinder normalized_tokens_;
  TextNormalizer normalizer_;
  std::optional<Metaspace> metaspace_;
  std::vector<CompiledSplit> splits_;
  bool add_prefix_space_ = false;
  bool has_byte_fallback_ = false;
  bool drops_first_space_ = false;
  std::vector<int32_t> prefix_ids_;
  std::vector<int32_t> suffix_ids_;
  std::optional<int32_t> bos_id_;
};

}  // namespace fastgen
