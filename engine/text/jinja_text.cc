#include "engine/text/jinja_text.h"

#include <algorithm>
#include <cstring>

#include "base/unicode.h"

namespace fastgen::jinja {

Text MakeText(std::string_view bytes, bool untrusted) {
  Text text{bytes, {}};
  if (untrusted && !bytes.empty()) text.untrusted.push_back({0, bytes.size()});
  return text;
}

namespace {

// The first range that ends after `begin`.
std::vector<ByteRange>::const_iterator FirstRangeAfter(const std::vector<ByteRange>& ranges,
                                                       size_t begin) {
  return std::partition_point(ranges.begin(), ranges.end(),
                              [begin](const ByteRange& range) { return range.end <= begin; });
}

}  // namespace

Text Slice(const Text& text, size_t begin, size_t end) {
  Text slice{text.bytes.substr(begin, end - begin), {}};
  for (auto range = FirstRangeAfter(text.untrusted, begin);
       range != text.untrusted.end() && range->begin < end; ++range) {
    slice.untrusted.push_back(
        {std::max(range->begin, begin) - begin, std::min(range->end, end) - begin});
  }
  return slice;
}

void TextBuilder::Mark(size_t begin, size_t end) {
  if (begin >= end) return;
  if (!untrusted_.empty() && untrusted_.back().end == begin) {
    untrusted_.back().end = end;
  } else {
    untrusted_.push_back({begin, end});
  }
}

void TextBuilder::Append(std::string_view bytes, bool untrusted) {
  if (overflowed_ || bytes.size() > max_bytes_ - bytes_.size()) {
    overflowed_ = true;
    return;
  }
  size_t begin = bytes_.size();
  bytes_.append(bytes);
  if (untrusted) Mark(begin, bytes_.size());
}

void TextBuilder::AppendSlice(const Text& text, size_t begin, size_t end) {
  size_t base = bytes_.size();
  Append(text.bytes.substr(begin, end - begin), /*untrusted=*/false);
  if (overflowed_) return;
  for (auto range = FirstRangeAfter(text.untrusted, begin);
       range != text.untrusted.end() && range->begin < end; ++range) {
    Mark(base + std::max(range->begin, begin) - begin, base + std::min(range->end, end) - begin);
  }
}

std::pair<std::string, std::vector<ByteRange>> TextBuilder::Take() {
  overflowed_ = false;
  return {std::exchange(bytes_, {}), std::exchange(untrusted_, {})};
}

Character DecodeAt(std::string_view bytes, size_t at) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  uint8_t lead = byte(at);
  if (lead < 0x80) return {lead, 1};
  const Character invalid{0xFFFD, 1, false};
  size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || at + size > bytes.size()) return invalid;
  char32_t code = lead & (0xFF >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return invalid;
    code = code << 6 | (byte(at + i) & 0x3F);
  }
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[size] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
    return invalid;
  }
  return {code, size};
}

std::string EncodeUtf8(char32_t code) {
  std::string out;
  AppendUtf8(code, &out);
  return out;
}

size_t FindPart(std::string_view bytes, std::string_view part, size_t at) {
  if (at > bytes.size()) return std::string_view::npos;
  if (part.empty()) return at;
  // In windows that grow: a sanitizer looks at all that memmem may read, which would make the many
  // searches of a split quadratic.
  constexpr size_t kFirstWindow = 64;
  for (size_t window = kFirstWindow; bytes.size() - at >= part.size(); window *= 2) {
    const size_t size = std::min(bytes.size() - at, window + part.size() - 1);
    const void* found = memmem(bytes.data() + at, size, part.data(), part.size());
    if (found != nullptr) return static_cast<const char*>(found) - bytes.data();
    at += size - (part.size() - 1);
  }
  return std::string_view::npos;
}

size_t CountCharacters(std::string_view bytes) {
  size_t count = 0;
  for (size_t at = 0; at < bytes.size(); ++count) at += DecodeAt(bytes, at).size;
  return count;
}

size_t OffsetOfCharacter(std::string_view bytes, size_t index) {
  size_t at = 0;
  for (; index > 0 && at < bytes.size(); --index) at += DecodeAt(bytes, at).size;
  return at;
}

bool IsSpace(char32_t code) {
  if (code <= 0x20) return code == 0x20 || (code >= 0x09 && code <= 0x0D) || code >= 0x1C;
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

size_t SkipSpaceForward(std::string_view bytes, size_t begin) {
  while (begin < bytes.size()) {
    Character c = DecodeAt(bytes, begin);
    if (!c.valid || !IsSpace(c.code)) break;
    begin += c.size;
  }
  return begin;
}

size_t SkipSpaceBackward(std::string_view bytes, size_t end) {
  while (end > 0) {
    size_t at = end - 1;
    while (at > 0 && end - at < 4 && (static_cast<uint8_t>(bytes[at]) & 0xC0) == 0x80) --at;
    Character c = DecodeAt(bytes, at);
    if (!c.valid || at + c.size != end || !IsSpace(c.code)) break;
    end = at;
  }
  return end;
}

namespace {

// Blocks where capitals and small letters alternate; `odd_upper` says on which parity the capitals
// are.
bool InAlternatingBlock(char32_t code, bool* odd_upper) {
  *odd_upper = (code >= 0x139 && code <= 0x148) || (code >= 0x179 && code <= 0x17E);
  if (code == 0x130 || code == 0x131 || code == 0x138 || code == 0x149) return false;
  return (code >= 0x100 && code <= 0x177) || (code >= 0x179 && code <= 0x17E) ||
         (code >= 0x460 && code <= 0x481) || (code >= 0x48A && code <= 0x4BF) ||
         (code >= 0x4D0 && code <= 0x52F) || (code >= 0x1E00 && code <= 0x1E95) ||
         (code >= 0x1EA0 && code <= 0x1EFF);
}

struct CaseRange {
  char32_t lower_begin;
  char32_t lower_end;  // inclusive
  int32_t to_upper;
};
constexpr CaseRange kCaseRanges[] = {
    {0x61, 0x7A, -0x20},   {0xE0, 0xF6, -0x20},     {0xF8, 0xFE, -0x20},   {0xFF, 0xFF, 0x79},
    {0x3AC, 0x3AC, -0x26}, {0x3AD, 0x3AF, -0x25},   {0x3B1, 0x3C1, -0x20}, {0x3C3, 0x3CB, -0x20},
    {0x3CC, 0x3CC, -0x40}, {0x3CD, 0x3CE, -0x3F},   {0x430, 0x44F, -0x20}, {0x450, 0x45F, -0x50},
    {0x561, 0x586, -0x30}, {0xFF41, 0xFF5A, -0x20},
};

}  // namespace

char32_t UpperOf(char32_t code) {
  for (const CaseRange& range : kCaseRanges) {
    if (code >= range.lower_begin && code <= range.lower_end) return code + range.to_upper;
  }
  if (code == 0x3C2) return 0x3A3;  // the final sigma
  bool odd_upper = false;
  if (!InAlternatingBlock(code, &odd_upper)) return code;
  return ((code & 1) != 0) == odd_upper ? code : code - 1;
}

char32_t LowerOf(char32_t code) {
  for (const CaseRange& range : kCaseRanges) {
    char32_t lower = code - range.to_upper;
    if (lower >= range.lower_begin && lower <= range.lower_end) return lower;
  }
  bool odd_upper = false;
  if (!InAlternatingBlock(code, &odd_upper)) return code;
  return ((code & 1) != 0) == odd_upper ? code + 1 : code;
}

bool IsLetter(char32_t code) {
  return IsWordCharacter(code) && code != '_' && !(code >= '0' && code <= '9');
}

}  // namespace fastgen::jinja
