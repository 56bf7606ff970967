#include "engine/text/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/byte_word_encoder.h"
#include "engine/text/piece_word_encoder.h"
#include "engine/text/unigram_word_encoder.h"

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

bool HasBytes(const TokenizerSource& source) {
  return std::find(source.byte_fallback.begin(), source.byte_fallback.end(), 1) !=
         source.byte_fallback.end();
}

enum class TokenPlace { kFirst, kLater };

std::string Decoded(std::string text, const TokenizerSource& source,
                    TokenPlace place = TokenPlace::kLater) {
  for (size_t i = 0; i < source.decoder_replacements.size(); ++i) {
    const auto& [pattern, content] = source.decoder_replacements[i];
    const bool removes = place == TokenPlace::kFirst && source.first_token_removal == i;
    text = absl::StrReplaceAll(text, {{pattern, removes ? "" : content}});
  }
  return text;
}

// `bytes` without a space at the beginning.
std::string_view WithoutFirstSpace(std::string_view bytes) {
  return bytes.substr(!bytes.empty() && bytes[0] == ' ' ? 1 : 0);
}

absl::StatusOr<std::unique_ptr<WordEncoder>> MakeWordEncoder(const TokenizerSource& source,
                                                             const TokenTable& tokens) {
  switch (source.model) {
    case TokenizerSource::Model::kByteLevelBpe:
      return ByteWordEncoder::Create(source, tokens);
    case TokenizerSource::Model::kUnigram:
      return UnigramWordEncoder::Create(source, tokens);
    default:
      return PieceWordEncoder::Create(source, tokens);
  }
}

// [vocab] what each id stands for in a text.
std::vector<std::string> DecodedPieces(const TokenizerSource& source) {
  std::vector<std::string> bytes;
  bytes.reserve(source.pieces.size());
  for (size_t id = 0; id < source.pieces.size(); ++id) {
    const std::string& piece = source.pieces[id];
    if (source.pieces_are_bytes) {
      bytes.push_back(piece);
    } else if (source.model == TokenizerSource::Model::kByteLevelBpe) {
      // Pieces outside the alphabet occur as names of unused ids: they decode to their own text.
      bytes.push_back(BytesFromAlphabet(piece).value_or(piece));
    } else if (const auto byte = ByteOfPiece(piece); byte.has_value() &&
                                                     id < source.byte_fallback.size() &&
                                                     source.byte_fallback[id] != 0) {
      bytes.emplace_back(1, static_cast<char>(*byte));
    } else {
      bytes.push_back(Decoded(piece, source));
    }
  }
  if (!source.unknown_text.empty() && source.unknown_id.has_value() && *source.unknown_id >= 0 &&
      static_cast<size_t>(*source.unknown_id) < bytes.size()) {
    bytes[static_cast<size_t>(*source.unknown_id)] = source.unknown_text;
  }
  return bytes;
}

std::vector<AddedToken> DecodedTokens(const TokenizerSource& source) {
  std::vector<AddedToken> tokens = source.added_tokens;
  for (AddedToken& token : tokens) token.content = Decoded(std::move(token.content), source);
  return tokens;
}

}  // namespace

// What one call of Encode needs beside the tokenizer.
class BpeTokenizer::Encoding {
 public:
  explicit Encoding(const BpeTokenizer& tokenizer) : tokenizer_(tokenizer) {
    matchers_.reserve(tokenizer.splits_.size());
    for (const CompiledSplit& split : tokenizer.splits_) {
      matchers_.emplace_back(split.regex, &budget_);
    }
  }

  absl::StatusOr<std::vector<int32_t>> Run(std::string_view text, const EncodeOptions& options) {
    parse_special_ = options.parse_special;
    if (options.add_special_tokens) ids_ = tokenizer_.prefix_ids_;
    ids_.reserve(ids_.size() + text.size() / 4 + tokenizer_.suffix_ids_.size());
    ForEachSegment(tokenizer_.raw_tokens_, text, options.untrusted,
                   [&](std::string_view segment, size_t begin) {
                     EncodeRawSegment(segment, begin,
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

  void EncodeRawSegment(std::string_view text, size_t begin,
                        const std::vector<ByteRange>& untrusted) {
    if (tokenizer_.normalizer_.LeavesAlone(text)) {
      EncodeNormalized(text, begin, untrusted);
      return;
    }
    const NormalizedText normalized = tokenizer_.normalizer_.Apply(text, untrusted);
    EncodeNormalized(normalized.text, begin, normalized.untrusted);
  }

  // `begin`: 0 where the segment begins the whole text.
  void EncodeNormalized(std::string_view text, size_t begin,
                        absl::Span<const ByteRange> untrusted) {
    ForEachSegment(tokenizer_.normalized_tokens_, text, untrusted,
                   [&](std::string_view segment, size_t segment_begin) {
                     const bool is_first = begin == 0 && segment_begin == 0;
                     first_word_ = is_first ? segment.data() : nullptr;
                     if (tokenizer_.add_prefix_space_ && segment[0] != ' ') {
                       Split(0, std::string(" ").append(segment));
                     } else {
                       Split(0, segment);
                     }
                   });
  }

  std::string WithMarks(std::string_view text) const {
    const Metaspace& metaspace = *tokenizer_.metaspace_;
    const bool is_first = text.data() == first_word_;
    std::string marked =
        absl::StrReplaceAll(ToAbsl(text), {{" ", absl::string_view(metaspace.mark)}});
    const bool prepends = metaspace.prepend == Metaspace::Prepend::kAlways ||
                          (metaspace.prepend == Metaspace::Prepend::kFirst && is_first);
    if (prepends && marked.compare(0, metaspace.mark.size(), metaspace.mark) != 0) {
      marked.insert(0, metaspace.mark);
    }
    return marked;
  }

  // Applies the splits from `level` on: each word that one makes is a text for the next one.
  void Split(size_t level, std::string_view text) {
    if (tokenizer_.metaspace_.has_value() && level == tokenizer_.metaspace_->num_splits_before) {
      const std::string marked = WithMarks(text);
      SplitMarked(level, marked);
    } else {
      SplitMarked(level, text);
    }
  }

  void SplitMarked(size_t level, std::string_view text) {
    if (level == matchers_.size()) {
      tokenizer_.words_->Encode(text, &scratch_, &ids_);
      return;
    }
    const BpeTokenizer::CompiledSplit& split = tokenizer_.splits_[level];
    if (split.behavior != SplitStep::Behavior::kIsolated) {
      SplitAndJoin(level, text);
      return;
    }
    ForEachMatch(level, text, [&](std::string_view part, bool) { Split(level + 1, part); });
  }

  // Gives the matches of a split, and the gaps between them, in order.
  template <typename Take>
  void ForEachMatch(size_t level, std::string_view text, Take take) {
    SplitRegex::Matcher& matcher = matchers_[level];
    if (level == 0) budget_.AddText(text.size());
    size_t begin = 0;
    while (begin < text.size() && status_.ok()) {
      SplitRegex::Match match = {text.size(), text.size()};
      if (matcher.Find(text, begin, &match) == SplitRegex::Outcome::kError) {
        status_ = matcher.status();
        return;
      }
      if (match.begin > begin) take(text.substr(begin, match.begin - begin), false);
      if (match.end > match.begin) take(text.substr(match.begin, match.end - match.begin), true);
      begin = match.end;
    }
  }

  // A split whose matches do not all stand alone.
  void SplitAndJoin(size_t level, std::string_view text) {
    using Behavior = SplitStep::Behavior;
    const BpeTokenizer::CompiledSplit& split = tokenizer_.splits_[level];
    std::string_view held;  // a word that the next part may still join
    bool held_matches = false;
    const auto give = [&](std::string_view word) {
      if (!word.empty() && status_.ok()) Split(level + 1, word);
    };
    ForEachMatch(level, text, [&](std::string_view part, bool is_match) {
      const bool matches = is_match != split.invert;
      if (split.behavior == Behavior::kRemoved) {
        if (!matches) give(part);
        return;
      }
      const bool joins =
          !held.empty() &&
          (split.behavior == Behavior::kContiguous           ? matches == held_matches
           : split.behavior == Behavior::kMergedWithPrevious ? matches && !held_matches
                                                             : held_matches && !matches);
      if (joins) {
        held = std::string_view(held.data(), held.size() + part.size());
      } else {
        give(std::exchange(held, part));
      }
      held_matches = matches;
    });
    give(held);
  }

  const BpeTokenizer& tokenizer_;
  bool parse_special_ = true;
  const char* first_word_ = nullptr;  // where the text's first word begins, inside its segment
  SplitBudget budget_;
  std::vector<SplitRegex::Matcher> matchers_;  // one a split pattern
  WordEncoder::Scratch scratch_;
  std::vector<int32_t> ids_;
  absl::Status status_;
};

absl::StatusOr<std::unique_ptr<BpeTokenizer>> BpeTokenizer::Create(const TokenizerSource& source) {
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer);
  ASSIGN_OR_RETURN(tokenizer->tokens_,
                   TokenTable::Create(DecodedPieces(source), DecodedTokens(source)));
  RETURN_IF_ERROR(CheckNamedIds(source, tokenizer->tokens_));
  ASSIGN_OR_RETURN(tokenizer->normalizer_, TextNormalizer::Create(source.normalizer));
  RETURN_IF_ERROR(tokenizer->AddSplits(source));
  const bool is_byte_level = source.model == TokenizerSource::Model::kByteLevelBpe;
  ASSIGN_OR_RETURN(tokenizer->words_, MakeWordEncoder(source, tokenizer->tokens_));
  tokenizer->AddFirstTokens(source);

  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  for (AddedToken token : source.added_tokens) {
    if (token.normalized) {
      if (source.normalize_added_tokens) {
        token.content = tokenizer->normalizer_.Apply(token.content, {}).text;
      }
      normalized.push_back(std::move(token));
    } else {
      raw.push_back(std::move(token));
    }
  }
  tokenizer->raw_tokens_ = AddedTokenFinder(std::move(raw));
  tokenizer->normalized_tokens_ = AddedTokenFinder(std::move(normalized));
  tokenizer->metaspace_ = source.metaspace;
  tokenizer->add_prefix_space_ = source.add_prefix_space;
  tokenizer->has_byte_fallback_ = !is_byte_level && HasBytes(source);
  tokenizer->drops_first_space_ = source.drop_first_space;
  tokenizer->prefix_ids_ = source.prefix_ids;
  tokenizer->suffix_ids_ = source.suffix_ids;
  tokenizer->bos_id_ = source.bos_id;
  return tokenizer;
}

absl::Status BpeTokenizer::AddSplits(const TokenizerSource& source) {
  if (source.splits.size() > kMaxSplitPatterns) {
    return absl::InvalidArgumentError(
        absl::StrCat(source.splits.size(), " split patterns, more than ", kMaxSplitPatterns));
  }
  for (const SplitStep& step : source.splits) {
    ASSIGN_OR_RETURN(SplitRegex regex, SplitRegex::Compile(step.pattern));
    splits_.push_back({std::move(regex), step.behavior, step.invert});
  }
  return absl::OkStatus();
}

void BpeTokenizer::AddFirstTokens(const TokenizerSource& source) {
  if (!source.first_token_removal.has_value()) return;
  first_token_drops_space_ = true;
  const auto add = [&](int32_t id, const std::string& text) {
    std::string bytes = Decoded(text, source, TokenPlace::kFirst);
    if (bytes != WithoutFirstSpace(TokenBytes(id))) first_token_bytes_[id] = std::move(bytes);
  };
  for (size_t id = 0; id < source.pieces.size(); ++id) {
    const bool is_byte = id < source.byte_fallback.size() && source.byte_fallback[id] != 0;
    if (is_byte) {
      if (TokenBytes(static_cast<int32_t>(id)) == " ") {
        first_token_bytes_[static_cast<int32_t>(id)] = " ";
      }
    } else {
      add(static_cast<int32_t>(id), source.pieces[id]);
    }
  }
  for (const AddedToken& token : source.added_tokens) add(token.id, token.content);
}

std::string_view BpeTokenizer::FirstTokenBytes(int32_t id) const {
  if (!first_token_drops_space_) return TokenBytes(id);
  const auto bytes = first_token_bytes_.find(id);
  return bytes != first_token_bytes_.end() ? std::string_view(bytes->second)
                                           : WithoutFirstSpace(TokenBytes(id));
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
