// A tokenizer.model (a serialised sentencepiece ModelProto) read and checked, and what of it our
// own BPE can do.
//
// The bytes are not trusted, and the sentencepiece library trusts them in places: so the message is
// read here first, and what the library would stumble over (piece texts, scores, duplicates, tables
// of the normalizer that point outside themselves) is refused by name. Llama's and Mistral's models
// are plain BPE over characters: their normalizer only marks spaces. Those become a TokenizerSource
// of pieces and scores, which gives the library's ids several times faster. Other models are left
// to the library. Thread rule: any thread. Tested by tests/engine/text/sentencepiece_source_test.cc
// and tests/fuzz/sentencepiece_fuzzer.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

// Published models stay below 5 MB.
inline constexpr size_t kMaxSentencePieceBytes = size_t{64} << 20;

struct SentencePieceSpec {
  // The numbers of the file format; GGUF has the same.
  enum class Type {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  enum class ModelType { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::kNormal;
  };
  std::vector<Piece> pieces;
  ModelType model_type = ModelType::kUnigram;
  bool whitespace_is_suffix = false;
  std::string unknown_surface = " \xE2\x81\x87 ";  // what an unknown piece decodes to
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
  std::string character_map;  // the normalizer's table; "": none
  bool add_dummy_prefix = true;
  bool remove_extra_spaces = true;
  bool escape_spaces = true;
};

// INVALID_ARGUMENT naming the field.
absl::StatusOr<SentencePieceSpec> ParseSentencePieceModel(std::string_view bytes);

// INVALID_ARGUMENT for pieces that do not hold together: no unknown piece or two, duplicates, texts
// that are empty, too long or not UTF-8.
absl::Status CheckPieces(const std::vector<SentencePieceSpec::Piece>& pieces);

// True where SourceFromPieces gives what the library gives.
bool IsPlainBpe(const SentencePieceSpec& spec);

// REQUIRES: IsPlainBpe and CheckPieces. The begin token is named, and not added.
TokenizerSource SourceFromPieces(const SentencePieceSpec& spec);

// A tokenizer.model: plain data where it is plain BPE, else the model itself for the library. Its
// begin token is added by default, as the library's users expect.
absl::StatusOr<TokenizerSource> SourceFromSentencePieceModel(std::string bytes);

}  // namespace fastgen
