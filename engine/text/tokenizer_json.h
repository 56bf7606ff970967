// tokenizer.json of a checkpoint, read into plain data.
//
// Understood: byte-level BPE, BPE with byte fallback, and Unigram; which normalizers,
// pre-tokenizers and decoders: tokenizer_json_steps.h; post-processors TemplateProcessing and
// ByteLevel. Anything else is refused by its name: a tokenizer that is nearly right would give a
// model that is subtly wrong. The file is untrusted: size, depth, ids and counts are bounded, and
// every error says where it is. Thread rule: any thread. Tested by
// tests/engine/text/tokenizer_json_test.cc, unigram_test.cc and
// tests/fuzz/tokenizer_json_fuzzer.cc.
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

}  // namespace fastgen
