// tokenizer_config.json of a checkpoint: begin and end tokens, whether they are added, tokens that
// the vocabulary lacks, chat template.
//
// Thread rule: any thread.
// Tested by tests/engine/text/tokenizer_json_test.cc and tests/fuzz/tokenizer_json_fuzzer.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

// Members are "" where the file has none.
struct TokenizerConfig {
  std::string chat_template;  // of several, the one named "default"
  std::string bos_token;
  std::string eos_token;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::vector<AddedToken> added_tokens;  // added_tokens_decoder, by id
};

// INVALID_ARGUMENT for what is not JSON or has a member of the wrong type. "" gives an empty
// config.
absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view tokenizer_config_json);

// The template of a chat_template.json: {"chat_template": as in tokenizer_config.json}; "" where it
// has none.
absl::StatusOr<std::string> ParseChatTemplateJson(std::string_view chat_template_json);

// What an "added token" looks like in both files. Its id is not read.
class JsonNode;
absl::StatusOr<AddedToken> ReadAddedToken(const JsonNode& node);

// Applies the begin and end tokens, and whether they are added, to `source`: begin and end tokens
// that the source adds already stay. INVALID_ARGUMENT for a token that the vocabulary lacks.
absl::Status ApplyConfig(const TokenizerConfig& config, TokenizerSource* source);

// The same for a source that has no tokens of its own file's: the config's added tokens come first,
// and add_bos_token false removes the begin token that the model adds.
absl::Status ApplyWholeConfig(const TokenizerConfig& config, TokenizerSource* source);

}  // namespace fastgen
