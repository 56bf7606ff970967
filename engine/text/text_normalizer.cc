#include "engine/text/text_normalizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/unicode.h"

namespace fastgen {
namespace {

constexpr size_t kMaxSteps = 16;
constexpr size_t kMaxStepBytes = 1024;
// How many times longer the replacements may make a text, all together. Published ones: 3.
constexpr size_t kMaxGrowth = 64;
// What the normalizers may put in front of a text, all together. Published ones: 3.
constexpr size_t kMaxPrependBytes = 64;
constexpr size_t kMaxCharacterMapBytes = 4 << 20;
// The tables were made for a program that looks up clusters shorter than this as a whole.
constexpr size_t kMaxClusterBytes = 5;

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

// Builds a text from parts of another, in order, and carries the untrusted ranges over.
class Rewriter {
 public:
  explicit Rewriter(absl::Span<const ByteRange> untrusted) : untrusted_(untrusted) {}

  // `part` stands at `begin` of the old text, and stays as it is.
  void Keep(std::string_view part, size_t begin) {
    const size_t end = begin + part.size();
    SkipTo(begin);
    for (size_t i = next_; i < untrusted_.size() && untrusted_[i].begin < end; ++i) {
      Add(out_.text.size() + std::max(untrusted_[i].begin, begin) - begin,
          out_.text.size() + std::min(untrusted_[i].end, end) - begin);
    }
    out_.text += part;
  }

  // [begin, end) of the old text becomes `content`.
  void Replace(size_t begin, size_t end, std::string_view content) {
    SkipTo(begin);
    if (next_ < untrusted_.size() && untrusted_[next_].begin < end) {
      Add(out_.text.size(), out_.text.size() + content.size());
    }
    out_.text += content;
  }

  NormalizedText Finish() { return std::move(out_); }
  void Reserve(size_t num_bytes) { out_.text.reserve(num_bytes); }

 private:
  void SkipTo(size_t begin) {
    while (next_ < untrusted_.size() && untrusted_[next_].end <= begin) ++next_;
  }
  void Add(size_t begin, size_t end) {
    if (begin == end) return;
    if (!out_.untrusted.empty() && out_.untrusted.back().end == begin) {
      out_.untrusted.back().end = end;
    } else {
      out_.untrusted.push_back({begin, end});
    }
  }

  absl::Span<const ByteRange> untrusted_;
  size_t next_ = 0;  // the first range that may reach beyond what has been read
  NormalizedText out_;
};

// NFC, part by part: a text can be cut in front of every stable character.
NormalizedText ApplyNfc(std::string_view text, absl::Span<const ByteRange> untrusted) {
  Rewriter rewriter(untrusted);
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
    const std::string_view part = text.substr(begin, end - begin);
    const std::string normalized = changes ? NormalizeNfc(part) : std::string(part);
    if (normalized != part) {
      rewriter.Replace(begin, end, normalized);
    } else {
      rewriter.Keep(part, begin);
    }
    begin = end;
  }
  return rewriter.Finish();
}

NormalizedText ApplyPrepend(std::string_view text, absl::Span<const ByteRange> untrusted,
                            const NormalizerStep& step) {
  Rewriter rewriter(untrusted);
  if (!text.empty()) rewriter.Replace(0, 0, step.content);
  rewriter.Keep(text, 0);
  return rewriter.Finish();
}

NormalizedText ApplyReplace(std::string_view text, absl::Span<const ByteRange> untrusted,
                            const NormalizerStep& step) {
  Rewriter rewriter(untrusted);
  rewriter.Reserve(text.size() + text.size() / 2);
  size_t begin = 0;
  while (true) {
    const size_t found = text.find(step.pattern, begin);
    if (found == std::string_view::npos) break;
    if (found > begin) rewriter.Keep(text.substr(begin, found - begin), begin);
    rewriter.Replace(found, found + step.pattern.size(), step.content);
    begin = found + step.pattern.size();
  }
  rewriter.Keep(text.substr(begin), begin);
  return rewriter.Finish();
}

// Two or more of the character step.pattern in a row.
NormalizedText ApplyReplaceRun(std::string_view text, absl::Span<const ByteRange> untrusted,
                               const NormalizerStep& step) {
  Rewriter rewriter(untrusted);
  const size_t num_bytes = step.pattern.size();
  size_t kept = 0;  // what comes before has been given
  for (size_t begin = text.find(step.pattern); begin != std::string_view::npos;) {
    size_t end = begin + num_bytes;
    while (text.substr(end, num_bytes) == step.pattern) end += num_bytes;
    if (end - begin > num_bytes) {
      rewriter.Keep(text.substr(kept, begin - kept), kept);
      rewriter.Replace(begin, end, step.content);
      kept = end;
    }
    begin = text.find(step.pattern, end);
  }
  rewriter.Keep(text.substr(kept), kept);
  return rewriter.Finish();
}

NormalizedText ApplyStrip(std::string_view text, absl::Span<const ByteRange> untrusted,
                          const NormalizerStep& step) {
  size_t begin = 0;
  while (step.strip_left && begin < text.size()) {
    const Utf8Char c = DecodeUtf8(text, begin);
    if (!IsWhitespace(c.code_point)) break;
    begin += c.num_bytes;
  }
  size_t end = text.size();
  while (step.strip_right && end > begin) {
    size_t last = end - 1;
    while ((static_cast<uint8_t>(text[last]) & 0xC0) == 0x80) --last;
    if (!IsWhitespace(DecodeUtf8(text, last).code_point)) break;
    end = last;
  }
  Rewriter rewriter(untrusted);
  rewriter.Keep(text.substr(begin, end - begin), begin);
  return rewriter.Finish();
}

// A short grapheme cluster with an entry is replaced as a whole, even where the entry is that of
// its first character alone; of other clusters, each character that has one.
NormalizedText ApplyCharacterMap(std::string_view text, absl::Span<const ByteRange> untrusted,
                                 const CharacterMap& map) {
  Rewriter rewriter(untrusted);
  size_t kept = 0;  // what comes before has been given
  const auto replaces = [&](size_t begin, size_t num_bytes) {
    const auto content = map.Find(text.substr(begin, num_bytes));
    if (!content.has_value()) return false;
    rewriter.Keep(text.substr(kept, begin - kept), kept);
    kept = begin + num_bytes;
    rewriter.Replace(begin, kept, *content);
    return true;
  };
  for (size_t begin = 0; begin < text.size();) {
    const size_t num_bytes = GraphemeBytes(text, begin);
    const size_t end = begin + num_bytes;
    if (num_bytes > kMaxClusterBytes || !replaces(begin, num_bytes)) {
      for (size_t pos = begin; pos < end;) {
        const size_t character_bytes = DecodeUtf8(text, pos).num_bytes;
        replaces(pos, character_bytes);
        pos += character_bytes;
      }
    }
    begin = end;
  }
  rewriter.Keep(text.substr(kept), kept);
  return rewriter.Finish();
}

absl::Status CheckTexts(const NormalizerStep& step) {
  using Kind = NormalizerStep::Kind;
  if (step.content.size() > kMaxStepBytes || step.pattern.size() > kMaxStepBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a normalizer's text has more than ", kMaxStepBytes, " bytes"));
  }
  if (!IsValidUtf8(step.content) || !IsValidUtf8(step.pattern)) {
    return absl::InvalidArgumentError("a normalizer's text is not UTF-8");
  }
  const bool replaces = step.kind == Kind::kReplace || step.kind == Kind::kReplaceRun;
  if (replaces && step.pattern.empty()) {
    return absl::InvalidArgumentError("a normalizer replaces the empty text");
  }
  return absl::OkStatus();
}

// How many times longer a step may make a text.
size_t Growth(const NormalizerStep& step, const std::optional<CharacterMap>& map) {
  const auto rounded_up = [&](size_t num_bytes) {
    return std::max<size_t>(1, (step.content.size() + num_bytes - 1) / num_bytes);
  };
  switch (step.kind) {
    case NormalizerStep::Kind::kReplace:
      return rounded_up(step.pattern.size());
    case NormalizerStep::Kind::kReplaceRun:
      return rounded_up(2 * step.pattern.size());
    case NormalizerStep::Kind::kCharacterMap:
      return map->MaxGrowth();
    default:
      return 1;
  }
}

}  // namespace

absl::StatusOr<TextNormalizer> TextNormalizer::Create(std::vector<NormalizerStep> steps) {
  if (steps.size() > kMaxSteps) {
    return absl::InvalidArgumentError(
        absl::StrCat(steps.size(), " normalizers, more than ", kMaxSteps));
  }
  TextNormalizer normalizer;
  size_t growth = 1;
  size_t num_prepend_bytes = 0;
  for (const NormalizerStep& step : steps) {
    if (step.kind == NormalizerStep::Kind::kCharacterMap) {
      RETURN_IF_ERROR(normalizer.AddCharacterMap(step.content));
    } else {
      RETURN_IF_ERROR(CheckTexts(step));
    }
    if (step.kind == NormalizerStep::Kind::kPrepend) num_prepend_bytes += step.content.size();
    if (num_prepend_bytes > kMaxPrependBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("the normalizers put more than ", kMaxPrependBytes, " bytes before a text"));
    }
    growth *= Growth(step, normalizer.map_);
    if (growth > kMaxGrowth) {
      return absl::InvalidArgumentError(
          absl::StrCat("the normalizers may make a text more than ", kMaxGrowth, " times longer"));
    }
  }
  normalizer.steps_ = std::move(steps);
  return normalizer;
}

absl::Status TextNormalizer::AddCharacterMap(std::string_view bytes) {
  if (map_.has_value()) {
    return absl::InvalidArgumentError("a second table of characters is not supported");
  }
  if (bytes.size() > kMaxCharacterMapBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the table of characters has ", bytes.size(),
                                                   " bytes, more than ", kMaxCharacterMapBytes));
  }
  ASSIGN_OR_RETURN(map_, CharacterMap::Parse(bytes, "the table of characters"));
  return absl::OkStatus();
}

bool TextNormalizer::LeavesAlone(std::string_view text) const {
  for (const NormalizerStep& step : steps_) {
    if (step.kind != NormalizerStep::Kind::kNfc) return false;
  }
  return steps_.empty() || IsAllNfcStable(text);
}

NormalizedText TextNormalizer::Apply(std::string_view text,
                                     absl::Span<const ByteRange> untrusted) const {
  NormalizedText out = {std::string(text), {untrusted.begin(), untrusted.end()}};
  for (const NormalizerStep& step : steps_) {
    switch (step.kind) {
      case NormalizerStep::Kind::kNfc:
        if (!IsAllNfcStable(out.text)) out = ApplyNfc(out.text, out.untrusted);
        break;
      case NormalizerStep::Kind::kPrepend:
        out = ApplyPrepend(out.text, out.untrusted, step);
        break;
      case NormalizerStep::Kind::kReplace:
        out = ApplyReplace(out.text, out.untrusted, step);
        break;
      case NormalizerStep::Kind::kReplaceRun:
        out = ApplyReplaceRun(out.text, out.untrusted, step);
        break;
      case NormalizerStep::Kind::kStrip:
        out = ApplyStrip(out.text, out.untrusted, step);
        break;
      case NormalizerStep::Kind::kCharacterMap:
        out = ApplyCharacterMap(out.text, out.untrusted, *map_);
        break;
    }
  }
  return out;
}

}  // namespace fastgen
