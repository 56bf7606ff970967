// AddedTokenFinder: finds the tokens of a fixed list that are written out in a text, before
// anything else is done to it.
//
// A trie walked from each byte that can begin a token; the longest token wins, the leftmost first.
// The cost is linear in the text (times the longest token, which the file's author chose, at
// worst). A token never matches where it touches untrusted bytes, and a special one only when
// asked: a typed "<|im_end|>" stays text. Spaces that a token with lstrip or rstrip takes in do not
// count as touched.
// Thread rule: immutable after construction; any thread.
// Tested by tests/engine/text/added_tokens_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }

  struct Match {
    size_t begin;  // of the bytes that the token stands for, with the spaces that it takes in
    size_t end;
    int32_t id;
  };

  // The first match at or after `from`. `untrusted`: sorted, disjoint ranges of `text`.
  std::optional<Match> Find(std::string_view text, size_t from, bool parse_special,
                            absl::Span<const ByteRange> untrusted) const;

 private:
  // The longest token at `begin` that may match there; -1: none.
  int32_t LongestAt(std::string_view text, size_t begin, bool parse_special,
                    absl::Span<const ByteRange> untrusted) const;

  std::vector<AddedToken> tokens_;
  absl::flat_hash_map<uint64_t, uint32_t> edges_;  // node << 8 | byte -> node
  std::vector<int32_t> token_at_;                  // [node] index into tokens_, or -1
  std::array<bool, 256> begins_token_ = {};
};

}  // namespace fastgen
