// The filters on text.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "base/unicode.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_print.h"

namespace fastgen::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Args = const Arguments&;

Result Trim(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"chars"}));
  ASSIGN_OR_RETURN(const Text* characters, arguments.FindText(0, "chars"));
  ASSIGN_OR_RETURN(Value text, ToString(heap, value));
  return Strip(heap, text.text(), characters, Side::kBoth);
}

template <CaseStyle style>
Result Case(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  ASSIGN_OR_RETURN(Value text, ToString(heap, value));
  return ChangeCase(heap, text.text(), style);
}

Result ReplaceFilter(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"old", "new", "count"}));
  const Value* from = arguments.Find(0, "old");
  const Value* to = arguments.Find(1, "new");
  if (from == nullptr || to == nullptr) return absl::InvalidArgumentError("needs two strings");
  int64_t count = -1;
  const Value* limit = arguments.Find(2, "count");
  if (limit != nullptr && !limit->is(Kind::kNone)) {
    ASSIGN_OR_RETURN(count, arguments.FindInt(2, "count", -1));
  }
  ASSIGN_OR_RETURN(Value text, ToString(heap, value));
  ASSIGN_OR_RETURN(Value old_text, ToString(heap, *from));
  ASSIGN_OR_RETURN(Value new_text, ToString(heap, *to));
  return Replace(heap, text.text(), old_text.text(), new_text.text(), count);
}

Result Safe(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  return ToString(heap, value);
}

Result Escape(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  ASSIGN_OR_RETURN(Value text, ToString(heap, value));
  static constexpr std::pair<char, std::string_view> kEntities[] = {
      {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
  const Text& source = text.text();
  TextBuilder out(kMaxTextBytes);
  auto range = source.untrusted.begin();
  size_t run = 0;
  for (size_t at = 0; at < source.bytes.size(); ++at) {
    for (const auto& [character, entity] : kEntities) {
      if (source.bytes[at] != character) continue;
      out.AppendSlice(source, run, at);
      while (range != source.untrusted.end() && range->end <= at) ++range;
      out.Append(entity, range != source.untrusted.end() && range->begin <= at);
      run = at + 1;
    }
  }
  out.AppendSlice(source, run, source.bytes.size());
  RETURN_IF_ERROR(heap.ChargeScan(source.bytes.size()));
  return heap.Take(std::move(out));
}

// The lines of `text` after the first get the indentation; blank ones only when asked for.
void AppendIndented(const Text& text, const Text& indentation, bool first, bool blank,
                    TextBuilder& out) {
  for (size_t at = 0, number = 0; at <= text.bytes.size() && !out.overflowed(); ++number) {
    size_t end = std::min(text.bytes.find('\n', at), text.bytes.size());
    bool indents = number == 0 ? first : blank || end > at;
    if (indents) out.Append(indentation);
    out.AppendSlice(text, at, std::min(end + 1, text.bytes.size()));
    at = end + 1;
  }
}

Result Indent(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"width", "first", "blank"}));
  const Value* width = arguments.Find(0, "width");
  Text indentation = MakeText("    ", /*untrusted=*/false);
  if (width != nullptr && width->is(Kind::kString)) {
    indentation = width->text();
  } else if (width != nullptr) {
    ASSIGN_OR_RETURN(int64_t count, arguments.FindInt(0, "width", 4));
    ASSIGN_OR_RETURN(Value spaces, Repeat(heap, MakeText(" ", /*untrusted=*/false), count));
    indentation = spaces.text();
  }
  ASSIGN_OR_RETURN(Value text, ToString(heap, value));
  RETURN_IF_ERROR(heap.ChargeScan(text.bytes().size()));
  TextBuilder out(kMaxTextBytes);
  AppendIndented(text.text(), indentation, arguments.FindBool(1, "first", false),
                 arguments.FindBool(2, "blank", false), out);
  return heap.Take(std::move(out));
}

Result Format(Heap& heap, const Value& value, Args arguments) {
  ASSIGN_OR_RETURN(Value text, ToString(heap, value));
  if (!arguments.named.empty() && !arguments.positional.empty()) {
    return absl::InvalidArgumentError("takes positional arguments or named ones, not both");
  }
  if (!arguments.named.empty()) {
    std::vector<std::pair<Value, Value>> entries;
    for (const auto& [name, named] : arguments.named) {
      entries.emplace_back(heap.View(*name), named);
    }
    ASSIGN_OR_RETURN(Value names, heap.MakeDict(std::move(entries)));
    return FormatPercent(heap, text.text(), {names});
  }
  return FormatPercent(heap, text.text(), arguments.positional);
}

Result Center(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"width"}));
  ASSIGN_OR_RETURN(int64_t width, arguments.FindInt(0, "width", 80));
  ASSIGN_OR_RETURN(Value text, ToString(heap, value));
  RETURN_IF_ERROR(heap.ChargeScan(text.bytes().size()));
  int64_t length = static_cast<int64_t>(CountCharacters(text.bytes()));
  int64_t missing = std::max<int64_t>(0, std::min<int64_t>(width, kMaxTextBytes) - length);
  // Python puts the odd blank on the left only when the width is odd.
  int64_t left = missing / 2 + (missing & width & 1);
  TextBuilder out(kMaxTextBytes);
  out.Append(std::string(left, ' '), /*untrusted=*/false);
  out.Append(text.text());
  out.Append(std::string(missing - left, ' '), /*untrusted=*/false);
  return heap.Take(std::move(out));
}

Result WordCount(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  ASSIGN_OR_RETURN(Value text, ToString(heap, value));
  RETURN_IF_ERROR(heap.ChargeScan(text.bytes().size()));
  int64_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.bytes().size();) {
    Character c = DecodeAt(text.bytes(), at);
    bool is_word = IsWordCharacter(c.code);
    if (is_word && !in_word) ++count;
    in_word = is_word;
    at += c.size;
  }
  return Value::Int(count);
}

Result Truncate(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"length", "killwords", "end", "leeway"}));
  ASSIGN_OR_RETURN(int64_t length, arguments.FindInt(0, "length", 255));
  ASSIGN_OR_RETURN(const Text* end, arguments.FindText(2, "end"));
  ASSIGN_OR_RETURN(int64_t leeway, arguments.FindInt(3, "leeway", 5));
  ASSIGN_OR_RETURN(Value text, ToString(heap, value));
  const Text ellipsis = end != nullptr ? *end : MakeText("...", /*untrusted=*/false);
  RETURN_IF_ERROR(heap.ChargeScan(text.bytes().size() + ellipsis.bytes.size()));
  int64_t end_length = static_cast<int64_t>(CountCharacters(ellipsis.bytes));
  if (length < end_length || leeway < 0 || length > static_cast<int64_t>(kMaxTextBytes) ||
      leeway > static_cast<int64_t>(kMaxTextBytes)) {
    return absl::InvalidArgumentError("the length or leeway is out of range");
  }
  if (static_cast<int64_t>(CountCharacters(text.bytes())) <= length + leeway) return text;
  size_t cut = OffsetOfCharacter(text.bytes(), length - end_length);
  if (!arguments.FindBool(1, "killwords", false)) {
    cut = std::min(cut, text.bytes().substr(0, cut).rfind(' '));
  }
  TextBuilder out(kMaxTextBytes);
  out.AppendSlice(text.text(), 0, cut);
  out.Append(ellipsis);
  return heap.Take(std::move(out));
}

constexpr Filter kFilters[] = {
    {"trim", Trim},
    {"upper", Case<CaseStyle::kUpper>},
    {"lower", Case<CaseStyle::kLower>},
    {"title", Case<CaseStyle::kTitleWords>},
    {"capitalize", Case<CaseStyle::kCapitalize>},
    {"replace", ReplaceFilter},
    {"safe", Safe},
    {"escape", Escape},
    {"e", Escape},
    {"indent", Indent},
    {"format", Format},
    {"center", Center},
    {"wordcount", WordCount},
    {"truncate", Truncate},
};

}  // namespace

const Filter* FindTextFilter(std::string_view name) {
  for (const Filter& filter : kFilters) {
    if (filter.name == name) return &filter;
  }
  return nullptr;
}

}  // namespace fastgen::jinja
