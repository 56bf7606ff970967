// Feeds arbitrary bytes to the reader of tokenizer.model, and what it lets pass to our BPE and to
// the sentencepiece library, which must both encode and decode.
#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/text/sentencepiece_source.h"
#include "engine/text/tokenizer.h"

namespace {

void Try(fastgen::TokenizerSource source) {
  const auto tokenizer = fastgen::MakeTokenizer(std::move(source));
  if (!tokenizer.ok()) return;
  const auto ids =
      (*tokenizer)->Encode("It's 12 a  b\n<s> e\u0301\u6f22\u2581 aaaaaaaaaaaaaaaaaaa", {});
  if (ids.ok()) fastgen::DecodeAll(**tokenizer, *ids, /*skip_special_tokens=*/false);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string model(reinterpret_cast<const char*>(data), size);
  auto source = fastgen::SourceFromSentencePieceModel(model);
  if (!source.ok()) return 0;
  Try(*source);
  source->model = fastgen::TokenizerSource::Model::kSentencePiece;
  source->sentencepiece_model = model;
  source->added_tokens.clear();
  Try(*std::move(source));
  return 0;
}
