// SentencePieceTokenizer: a tokenizer.model through the sentencepiece library: unigram models, and
// those whose normalizer does more than to mark spaces (sentencepiece_source.h).
//
// The library never reads a control token in a text. Where the caller asks for special tokens to be
// parsed, they are found first, as for byte-level BPE, and the texts between them are given to the
// library one by one.
// Thread rule: immutable after construction; any thread.
// Tested by tests/engine/text/sentencepiece_tokenizer_test.cc and golden_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/sentencepiece_model.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // Reads source.sentencepiece_model. The model's control pieces are special tokens besides
  // source.added_tokens.
  static absl::StatusOr<std::unique_ptr<SentencePieceTokenizer>> Create(
      const TokenizerSource& source);

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options) const override;
  std::string_view TokenBytes(int32_t id) const override { return tokens_.Bytes(id); }
  bool IsSpecial(int32_t id) const override { return tokens_.IsSpecial(id); }
  int32_t vocab_size() const override { return tokens_.size(); }
  bool has_byte_fallback() const override { return true; }
  bool drops_first_space() const override { return drops_first_space_; }
  std::optional<int32_t> bos_id() const override { return bos_id_; }

 private:
  SentencePieceTokenizer() = default;
  absl::Status EncodePart(std::string_view text, std::vector<int32_t>* ids) const;

  std::unique_ptr<SentencePieceModel> model_;
  TokenTable tokens_;
  AddedTokenFinder special_tokens_;
  bool drops_first_space_ = true;
  std::vector<int32_t> prefix_ids_;
  std::vector<int32_t> suffix_ids_;
  std::optional<int32_t> bos_id_;
};

}  // namespace fastgen
