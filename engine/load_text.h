// LoadText: a model's text side from its files: tokenizer, chat template, ids that end an answer.
//
// A GGUF file carries all of it as metadata (tokenizer.ggml.*, tokenizer.chat_template): of a
// byte-level BPE it names the split patterns by one word, tokenizer.ggml.pre, and an unknown word
// is refused, as a wrong pattern gives other ids without a sign. A Hugging Face directory has
// tokenizer.json, or else tekken.json, tokenizer.model.v3 or tokenizer.model (the first that is
// there); besides, tokenizer_config.json, chat_template.jinja and chat_template.json.
//
// A model's own chat template that does not compile does not keep the model from being served:
// chat prompts are refused with the reason. One that the user named must compile.
// Thread rule: pure functions, any thread.
// Tested by tests/engine/load_text_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/gguf.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

struct ModelText {
  std::unique_ptr<Tokenizer> tokenizer;
  absl::StatusOr<ChatTemplate> chat_template =
      absl::FailedPreconditionError("the model has no chat template");
  std::vector<int32_t> eos_ids;
};

// `gguf` is null for a directory. `chat_template_path` "": the model's own. Errors are one sentence
// that names the file.
absl::StatusOr<ModelText> LoadText(const std::string& model_path, const GgufFile* gguf,
                                   const std::string& chat_template_path);

// The tokenizer that a GGUF file's metadata describes. INVALID_ARGUMENT or UNIMPLEMENTED naming the
// key and its value.
absl::StatusOr<TokenizerSource> TokenizerSourceFromGguf(const GgufFile& file);

}  // namespace fastgen
