// tokenizer.json and tokenizer_config.json of a checkpoint, read into plain data.
//
// Understood: byte-level BPE. Normalizer NFC; pre-tokenizers Split (isolating), Digits and
// ByteLevel, alone or in a Sequence that ends with ByteLevel; post-processors TemplateProcessing
// and ByteLevel; decoder ByteLevel. Anything else is refused by its name: a tokenizer that is
// nearly right would give a model that is subtly wrong. The files are untrusted: size, depth, ids
// and counts are bounded, and every error says where it is.
// Thread rule: any thread.
// Tested by tests/engine/text/tokenizer_json_test.cc and tests/fuzz/tokenizer_json_fuzzer.cc.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

// The larger of the two files in published checkpoints has 35 MB.
inline constexpr size_t kMaxTokenizerJsonBytes = size_t{256} << 20;

// `tokenizer_config_json` may be "". It names the begin and end tokens, and may ask for them to be
// added (add_bos_token, add_eos_token) where the post-processor does not. INVALID_ARGUMENT
// otherwise.
absl::StatusOr<TokenizerSource> ParseTokenizerJson(std::string_view tokenizer_json,
                                                   std::string_view tokenizer_config_json);

// What else tokenizer_config.json holds. Members are "" where the file has none.
struct TokenizerConfig {
  std::string chat_template;  // of several, the one named "default"
  std::string bos_token;
  std::string eos_token;
  bool add_bos_token = false;
  bool add_eos_token = false;
};

// INVALID_ARGUMENT for what is not JSON or has a member of the wrong type. "" gives an empty
// config.
absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view tokenizer_config_json);

}  // namespace fastgen
