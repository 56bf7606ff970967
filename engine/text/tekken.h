// tekken.json (Mistral Nemo, Ministral): a tokenizer as ranks of byte strings, read into plain
// data.
//
// {"config": {"pattern", "default_vocab_size", "default_num_special_tokens"},
//  "vocab": [{"rank", "token_bytes" in base64}], "special_tokens": [{"rank", "token_str"}]}. The
// special tokens have the first ids, the ranks follow; the file may list more ranks than the
// vocabulary takes. Files of the first version have no special tokens: theirs are in the .cc. Any
// two neighbours whose joint bytes have a rank may merge, the lowest rank first, and a word that
// has one is that token.
// Thread rule: any thread.
// Tested by tests/engine/text/tekken_test.cc, golden_test.cc and tests/fuzz/tekken_fuzzer.cc.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

// INVALID_ARGUMENT naming the field.
absl::StatusOr<TokenizerSource> ParseTekken(std::string_view tekken_json);

}  // namespace fastgen
