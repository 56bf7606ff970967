#include "engine/text/tokenizer.h"

#include "base/status_macros.h"
#include "engine/text/bpe_tokenizer.h"
#include "engine/text/detokenizer.h"
#include "engine/text/sentencepiece_tokenizer.h"

namespace fastgen {

std::string DecodeAll(const Tokenizer& tokenizer, absl::Span<const int32_t> ids,
                      bool skip_special_tokens) {
  // The same code as a stream's, so that the two cannot differ.
  DetokenizerOptions options;
  options.skip_special_tokens = skip_special_tokens;
  Detokenizer detokenizer(&tokenizer, std::move(options));
  std::string text;
  for (const int32_t id : ids) text += detokenizer.Push(id);
  text += detokenizer.Flush();
  return text;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerSource source) {
  if (source.model == TokenizerSource::Model::kSentencePiece) {
    ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, SentencePieceTokenizer::Create(source));
    return tokenizer;
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, BpeTokenizer::Create(source));
  return tokenizer;
}

}  // namespace fastgen
