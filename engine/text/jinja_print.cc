#include "engine/text/jinja_print.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen::jinja {

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  auto shortest =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  std::string digits(buffer, shortest.ptr);
  int exponent = std::atoi(digits.c_str() + digits.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return digits;
  auto fixed = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  std::string text(buffer, fixed.ptr);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

namespace {

// Python escapes what does not print: controls, separators other than the space, surrogates,
// private use.
bool IsPrintable(char32_t code) {
  if (code < 0x7F) return code >= 0x20;
  if (code < 0xA1 || code == 0xAD) return false;
  if (IsSpace(code)) return false;
  if ((code >= 0x200B && code <= 0x200F) || (code >= 0x202A && code <= 0x202E)) return false;
  if ((code >= 0x2060 && code <= 0x206F) || code == 0xFEFF) return false;
  return !(code >= 0xD800 && code <= 0xF8FF) && code < 0xF0000;
}

std::string ReprEscape(char32_t code) {
  switch (code) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  if (code < 0x100) return absl::StrFormat("\\x%02x", static_cast<unsigned>(code));
  if (code < 0x10000) return absl::StrFormat("\\u%04x", static_cast<unsigned>(code));
  return absl::StrFormat("\\U%08x", static_cast<unsigned>(code));
}

std::string JsonEscape(char32_t code) {
  switch (code) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      break;
  }
  if (code < 0x10000) return absl::StrFormat("\\u%04x", static_cast<unsigned>(code));
  code -= 0x10000;
  return absl::StrFormat("\\u%04x\\u%04x", static_cast<unsigned>(0xD800 + (code >> 10)),
                         static_cast<unsigned>(0xDC00 + (code & 0x3FF)));
}

// Appends `text` with each character for which `escape` returns something replaced by that; a
// replacement is as untrusted as its character. Runs without escapes are copied whole.
template <typename Escape>
void AppendEscaped(const Text& text, TextBuilder& out, Escape escape) {
  size_t run = 0;
  auto range = text.untrusted.begin();
  for (size_t at = 0; at < text.bytes.size() && !out.overflowed();) {
    Character c = DecodeAt(text.bytes, at);
    std::string replacement = escape(c);
    if (!replacement.empty()) {
      out.AppendSlice(text, run, at);
      while (range != text.untrusted.end() && range->end <= at) ++range;
      out.Append(replacement, range != text.untrusted.end() && range->begin < at + c.size);
      run = at + c.size;
    }
    at += c.size;
  }
  out.AppendSlice(text, run, text.bytes.size());
}

void AppendQuotedRepr(const Text& text, TextBuilder& out) {
  const bool untrusted = text.any_untrusted();
  bool single = text.bytes.find('\'') == std::string_view::npos ||
                text.bytes.find('"') != std::string_view::npos;
  const char quote = single ? '\'' : '"';
  out.Append({&quote, 1}, untrusted);
  AppendEscaped(text, out, [quote](const Character& c) -> std::string {
    if (c.code == static_cast<char32_t>(quote)) return {'\\', quote};
    if (c.code == '\\') return "\\\\";
    return IsPrintable(c.code) ? std::string() : ReprEscape(c.code);
  });
  out.Append({&quote, 1}, untrusted);
}

void AppendQuotedJson(const Text& text, bool ensure_ascii, TextBuilder& out) {
  out.Append("\"", text.any_untrusted());
  AppendEscaped(text, out, [ensure_ascii](const Character& c) -> std::string {
    if (c.code == '"' || c.code == '\\' || c.code < 0x20) return JsonEscape(c.code);
    return c.code >= 0x7F && ensure_ascii ? JsonEscape(c.code) : std::string();
  });
  out.Append("\"", text.any_untrusted());
}

absl::Status AppendReprItems(Heap& heap, const Value& list, TextBuilder& out) {
  const std::vector<Value>& items = list.list().items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.Append(", ", list.untrusted());
    RETURN_IF_ERROR(AppendRepr(heap, items[i], out));
  }
  return absl::OkStatus();
}

absl::Status AppendReprDict(Heap& heap, const Value& value, TextBuilder& out) {
  const Dict& dict = value.dict();
  const bool untrusted = value.untrusted();
  out.Append("{", untrusted);
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i > 0) out.Append(", ", untrusted);
    RETURN_IF_ERROR(AppendRepr(heap, dict.entries[i].first, out));
    out.Append(": ", untrusted);
    RETURN_IF_ERROR(AppendRepr(heap, dict.entries[i].second, out));
  }
  out.Append("}", untrusted);
  return absl::OkStatus();
}

}  // namespace

absl::Status AppendRepr(Heap& heap, const Value& value, TextBuilder& out) {
  RETURN_IF_ERROR(heap.Charge(1));
  bool untrusted = value.untrusted();
  switch (value.kind()) {
    case Kind::kUndefined:
      out.Append("Undefined", false);
      break;
    case Kind::kNone:
      out.Append("None", untrusted);
      break;
    case Kind::kBool:
      out.Append(value.as_bool() ? "True" : "False", untrusted);
      break;
    case Kind::kInt:
      out.Append(FromAbsl(absl::StrCat(value.AsInt())), untrusted);
      break;
    case Kind::kFloat:
      out.Append(FloatText(value.AsFloat()), untrusted);
      break;
    case Kind::kString:
      RETURN_IF_ERROR(heap.ChargeScan(value.bytes().size()));
      AppendQuotedRepr(value.text(), out);
      break;
    case Kind::kList:
      out.Append("[", untrusted);
      RETURN_IF_ERROR(AppendReprItems(heap, value, out));
      out.Append("]", untrusted);
      break;
    case Kind::kTuple:
      out.Append("(", untrusted);
      RETURN_IF_ERROR(AppendReprItems(heap, value, out));
      out.Append(value.list().items.size() == 1 ? ",)" : ")", untrusted);
      break;
    case Kind::kDict:
      return AppendReprDict(heap, value, out);
    default:
      out.Append("<", false);
      out.Append(TypeName(value.kind()), false);
      out.Append(">", false);
  }
  return absl::OkStatus();
}

absl::Status AppendString(Heap& heap, const Value& value, TextBuilder& out) {
  if (value.is(Kind::kUndefined)) return absl::OkStatus();
  if (!value.is(Kind::kString)) return AppendRepr(heap, value, out);
  RETURN_IF_ERROR(heap.Charge(1));
  out.Append(value.text());
  return absl::OkStatus();
}

absl::StatusOr<Value> ToString(Heap& heap, const Value& value) {
  if (value.is(Kind::kString)) return value;
  TextBuilder out(kMaxTextBytes);
  RETURN_IF_ERROR(AppendString(heap, value, out));
  return heap.Take(std::move(out));
}

namespace {

// The line break and indentation of a pretty-printed container's item, as untrusted as the
// container's shape.
void AppendNewline(const JsonFormat& format, int level, bool untrusted, TextBuilder& out) {
  if (format.indent < 0) return;
  out.Append("\n", untrusted);
  for (int i = 0; i < level && !out.overflowed(); ++i) {
    out.Append(std::string(format.indent, ' '), untrusted);
  }
}

void AppendSeparator(const Text& separator, bool untrusted, TextBuilder& out) {
  if (untrusted) {
    out.Append(separator.bytes, /*untrusted=*/true);
  } else {
    out.Append(separator);
  }
}

absl::Status AppendJsonAt(Heap& heap, const Value& value, const JsonFormat& format, int level,
                          TextBuilder& out);

absl::Status AppendJsonList(Heap& heap, const Value& value, const JsonFormat& format, int level,
                            TextBuilder& out) {
  const List& list = value.list();
  const bool untrusted = value.untrusted();
  out.Append("[", untrusted);
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) AppendSeparator(format.item_separator, untrusted, out);
    AppendNewline(format, level + 1, untrusted, out);
    RETURN_IF_ERROR(AppendJsonAt(heap, list.items[i], format, level + 1, out));
  }
  if (!list.items.empty()) AppendNewline(format, level, untrusted, out);
  out.Append("]", untrusted);
  return absl::OkStatus();
}

// A key as JSON writes it: numbers, bools and None become strings.
absl::StatusOr<Text> JsonKey(Heap& heap, const Value& key) {
  if (key.is(Kind::kString)) return key.text();
  std::string name = key.is(Kind::kNone)   ? "null"
                     : key.is(Kind::kBool) ? (key.as_bool() ? "true" : "false")
                     : key.is(Kind::kInt)  ? absl::StrCat(key.AsInt())
                                           : FloatText(key.AsFloat());
  return MakeText(heap.Keep(std::move(name)), key.untrusted());
}

absl::Status AppendJsonDict(Heap& heap, const Value& value, const JsonFormat& format, int level,
                            TextBuilder& out) {
  const Dict& dict = value.dict();
  const bool untrusted = value.untrusted();
  std::vector<const std::pair<Value, Value>*> entries;
  for (const auto& entry : dict.entries) entries.push_back(&entry);
  if (format.sort_keys) {
    RETURN_IF_ERROR(heap.Charge(entries.size()));
    for (const auto* entry : entries) {
      if (!entry->first.is(Kind::kString)) {
        return absl::InvalidArgumentError("sort_keys needs keys that are all strings");
      }
    }
    std::stable_sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) {
      return a->first.bytes() < b->first.bytes();
    });
  }
  out.Append("{", untrusted);
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0) AppendSeparator(format.item_separator, untrusted, out);
    AppendNewline(format, level + 1, untrusted, out);
    ASSIGN_OR_RETURN(Text key, JsonKey(heap, entries[i]->first));
    RETURN_IF_ERROR(heap.ChargeScan(key.bytes.size()));
    AppendQuotedJson(key, format.ensure_ascii, out);
    AppendSeparator(format.key_separator, untrusted, out);
    RETURN_IF_ERROR(AppendJsonAt(heap, entries[i]->second, format, level + 1, out));
  }
  if (!entries.empty()) AppendNewline(format, level, untrusted, out);
  out.Append("}", untrusted);
  return absl::OkStatus();
}

absl::Status AppendJsonAt(Heap& heap, const Value& value, const JsonFormat& format, int level,
                          TextBuilder& out) {
  RETURN_IF_ERROR(heap.Charge(1));
  switch (value.kind()) {
    case Kind::kNone:
      out.Append("null", value.untrusted());
      return absl::OkStatus();
    case Kind::kBool:
      out.Append(value.as_bool() ? "true" : "false", value.untrusted());
      return absl::OkStatus();
    case Kind::kInt:
      out.Append(FromAbsl(absl::StrCat(value.AsInt())), value.untrusted());
      return absl::OkStatus();
    case Kind::kFloat: {
      double number = value.AsFloat();
      out.Append(std::isnan(number)   ? "NaN"
                 : std::isinf(number) ? (number > 0 ? "Infinity" : "-Infinity")
                                      : FloatText(number),
                 value.untrusted());
      return absl::OkStatus();
    }
    case Kind::kString:
      RETURN_IF_ERROR(heap.ChargeScan(value.bytes().size()));
      AppendQuotedJson(value.text(), format.ensure_ascii, out);
      return absl::OkStatus();
    case Kind::kList:
    case Kind::kTuple:
      return AppendJsonList(heap, value, format, level, out);
    case Kind::kDict:
      return AppendJsonDict(heap, value, format, level, out);
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "Object of type ", ToAbsl(TypeName(value.kind())), " is not JSON serializable"));
  }
}

}  // namespace

absl::Status AppendJson(Heap& heap, const Value& value, const JsonFormat& format,
                        TextBuilder& out) {
  return AppendJsonAt(heap, value, format, 0, out);
}

}  // namespace fastgen::jinja
