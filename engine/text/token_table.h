// TokenTable: for each id its bytes and whether it is special, in one block of memory.
//
// Thread rule: immutable after construction; any thread.
// Tested by tests/engine/text/bpe_tokenizer_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

// The most ids that any tokenizer may have: several times the largest published vocabulary.
inline constexpr int32_t kMaxVocabularySize = 1 << 21;
// The longest text of one added token.
inline constexpr size_t kMaxAddedTokenBytes = 256;
// The longest text that is tokenised in one call.
inline constexpr size_t kMaxTextBytes = size_t{1} << 30;

class TokenTable {
 public:
  TokenTable() = default;

  // `bytes`[id]: what each id stands for; added tokens replace theirs and may lie beyond its end.
  // INVALID_ARGUMENT for added tokens that are out of range, not text, or at odds with each other.
  static absl::StatusOr<TokenTable> Create(std::vector<std::string> bytes,
                                           absl::Span<const AddedToken> added_tokens);

  int32_t size() const { return static_cast<int32_t>(special_.size()); }
  bool Contains(int32_t id) const { return id >= 0 && id < size(); }

  std::string_view Bytes(int32_t id) const {
    if (!Contains(id)) return {};
    const size_t i = static_cast<size_t>(id);
    return std::string_view(bytes_).substr(begin_[i], begin_[i + 1] - begin_[i]);
  }
  bool IsSpecial(int32_t id) const {
    return Contains(id) && special_[static_cast<size_t>(id)] != 0;
  }

 private:
  std::string bytes_;
  std::vector<size_t> begin_;  // [size + 1] into bytes_
  std::vector<uint8_t> special_;
};

// INVALID_ARGUMENT naming `text`'s fault: not UTF-8, or longer than kMaxTextBytes.
absl::Status CheckText(std::string_view text);

// INVALID_ARGUMENT where an id that `source` names besides its tokens is not in `tokens`.
absl::Status CheckNamedIds(const TokenizerSource& source, const TokenTable& tokens);

}  // namespace fastgen
