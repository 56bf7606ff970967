#include "engine/text/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "base/unicode.h"
#include "engine/text/byte_alphabet.h"

namespace fastgen {
namespace {

constexpr size_t kMaxSplitPatterns = 16;

// Ranges of `ranges` inside [begin, end), counted from begin.
std::vector<ByteRange> Clip(absl::Span<const ByteRange> ranges, size_t begin, size_t end) {
  std::vector<ByteRange> clipped;
  auto range = std::partition_point(ranges.begin(), ranges.end(),
                                    [&](const ByteRange& r) { return r.end <= begin; });
  for (; range != ranges.end() && range->begin < end; ++range) {
    clipped.push_back({std::max(range->begin, begin) - begin, std::min(range->end, end) - begin});
  }
  return clipped;
}

bool IsAllNfcStable(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    if (static_cast<uint8_t>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const Utf8Char c = DecodeUtf8(text, pos);
    if (!IsNfcStable(c.code_point)) return false;
    pos += c.num_bytes;
  }
  return true;
}

struct NormalizedText {
  std::string text;
  std::vector<ByteRange> untrusted;
};

// NFC, part by part, so that it is known where untrusted bytes went: a part that changes is
// untrusted as a whole when any of it was.
NormalizedText NormalizeParts(std::string_view text, absl::Span<const ByteRange> untrusted) {
  NormalizedText out;
  size_t next_range = 0;
  for (size_t begin = 0; begin < text.size();) {
    const Utf8Char first = DecodeUtf8(text, begin);
    size_t end = begin + first.num_bytes;
    bool changes = !IsNfcStable(first.code_point);
    while (end < text.size()) {
      const Utf8Char c = DecodeUtf8(text, end);
      if (IsNfcStable(c.code_point)) break;
      changes = true;
      end += c.num_bytes;
    }
    const size_t out_begin = out.text.size();
    if (changes) {
      const std::string part = NormalizeNfc(text.substr(begin, end - begin));
      changes = part != text.substr(begin, end - begin);
      out.text += part;
    } else {
      out.text += text.substr(begin, end - begin);
    }
    while (next_range < untrusted.size() && untrusted[next_range].end <= begin) ++next_range;
    if (changes) {
      if (next_range < untrusted.size() && untrusted[next_range].begin < end) {
        out.untrusted.push_back({out_begin, out.text.size()});
      }
    } else {
      for (size_t i = next_range; i < untrusted.size() && untrusted[i].begin < end; ++i) {
        out.untrusted.push_back({out_begin + std::max(untrusted[i].begin, begin) - begin,
                                 out_begin + std::min(untrusted[i].end, end) - begin});
      }
    }
    begin = end;
  }
  return out;
}

}  // namespace

// What one call of Encode needs beside the tokenizer.
class BpeTokenizer::Encoding {
 public:
  explicit Encoding(const BpeTokenizer& tokenizer) : tokenizer_(tokenizer) {
    matchers_.reserve(tokenizer.splits_.size());
    for (const SplitRegex& split : tokenizer.splits_) matchers_.emplace_back(split);
  }

  absl::StatusOr<std::vector<int32_t>> Run(std::string_view text, const EncodeOptions& options) {
    parse_special_ = options.parse_special;
    if (options.add_special_tokens) ids_ = tokenizer_.prefix_ids_;
    ids_.reserve(ids_.size() + text.size() / 4 + tokenizer_.suffix_ids_.size());
    ForEachSegment(tokenizer_.raw_tokens_, text, options.untrusted,
                   [&](std::string_view segment, size_t begin) {
                     EncodeRawSegment(segment,
                                      Clip(options.untrusted, begin, begin + segment.size()));
                   });
    if (!status_.ok()) return status_;
    if (options.add_special_tokens) {
      ids_.insert(ids_.end(), tokenizer_.suffix_ids_.begin(), tokenizer_.suffix_ids_.end());
    }
    return std::move(ids_);
  }

 private:
  // Gives the parts of `text` between added tokens to `encode`, and appends the tokens' ids between
  // them.
  template <typename EncodePart>
  void ForEachSegment(const AddedTokenFinder& finder, std::string_view text,
                      absl::Span<const ByteRange> untrusted, EncodePart encode) {
    size_t begin = 0;
    while (begin < text.size() && status_.ok()) {
      std::optional<AddedTokenFinder::Match> match;
      if (!finder.empty()) match = finder.Find(text, begin, parse_special_, untrusted);
      const size_t end = match.has_value() ? match->begin : text.size();
      if (end > begin) encode(text.substr(begin, end - begin), begin);
      if (!match.has_value()) return;
      ids_.push_back(match->id);
      begin = match->end;
    }
  }

  void EncodeRawSegment(std::string_view text, const std::vector<ByteRange>& untrusted) {
    if (!tokenizer_.normalize_nfc_ || IsAllNfcStable(text)) {
      EncodeNormalized(text, untrusted);
      return;
    }
    const NormalizedText normalized = NormalizeParts(text, untrusted);
    EncodeNormalized(normalized.text, normalized.untrusted);
  }

  void EncodeNormalized(std::string_view text, absl::Span<const ByteRange> untrusted) {
    ForEachSegment(tokenizer_.normalized_tokens_, text, untrusted,
                   [&](std::string_view segment, size_t) {
                     if (tokenizer_.add_prefix_space_ && segment[0] != ' ') {
                       Split(0, std::string(" ").append(segment));
                     } else {
                       Split(0, segment);
                     }
                   });
  }

  // Applies the split patterns from `level` on: each match, and each gap between matches, is a text
  // for the next one.
  void Split(size_t level, std::string_view text) {
    if (level == matchers_.size()) {
      EncodeWord(text);
      return;
    }
    SplitRegex::Matcher& matcher = matchers_[level];
    size_t begin = 0;
    while (begin < text.size() && status_.ok()) {
      SplitRegex::Match match = {text.size(), text.size()};
      if (matcher.Find(text, begin, &match) == SplitRegex::Outcome::kError) {
        status_ = matcher.status();
        return;
      }
      if (match.begin > begin) Split(level + 1, text.substr(begin, match.begin - begin));
      if (match.end > match.begin)
        Split(level + 1, text.substr(match.begin, match.end - match.begin));
      begin = match.end;
    }
  }

  void EncodeWord(std::string_view word) {
    if (word.size() <= tokenizer_.max_whole_word_bytes_) {
      const auto whole = tokenizer_.whole_words_.find(ToAbsl(word));
      if (whole != tokenizer_.whole_words_.end()) {
        ids_.push_back(whole->second);
        return;
      }
    }
    word_.clear();
    for (const char c : word) {
      const int32_t id = tokenizer_.byte_ids_[static_cast<uint8_t>(c)];
      // A byte that the vocabulary lacks is left out where it has no unknown token either.
      if (id >= 0) {
        word_.push_back(id);
      } else if (tokenizer_.unknown_id_.has_value()) {
        word_.push_back(*tokenizer_.unknown_id_);
      }
    }
    tokenizer_.merges_.Merge(&word_, &scratch_);
    ids_.insert(ids_.end(), word_.begin(), word_.end());
  }

  const BpeTokenizer& tokenizer_;
  bool parse_special_ = true;
  std::vector<SplitRegex::Matcher> matchers_;  // one a split pattern
  BpeMerges::Scratch scratch_;
  std::vector<int32_t> word_;
  std::vector<int32_t> ids_;
  absl::Status status_;
};

absl::StatusOr<std::unique_ptr<BpeTokenizer>> BpeTokenizer::Create(const TokenizerSource& source) {
  std::vector<std::string> bytes;
  bytes.reserve(source.pieces.size());
  for (const std::string& piece : source.pieces) {
    // Pieces outside the alphabet occur as names of unused ids: they decode to their own text.
    bytes.push_back(BytesFromAlphabet(piece).value_or(piece));
  }
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer);
  ASSIGN_OR_RETURN(tokenizer->tokens_, TokenTable::Create(std::move(bytes), source.added_tokens));
  RETURN_IF_ERROR(CheckNamedIds(source, tokenizer->tokens_));
  RETURN_IF_ERROR(tokenizer->AddMerges(source));
  RETURN_IF_ERROR(tokenizer->AddSplits(source));
  tokenizer->AddWholeWords(source);

  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  for (AddedToken token : source.added_tokens) {
    if (token.normalized) {
      if (source.normalize_nfc) token.content = NormalizeNfc(token.content);
      normalized.push_back(std::move(token));
    } else {
      raw.push_back(std::move(token));
    }
  }
  tokenizer->raw_tokens_ = AddedTokenFinder(std::move(raw));
  tokenizer->normalized_tokens_ = AddedTokenFinder(std::move(normalized));
  tokenizer->normalize_nfc_ = source.normalize_nfc;
  tokenizer->add_prefix_space_ = source.add_prefix_space;
  tokenizer->prefix_ids_ = source.prefix_ids;
  tokenizer->suffix_ids_ = source.suffix_ids;
  tokenizer->bos_id_ = source.bos_id;
  tokenizer->unknown_id_ = source.unknown_id;
  return tokenizer;
}

absl::Status BpeTokenizer::AddMerges(const TokenizerSource& source) {
  absl::flat_hash_map<absl::string_view, int32_t> ids;
  ids.reserve(source.pieces.size());
  for (size_t i = 0; i < source.pieces.size(); ++i) {
    if (!source.pieces[i].empty()) ids.try_emplace(source.pieces[i], static_cast<int32_t>(i));
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    const auto id = ids.find(AlphabetCharacter(static_cast<uint8_t>(byte)));
    byte_ids_[byte] = id == ids.end() ? -1 : id->second;
  }
  merges_.Reserve(source.merges.size());
  std::string merged;
  for (size_t rank = 0; rank < source.merges.size(); ++rank) {
    const auto& [left, right] = source.merges[rank];
    merged.assign(left).append(right);
    int32_t parts[3];
    const std::string* names[3] = {&left, &right, &merged};
    for (int i = 0; i < 3; ++i) {
      const auto id = ids.find(*names[i]);
      if (id == ids.end()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "merge ", rank, " ('", absl::CHexEscape(left.substr(0, 64)), "' '",
            absl::CHexEscape(right.substr(0, 64)), "') needs the piece '",
            absl::CHexEscape(names[i]->substr(0, 128)), "', which the vocabulary lacks"));
      }
      parts[i] = id->second;
    }
    // A special token that merges could spell would be open to whoever types its text.
    if (tokens_.IsSpecial(parts[2])) continue;
    merges_.Add(parts[0], parts[1], static_cast<uint32_t>(rank), parts[2]);
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::AddSplits(const TokenizerSource& source) {
  std::vector<std::string> patterns;
  if (source.split_digits) patterns.push_back(R"(\p{N})");
  patterns.insert(patterns.end(), source.split_patterns.begin(), source.split_patterns.end());
  if (patterns.size() > kMaxSplitPatterns) {
    return absl::InvalidArgumentError(
        absl::StrCat(patterns.size(), " split patterns, more than ", kMaxSplitPatterns));
  }
  for (const std::string& pattern : patterns) {
    ASSIGN_OR_RETURN(SplitRegex split, SplitRegex::Compile(pattern));
    splits_.push_back(std::move(split));
  }
  return absl::OkStatus();
}

void BpeTokenizer::AddWholeWords(const TokenizerSource& source) {
  std::vector<int32_t> word;
  BpeMerges::Scratch scratch;
  whole_words_.reserve(source.pieces.size());
  for (size_t i = 0; i < source.pieces.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    if (source.pieces[i].empty() || tokens_.IsSpecial(id)) continue;
    const std::string_view bytes = tokens_.Bytes(id);
    if (BytesFromAlphabet(source.pieces[i]) != bytes)
      continue;  // outside the alphabet, or an added token
    if (!source.ignore_merges) {
      word.clear();
      for (const char c : bytes) word.push_back(byte_ids_[static_cast<uint8_t>(c)]);
      if (std::find(word.begin(), word.end(), -1) != word.end()) continue;
      merges_.Merge(&word, &scratch);
      if (word.size() != 1 || word[0] != id) continue;
    }
    whole_words_.try_emplace(ToAbsl(bytes), id);
    max_whole_word_bytes_ = std::max(max_whole_word_bytes_, bytes.size());
  }
}

absl::StatusOr<std::vector<int32_t>> BpeTokenizer::Encode(std::string_view text,
                                                          const EncodeOptions& options) const {
  RETURN_IF_ERROR(CheckText(text));
  size_t end = 0;
  for (const ByteRange& range : options.untrusted) {
    CHECK(range.begin >= end && range.begin <= range.end && range.end <= text.size())
        << "untrusted [" << range.begin << ", " << range.end << ") of " << text.size() << " bytes";
    end = range.end;
  }
  return Encoding(*this).Run(text, options);
}

}  // namespace fastgen
