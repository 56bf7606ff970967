// The text operations of jinja_methods.h that filters, methods and operators share.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_print.h"

namespace fastgen::jinja {
namespace {

bool IsCharacterOf(std::string_view characters, std::string_view character) {
  for (size_t at = 0; at < characters.size();) {
    size_t size = DecodeAt(characters, at).size;
    if (characters.substr(at, size) == character) return true;
    at += size;
  }
  return false;
}

// The byte where the character that ends at `end` begins.
size_t BeginOfCharacterBefore(std::string_view bytes, size_t end) {
  size_t at = end - 1;
  while (at > 0 && end - at < 4 && (static_cast<uint8_t>(bytes[at]) & 0xC0) == 0x80) --at;
  return at + DecodeAt(bytes, at).size == end ? at : end - 1;
}

bool EndsWord(char32_t code, CaseStyle style) {
  if (style == CaseStyle::kTitle) return !IsLetter(code);
  return style == CaseStyle::kTitleWords &&
         (IsSpace(code) || code == '-' || code == '(' || code == '{' || code == '[' || code == '<');
}

}  // namespace

namespace {

// Removes from both ends of [begin, end) of the text what is among `characters`, which are looked
// through for each character of the text.
absl::Status StripCharacters(Heap& heap, const Text& text, std::string_view characters, Side side,
                             size_t& begin, size_t& end) {
  size_t num_scanned = 0;
  auto is_removed = [&](size_t first, size_t last) -> absl::StatusOr<bool> {
    num_scanned += last - first + characters.size();
    if (num_scanned >= 4096) {
      RETURN_IF_ERROR(heap.ChargeScan(std::exchange(num_scanned, 0)));
    }
    return IsCharacterOf(characters, text.bytes.substr(first, last - first));
  };
  while (side != Side::kRight && begin < end) {
    size_t next = begin + DecodeAt(text.bytes, begin).size;
    ASSIGN_OR_RETURN(bool removed, is_removed(begin, next));
    if (!removed) break;
    begin = next;
  }
  while (side != Side::kLeft && begin < end) {
    size_t last = BeginOfCharacterBefore(text.bytes, end);
    ASSIGN_OR_RETURN(bool removed, is_removed(last, end));
    if (!removed) break;
    end = last;
  }
  return heap.ChargeScan(num_scanned);
}

}  // namespace

absl::StatusOr<Value> Strip(Heap& heap, const Text& text, const Text* characters, Side side) {
  size_t begin = 0;
  size_t end = text.bytes.size();
  if (characters != nullptr) {
    RETURN_IF_ERROR(StripCharacters(heap, text, characters->bytes, side, begin, end));
  } else {
    if (side != Side::kRight) begin = SkipSpaceForward(text.bytes, 0);
    if (side != Side::kLeft) end = std::max(begin, SkipSpaceBackward(text.bytes, end));
    RETURN_IF_ERROR(heap.ChargeScan(text.bytes.size() - (std::max(begin, end) - begin)));
  }
  return heap.View(Slice(text, begin, std::max(begin, end)));
}

absl::StatusOr<Value> ChangeCase(Heap& heap, const Text& text, CaseStyle style) {
  RETURN_IF_ERROR(heap.ChargeScan(text.bytes.size() * 2));
  TextBuilder out(kMaxTextBytes);
  auto range = text.untrusted.begin();
  bool starts_word = true;
  for (size_t at = 0; at < text.bytes.size() && !out.overflowed();) {
    Character c = DecodeAt(text.bytes, at);
    while (range != text.untrusted.end() && range->end <= at) ++range;
    bool untrusted = range != text.untrusted.end() && range->begin < at + c.size;
    bool upper = style == CaseStyle::kUpper || (style != CaseStyle::kLower && starts_word);
    if (style == CaseStyle::kSwap) upper = UpperOf(c.code) != c.code || c.code == 0xDF;
    if (!c.valid) {
      out.AppendSlice(text, at, at + 1);
    } else if (upper && c.code == 0xDF) {
      const bool is_whole = style == CaseStyle::kUpper || style == CaseStyle::kSwap;
      out.Append(is_whole ? "SS" : "Ss", untrusted);
    } else {
      out.Append(EncodeUtf8(upper ? UpperOf(c.code) : LowerOf(c.code)), untrusted);
    }
    starts_word = EndsWord(c.code, style);
    at += c.size;
  }
  return heap.Take(std::move(out));
}

absl::StatusOr<Value> Replace(Heap& heap, const Text& text, const Text& from, const Text& to,
                              int64_t count) {
  RETURN_IF_ERROR(heap.ChargeScan(text.bytes.size() * (from.bytes.empty() ? 4 : 1)));
  TextBuilder out(kMaxTextBytes);
  size_t at = 0;
  size_t num_found = 0;
  for (; count != 0 && !out.overflowed(); --count) {
    if (from.bytes.empty()) {
      // Python puts `to` before every character and at the end.
      out.Append(to);
      if (at >= text.bytes.size()) break;
      size_t end = at + DecodeAt(text.bytes, at).size;
      out.AppendSlice(text, at, end);
      at = end;
      continue;
    }
    size_t found = FindPart(text.bytes, from.bytes, at);
    if (found == std::string_view::npos) break;
    ++num_found;
    out.AppendSlice(text, at, found);
    out.Append(to);
    at = found + from.bytes.size();
  }
  out.AppendSlice(text, at, text.bytes.size());
  RETURN_IF_ERROR(heap.Charge(num_found / 4));
  return heap.Take(std::move(out));
}

absl::StatusOr<Value> Join(Heap& heap, const std::vector<Value>& items, const Text& separator) {
  TextBuilder out(kMaxTextBytes);
  for (size_t i = 0; i < items.size() && !out.overflowed(); ++i) {
    if (i > 0) out.Append(separator);
    RETURN_IF_ERROR(AppendString(heap, items[i], out));
  }
  return heap.Take(std::move(out));
}

absl::StatusOr<Value> Repeat(Heap& heap, const Text& text, int64_t count) {
  if (count <= 0 || text.bytes.empty()) return heap.Constant("");
  if (static_cast<uint64_t>(count) > kMaxTextBytes / text.bytes.size()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a string of ", text.bytes.size(), " bytes repeated ", count,
                     " times is longer than ", kMaxTextBytes, " bytes"));
  }
  TextBuilder out(kMaxTextBytes);
  for (int64_t i = 0; i < count; ++i) out.Append(text);
  RETURN_IF_ERROR(heap.Charge(1 + count / 16));
  return heap.Take(std::move(out));
}

namespace {

// One directive of a printf format: flags, width and precision, then the letter.
struct Directive {
  bool left = false;
  bool zero = false;
  bool plus = false;
  int width = 0;
  int precision = -1;
  char letter = 0;
};

// Reads the directive behind the '%' at `at`, which is left behind its letter. INVALID_ARGUMENT
// when malformed.
absl::StatusOr<Directive> ReadDirective(std::string_view format, size_t& at) {
  Directive directive;
  for (; at < format.size(); ++at) {
    char c = format[at];
    if (c == '-')
      directive.left = true;
    else if (c == '0')
      directive.zero = true;
    else if (c == '+')
      directive.plus = true;
    else if (c != ' ' && c != '#')
      break;
  }
  auto number = [&]() {
    int value = 0;
    while (at < format.size() && format[at] >= '0' && format[at] <= '9' && value < 10000) {
      value = value * 10 + (format[at++] - '0');
    }
    return value;
  };
  directive.width = number();
  if (at < format.size() && format[at] == '.') {
    ++at;
    directive.precision = number();
  }
  if (at >= format.size()) return absl::InvalidArgumentError("incomplete format");
  directive.letter = format[at++];
  if (directive.width > 1000 || directive.precision > 100) {
    return absl::InvalidArgumentError("the width or precision of the format is too large");
  }
  return directive;
}

// The digits of a number as the directive wants them. INVALID_ARGUMENT for a letter or value that
// does not fit.
absl::StatusOr<std::string> FormatNumber(const Directive& directive, const Value& value) {
  if (!value.is_number()) {
    return absl::InvalidArgumentError(absl::StrCat("%", std::string(1, directive.letter),
                                                   " format: a number is required, not ",
                                                   ToAbsl(TypeName(value.kind()))));
  }
  char buffer[500];
  const char* sign = directive.plus ? "+" : "";
  std::string shape;
  if (std::string_view("diuxXo").find(directive.letter) != std::string_view::npos) {
    double number = value.AsFloat();
    if (value.is(Kind::kFloat) && !(std::abs(number) < 9e18)) {
      return absl::InvalidArgumentError("the number does not fit into 64 bits");
    }
    long long integer = value.is(Kind::kFloat) ? static_cast<long long>(number) : value.AsInt();
    char letter = directive.letter == 'u' || directive.letter == 'i' ? 'd' : directive.letter;
    shape = absl::StrCat("%", sign, "ll", std::string(1, letter));
    std::snprintf(buffer, sizeof(buffer), shape.c_str(), integer);
    return std::string(buffer);
  }
  if (std::string_view("fFeEgG").find(directive.letter) == std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("unsupported format character '", std::string(1, directive.letter), "'"));
  }
  shape = absl::StrCat("%", sign, ".*", std::string(1, directive.letter));
  int precision = directive.precision < 0 ? 6 : directive.precision;
  std::snprintf(buffer, sizeof(buffer), shape.c_str(), precision, value.AsFloat());
  return std::string(buffer);
}

absl::StatusOr<Text> FormatOne(Heap& heap, const Directive& directive, const Value& value) {
  if (directive.letter == 's' || directive.letter == 'r') {
    TextBuilder whole(kMaxTextBytes);
    RETURN_IF_ERROR(directive.letter == 's' ? AppendString(heap, value, whole)
                                            : AppendRepr(heap, value, whole));
    ASSIGN_OR_RETURN(Value text, heap.Take(std::move(whole)));
    if (directive.precision < 0) return text.text();
    return Slice(text.text(), 0, OffsetOfCharacter(text.bytes(), directive.precision));
  }
  ASSIGN_OR_RETURN(std::string digits, FormatNumber(directive, value));
  return MakeText(heap.Keep(std::move(digits)), value.untrusted());
}

void AppendPadded(const Directive& directive, const Text& text, TextBuilder& out) {
  size_t length = CountCharacters(text.bytes);
  size_t width = directive.width;
  size_t missing = width > length ? width - length : 0;
  bool number = directive.letter != 's' && directive.letter != 'r';
  bool zeros = directive.zero && number && !directive.left;
  size_t sign =
      zeros && !text.bytes.empty() && (text.bytes[0] == '-' || text.bytes[0] == '+') ? 1 : 0;
  out.AppendSlice(text, 0, sign);
  if (!directive.left) out.Append(std::string(missing, zeros ? '0' : ' '), /*untrusted=*/false);
  out.AppendSlice(text, sign, text.bytes.size());
  if (directive.left) out.Append(std::string(missing, ' '), /*untrusted=*/false);
}

// The value that the "(name)" at `at` stands for, which is left behind it.
absl::StatusOr<const Value*> FindNamed(Heap& heap, const Text& format,
                                       const std::vector<Value>& values, size_t& at) {
  const size_t end = format.bytes.find(')', at);
  if (end == std::string_view::npos) return absl::InvalidArgumentError("incomplete format key");
  if (values.size() != 1 || !values[0].is(Kind::kDict)) {
    return absl::InvalidArgumentError("format requires a mapping");
  }
  const std::string_view name = format.bytes.substr(at + 1, end - at - 1);
  RETURN_IF_ERROR(heap.Charge(1));
  const Value* found = values[0].dict().Find(name);
  if (found == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no value for '%(", ToAbsl(name.substr(0, 100)), ")'"));
  }
  at = end + 1;
  return found;
}

}  // namespace

absl::StatusOr<Value> FormatPercent(Heap& heap, const Text& format,
                                    const std::vector<Value>& values) {
  TextBuilder out(kMaxTextBytes);
  size_t next = 0;
  for (size_t at = 0; at < format.bytes.size() && !out.overflowed();) {
    RETURN_IF_ERROR(heap.Charge(1));
    size_t percent = std::min(format.bytes.find('%', at), format.bytes.size());
    out.AppendSlice(format, at, percent);
    if (percent == format.bytes.size()) break;
    at = percent + 1;
    const Value* named = nullptr;
    if (at < format.bytes.size() && format.bytes[at] == '(') {
      ASSIGN_OR_RETURN(named, FindNamed(heap, format, values, at));
    }
    ASSIGN_OR_RETURN(Directive directive, ReadDirective(format.bytes, at));
    if (directive.letter == '%') {
      out.AppendSlice(format, at - 1, at);
      continue;
    }
    if (named == nullptr) {
      if (next >= values.size()) {
        return absl::InvalidArgumentError("not enough arguments for format string");
      }
      named = &values[next++];
    }
    ASSIGN_OR_RETURN(Text text, FormatOne(heap, directive, *named));
    AppendPadded(directive, text, out);
  }
  if (next < values.size() && !(values.size() == 1 && values[0].is(Kind::kDict))) {
    return absl::InvalidArgumentError("not all arguments converted during string formatting");
  }
  return heap.Take(std::move(out));
}

}  // namespace fastgen::jinja
