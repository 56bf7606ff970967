#include "engine/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "base/unicode.h"

namespace fastgen {
namespace {

bool Touches(size_t begin, size_t end, absl::Span<const ByteRange> ranges) {
  const auto range = std::partition_point(ranges.begin(), ranges.end(),
                                          [&](const ByteRange& r) { return r.end <= begin; });
  return range != ranges.end() && range->begin < end;
}

// The character that ends at `pos`. REQUIRES: pos > 0.
Utf8Char DecodeBefore(std::string_view text, size_t pos) {
  size_t begin = pos - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return DecodeUtf8(text, begin);
}

bool StandsAlone(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && IsWordCharacter(DecodeBefore(text, begin).code_point)) return false;
  return end == text.size() || !IsWordCharacter(DecodeUtf8(text, end).code_point);
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  token_at_.push_back(-1);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    uint32_t node = 0;
    for (const char c : tokens_[i].content) {
      const uint64_t edge = uint64_t{node} << 8 | static_cast<uint8_t>(c);
      const auto [child, inserted] =
          edges_.try_emplace(edge, static_cast<uint32_t>(token_at_.size()));
      if (inserted) token_at_.push_back(-1);
      node = child->second;
    }
    if (node == 0) continue;  // an empty token can never be written out
    token_at_[node] = static_cast<int32_t>(i);
    begins_token_[static_cast<uint8_t>(tokens_[i].content[0])] = true;
  }
}

int32_t AddedTokenFinder::LongestAt(std::string_view text, size_t begin, bool parse_special,
                                    absl::Span<const ByteRange> untrusted) const {
  int32_t longest = -1;
  uint32_t node = 0;
  for (size_t end = begin; end < text.size();) {
    const auto edge = edges_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[end]));
    if (edge == edges_.end()) break;
    node = edge->second;
    ++end;
    const int32_t index = token_at_[node];
    if (index < 0) continue;
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    if (token.special && !parse_special) continue;
    if (token.single_word && !StandsAlone(text, begin, end)) continue;
    if (Touches(begin, end, untrusted)) break;  // and so would every longer one
    longest = index;
  }
  return longest;
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::Find(
    std::string_view text, size_t from, bool parse_special,
    absl::Span<const ByteRange> untrusted) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_token_[static_cast<uint8_t>(text[begin])]) continue;
    const int32_t index = LongestAt(text, begin, parse_special, untrusted);
    if (index < 0) continue;
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    Match match = {begin, begin + token.content.size(), token.id};
    if (token.lstrip) {
      while (match.begin > from) {
        const Utf8Char c = DecodeBefore(text, match.begin);
        if (!IsWhitespace(c.code_point)) break;
        match.begin -= c.num_bytes;
      }
    }
    if (token.rstrip) {
      while (match.end < text.size()) {
        const Utf8Char c = DecodeUtf8(text, match.end);
        if (!IsWhitespace(c.code_point)) break;
        match.end += c.num_bytes;
      }
    }
    return match;
  }
  return std::nullopt;
}

}  // namespace fastgen
