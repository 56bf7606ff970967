// TextNormalizer: what is done to a text before it is cut into words: NFC, a mark put in front,
// replacements of one string by another, sentencepiece's table of characters, white space stripped.
//
// It keeps track of where untrusted bytes go: a part of the text that changes is untrusted as a
// whole when any of it was, and what is put in front is trusted. So nothing that a request wrote
// can be washed clean into a token that only the template may write.
// Thread rule: immutable after construction; any thread.
// Tested by tests/engine/text/text_normalizer_test.cc and bpe_tokenizer_test.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/text/character_map.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

struct NormalizedText {
  std::string text;
  std::vector<ByteRange> untrusted;  // sorted, disjoint
};

class TextNormalizer {
 public:
  TextNormalizer() = default;
  // INVALID_ARGUMENT for steps that are too many, not text, or make a text many times longer.
  static absl::StatusOr<TextNormalizer> Create(std::vector<NormalizerStep> steps);

  // True where Apply would return `text` as it is; may be false for such a text, too.
  bool LeavesAlone(std::string_view text) const;

  // REQUIRES: `text` is UTF-8; `untrusted` is sorted, disjoint and inside it.
  NormalizedText Apply(std::string_view text, absl::Span<const ByteRange> untrusted) const;

 private:
  absl::Status AddCharacterMap(std::string_view bytes);

  std::vector<NormalizerStep> steps_;
  std::optional<CharacterMap> map_;  // of the one step that has one
};

}  // namespace fastgen
