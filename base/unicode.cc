#include "base/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"

namespace fastgen {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What a lead byte says about its character. num_following 0: not a lead byte of more than one
// byte.
struct Lead {
  size_t num_following;
  uint8_t next_min;
  uint8_t next_max;
};

Lead ClassifyLead(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};  // below: overlong
  if (byte == 0xED) return {2, 0x80, 0x9F};  // above: surrogates
  if (byte >= 0xE1 && byte <= 0xEF) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};  // below: overlong
  if (byte >= 0xF1 && byte <= 0xF3) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};  // above: beyond U+10FFFF
  return {0, 0, 0};
}

// The number of leading ASCII bytes of `text`, eight at a time.
size_t AsciiPrefix(std::string_view text) {
  size_t pos = 0;
  while (pos + 8 <= text.size()) {
    uint64_t word;
    std::memcpy(&word, text.data() + pos, 8);
    if ((word & 0x8080808080808080u) != 0) break;
    pos += 8;
  }
  while (pos < text.size() && static_cast<uint8_t>(text[pos]) < 0x80) ++pos;
  return pos;
}

// Canonical decomposition of `text` with its marks in canonical order.
std::vector<utf8proc_int32_t> Decompose(std::string_view text) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Char c = DecodeUtf8(text, pos);
    pos += c.num_bytes;
    utf8proc_int32_t parts[8];  // the longest canonical decomposition has four
    int boundclass = 0;
    const utf8proc_ssize_t num_parts = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c.code_point), parts, 8,
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), &boundclass);
    CHECK(num_parts >= 0 && num_parts <= 8) << "U+" << static_cast<uint32_t>(c.code_point);
    points.insert(points.end(), parts, parts + num_parts);
  }
  const auto combining_class = [](utf8proc_int32_t point) {
    return utf8proc_get_property(point)->combining_class;
  };
  for (auto run = points.begin(); run != points.end();) {
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    auto end =
        std::find_if(run, points.end(), [&](auto point) { return combining_class(point) == 0; });
    std::stable_sort(run, end,
                     [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
  return points;
}

}  // namespace

bool IsValidUtf8(std::string_view text) {
  size_t pos = 0;
  while (true) {
    pos += AsciiPrefix(text.substr(pos));
    if (pos == text.size()) return true;
    const Lead lead = ClassifyLead(static_cast<uint8_t>(text[pos]));
    if (lead.num_following == 0 || pos + lead.num_following >= text.size()) return false;
    const uint8_t second = static_cast<uint8_t>(text[pos + 1]);
    if (second < lead.next_min || second > lead.next_max) return false;
    for (size_t i = 2; i <= lead.num_following; ++i) {
      if ((static_cast<uint8_t>(text[pos + i]) & 0xC0) != 0x80) return false;
    }
    pos += lead.num_following + 1;
  }
}

Utf8Char DecodeUtf8(std::string_view text, size_t pos) {
  const auto byte = [&](size_t i) -> char32_t { return static_cast<uint8_t>(text[pos + i]); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

void AppendUtf8(char32_t code_point, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t num_bytes =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  CHECK(num_bytes > 0) << static_cast<uint32_t>(code_point);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(num_bytes));
}

bool IsWhitespace(char32_t code_point) {
  if (code_point < 0x80) return code_point == ' ' || (code_point >= '\t' && code_point <= '\r');
  if (code_point == 0x85) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return true;
    default:
      return false;
  }
}

bool IsWordCharacter(char32_t code_point) {
  if (code_point == 0x200C || code_point == 0x200D) return true;  // joiners stand inside words
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

size_t GraphemeBytes(std::string_view text, size_t pos) {
  Utf8Char last = DecodeUtf8(text, pos);
  size_t end = pos + last.num_bytes;
  utf8proc_int32_t state = 0;
  while (end < text.size()) {
    const Utf8Char next = DecodeUtf8(text, end);
    // No cluster goes on from ASCII to ASCII, but for the end of a line.
    if (last.code_point < 0x80 && next.code_point < 0x80 && last.code_point != '\r') break;
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.code_point),
                                         static_cast<utf8proc_int32_t>(next.code_point), &state)) {
      break;
    }
    end += next.num_bytes;
    last = next;
  }
  return end - pos;
}

bool IsNfcStable(char32_t c) {
  // U+0300 is the first combining mark. The ranges hold no marks, no vowel or final jamo, and no
  // character that decomposes to anything but what composes back to it.
  return c < 0x300 || (c >= 0x400 && c <= 0x482) || (c >= 0x2010 && c <= 0x2027) ||
         (c >= 0x3000 && c <= 0x3029) || (c >= 0x3041 && c <= 0x3096) ||
         (c >= 0x30A1 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) ||
         (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xFF00 && c <= 0xFFEF) ||
         (c >= 0x1F300 && c <= 0x1FAFF);
}

std::string NormalizeNfc(std::string_view text) {
  std::vector<utf8proc_int32_t> points = Decompose(text);
  const utf8proc_ssize_t num_points =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  CHECK(num_points >= 0) << "utf8proc error " << num_points;
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < num_points; ++i) {
    AppendUtf8(static_cast<char32_t>(points[static_cast<size_t>(i)]), &out);
  }
  return out;
}

void Utf8Repairer::Push(std::string_view bytes, std::string* out) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    if (num_pending_ == 0) {
      const size_t num_ascii = AsciiPrefix(bytes.substr(pos));
      out->append(bytes, pos, num_ascii);
      pos += num_ascii;
      if (pos == bytes.size()) return;
    }
    PushByte(static_cast<uint8_t>(bytes[pos]), out);
    ++pos;
  }
}

void Utf8Repairer::PushByte(uint8_t byte, std::string* out) {
  if (num_pending_ > 0) {
    if (byte >= next_min_ && byte <= next_max_) {
      pending_[num_pending_++] = static_cast<char>(byte);
      next_min_ = 0x80;
      next_max_ = 0xBF;
      if (--num_missing_ == 0) {
        out->append(pending_, num_pending_);
        num_pending_ = 0;
      }
      return;
    }
    Finish(out);  // the byte cannot continue what came before, and is looked at anew
  }
  if (byte < 0x80) {
    out->push_back(static_cast<char>(byte));
    return;
  }
  const Lead lead = ClassifyLead(byte);
  if (lead.num_following == 0) {
    out->append(kReplacement);
    return;
  }
  pending_[0] = static_cast<char>(byte);
  num_pending_ = 1;
  num_missing_ = lead.num_following;
  next_min_ = lead.next_min;
  next_max_ = lead.next_max;
}

void Utf8Repairer::Finish(std::string* out) {
  if (num_pending_ == 0) return;
  const size_t num_replacements = repair_ == Utf8Repair::kPerByte ? num_pending_ : 1;
  for (size_t i = 0; i < num_replacements; ++i) out->append(kReplacement);
  num_pending_ = 0;
  num_missing_ = 0;
}

}  // namespace fastgen
