// Tokenizer: text to ids and ids to bytes.
//
// Implementations: BpeTokenizer (byte-level BPE, BPE over characters with byte fallback, unigram)
// and SentencePieceTokenizer (the library, for models that are not plain BPE). All are made from a
// TokenizerSource, plain data that the facade fills from tokenizer.json, tekken.json,
// tokenizer.model or GGUF metadata.
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

// One step of the text's normalization, before words are made.
struct NormalizerStep {
  enum class Kind {
    kNfc,
    kPrepend,       // `content` before a text that is not empty
    kReplace,       // `content` instead of every `pattern`
    kReplaceRun,    // `content` instead of every run of two or more of the character `pattern`
    kStrip,         // white space at the ends
    kCharacterMap,  // sentencepiece's table, whose bytes are `content`
  };
  Kind kind = Kind::kNfc;
  std::string pattern;
  std::string content;
  bool strip_left = false;
  bool strip_right = false;
};

// One step of cutting a text into words.
struct SplitStep {
  // What becomes of the matches: words of their own, dropped, or joined to a neighbour; kContiguous
  // joins matches to matches.
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  std::string pattern;  // a regex
  Behavior behavior = Behavior::kIsolated;
  bool invert = false;  // what lies between the matches is taken for the matches
};

// The mark that stands for a space in the pieces, put in front of a text where it is not there.
// The text is what the first `num_splits_before` splits leave.
struct Metaspace {
  enum class Prepend { kNever, kFirst, kAlways };  // kFirst: at the very beginning only
  std::string mark = "\xE2\x96\x81";
  Prepend prepend = Prepend::kAlways;
  size_t num_splits_before = 0;
};

// Everything a tokenizer is made of. Which members count depends on `model`.
struct TokenizerSource {
  enum class Model {
    kByteLevelBpe,   // words are bytes
    kPieceBpe,       // words are characters, those without a piece are bytes
    kUnigram,        // words are cut into the pieces with the greatest sum of scores
    kSentencePiece,  // `sentencepiece_model` says all
  };
  // Which neighbours merge, and which first.
  enum class MergeOrder {
    kListed,   // `merges`, in their order
    kById,     // any whose joint text is a piece, the lowest id first
    kByScore,  // the same, the highest score first
  };
  Model model = Model::kByteLevelBpe;
  // [vocab]; byte-level BPE: in the GPT-2 byte alphabet, or raw bytes; holes are ""
  std::vector<std::string> pieces;
  bool pieces_are_bytes = false;
  MergeOrder merge_order = MergeOrder::kListed;
  std::vector<float> scores;           // [vocab] for kByScore
  std::vector<double> unigram_scores;  // [vocab] for kUnigram
  // kUnigram: what has no piece becomes its bytes' pieces, where the vocabulary has them.
  bool unigram_byte_fallback = false;
  std::vector<uint8_t>
      byte_fallback;  // [vocab] 1 where the piece decodes to a raw byte, or empty; not byte-level
  std::vector<std::pair<std::string, std::string>> merges;  // in rank order
  std::vector<AddedToken> added_tokens;
  bool normalize_added_tokens = true;  // those with `normalized` are normalised as texts are
  std::vector<NormalizerStep> normalizer;
  std::optional<Metaspace> metaspace;
  std::vector<SplitStep> splits;  // applied one after another
  bool ignore_merges = false;     // a whole word that is a piece needs no merging
  bool add_prefix_space = false;
  bool fuse_unknown = false;  // kPieceBpe: unknown characters in a row are one unknown token
  // Replacements in a piece's text, which is then what the id stands for (not byte-level).
  std::vector<std::pair<std::string, std::string>> decoder_replacements;
  // The one of them that leaves nothing in the first token of a text.
  std::optional<size_t> first_token_removal;
  bool drop_first_space = false;    // a text decodes without the space that it begins with
  std::string unknown_text;         // what the unknown id decodes to; "": its piece
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

  // The same for the first token of a text.
  virtual std::string_view FirstTokenBytes(int32_t id) const { return TokenBytes(id); }

  virtual bool IsSpecial(int32_t id) const = 0;
  virtual int32_t vocab_size() const = 0;
  // Byte fallback turns an invalid byte into one U+FFFD each.
  virtual bool has_byte_fallback() const = 0;
  // Whether a text decodes without the space that it begins with.
  virtual bool drops_first_space() const { return has_byte_fallback(); }
  virtual std::optional<int32_t> bos_id() const = 0;
};

// The whole text of `ids`: valid UTF-8, invalid sequences replaced by U+FFFD.
std::string DecodeAll(const Tokenizer& tokenizer, absl::Span<const int32_t> ids,
                      bool skip_special_tokens);

// INVALID_ARGUMENT naming what is wrong with the source.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerSource source);

}  // namespace fastgen
