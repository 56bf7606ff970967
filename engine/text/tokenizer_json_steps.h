// The parts of a tokenizer.json around its model: normalizer, pre-tokenizer and decoder.
//
// Understood, because published checkpoints have them: normalizers NFC, Prepend, Strip,
// Precompiled, and Replace of a string or of a run of one character (" {2,}"); pre-tokenizers Split
// (every behavior), Digits, WhitespaceSplit, Metaspace and ByteLevel; decoders ByteLevel, or
// Replace, Metaspace, ByteFallback, Fuse and Strip of the first space. All alone or in a Sequence.
// Anything else is refused by its name. Thread rule: any thread. Tested by
// tests/engine/text/tokenizer_json_test.cc and unigram_test.cc.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/json_node.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

// What the model is made of decides which of the others fit.
absl::Status ReadNormalizer(const JsonNode& root, TokenizerSource* source);
absl::Status ReadPreTokenizer(const JsonNode& root, TokenizerSource* source);

// Where the bytes of a text come from that have no other piece.
enum class DecodedBytes {
  kNone,
  kFromPieces,  // pieces such as "<0x41>" are bytes
};
absl::StatusOr<DecodedBytes> ReadDecoder(const JsonNode& root, TokenizerSource* source);

}  // namespace fastgen
