// Tokenizer: text to ids and ids to bytes.
//
// Implementations: BpeTokenizer (byte-level BPE) and SentencePieceTokenizer. Both are made from a
// TokenizerSource, plain data that the facade fills from tokenizer.json, tokenizer.model or GGUF
// metadata.
// Thread rule: immutable after construction; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace fastgen {

// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
};

struct EncodeOptions {
  bool add_special_tokens = true;  // what the tokenizer adds by default (bos)
  bool parse_special = true;       // special tokens written out in the text become their ids
  // Bytes that came from a request inside a rendered chat: a special token that touches them is
  // plain text.
  absl::Span<const ByteRange> untrusted = {};
};

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool special = false;
  bool lstrip = false;
  bool rstrip = false;
  bool single_word = false;
  bool normalized = false;
};

// Everything a tokenizer is made of. Which members count depends on `model`.
struct TokenizerSource {
  enum class Model { kByteLevelBpe, kSentencePieceBpe };
  Model model = Model::kByteLevelBpe;
  // [vocab]; byte-level BPE: in the GPT-2 byte alphabet; holes are ""
  std::vector<std::string> pieces;
  std::vector<float> scores;           // [vocab] or empty (sentencepiece)
  std::vector<uint8_t> byte_fallback;  // [vocab] 1 where the piece is a raw byte, or empty
  std::vector<std::pair<std::string, std::string>> merges;  // in rank order
  std::vector<AddedToken> added_tokens;
  // Regexes applied one after another, each isolating its matches.
  std::vector<std::string> split_patterns;
  bool split_digits = false;  // each digit on its own, before split_patterns
  bool normalize_nfc = false;
  bool ignore_merges = false;  // a whole word that is a piece needs no merging
  bool add_prefix_space = false;
  std::vector<int32_t> prefix_ids;  // added by add_special_tokens, before
  std::vector<int32_t> suffix_ids;  // and after
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
  std::optional<int32_t> unknown_id;
  std::string sentencepiece_model;  // serialised ModelProto (tokenizer.model)
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // INVALID_ARGUMENT when `text` is not UTF-8.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      const EncodeOptions& options) const = 0;

  // The bytes that `id` stands for in running text (possibly part of a UTF-8 sequence). Special
  // tokens: their text. Ids out of range, and holes in the vocabulary: "".
  virtual std::string_view TokenBytes(int32_t id) const = 0;

  virtual bool IsSpecial(int32_t id) const = 0;
  virtual int32_t vocab_size() const = 0;
  // Byte fallback turns an invalid byte into one U+FFFD each, and drops the first space of a whole
  // text.
  virtual bool has_byte_fallback() const = 0;
  virtual std::optional<int32_t> bos_id() const = 0;
};

// The whole text of `ids`: valid UTF-8, invalid sequences replaced by U+FFFD.
std::string DecodeAll(const Tokenizer& tokenizer, absl::Span<const int32_t> ids,
                      bool skip_special_tokens);

// INVALID_ARGUMENT naming what is wrong with the source.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerSource source);

}  // namespace fastgen
