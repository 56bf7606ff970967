#include "engine/text/jinja_methods.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_print.h"

namespace fastgen::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result StripMethod(Heap& heap, const Text& self, const Arguments& arguments, Side side) {
  RETURN_IF_ERROR(arguments.Check({"chars"}));
  ASSIGN_OR_RETURN(const Text* characters, arguments.FindText(0, "chars"));
  return Strip(heap, self, characters, side);
}

// Adds the piece to `pieces` at the cost of a value.
absl::Status AddPiece(Heap& heap, const Text& text, size_t begin, size_t end,
                      std::vector<Value>& pieces) {
  pieces.push_back(heap.View(Slice(text, begin, end)));
  return heap.Charge(2);
}

absl::Status SplitAtSpace(Heap& heap, const Text& text, int64_t max_splits,
                          std::vector<Value>& pieces) {
  size_t at = SkipSpaceForward(text.bytes, 0);
  while (at < text.bytes.size()) {
    if (max_splits >= 0 && static_cast<int64_t>(pieces.size()) >= max_splits) {
      return AddPiece(heap, text, at, text.bytes.size(), pieces);
    }
    size_t end = at;
    while (end < text.bytes.size()) {
      Character c = DecodeAt(text.bytes, end);
      if (c.valid && IsSpace(c.code)) break;
      end += c.size;
    }
    RETURN_IF_ERROR(AddPiece(heap, text, at, end, pieces));
    at = SkipSpaceForward(text.bytes, end);
  }
  return absl::OkStatus();
}

absl::Status SplitAt(Heap& heap, const Text& text, std::string_view separator, int64_t max_splits,
                     std::vector<Value>& pieces) {
  size_t at = 0;
  while (max_splits < 0 || static_cast<int64_t>(pieces.size()) < max_splits) {
    size_t found = FindPart(text.bytes, separator, at);
    if (found == std::string_view::npos) break;
    RETURN_IF_ERROR(AddPiece(heap, text, at, found, pieces));
    at = found + separator.size();
  }
  return AddPiece(heap, text, at, text.bytes.size(), pieces);
}

absl::Status SplitFromRight(Heap& heap, const Text& text, std::string_view separator,
                            int64_t max_splits, std::vector<Value>& pieces) {
  size_t end = text.bytes.size();
  while (max_splits < 0 || static_cast<int64_t>(pieces.size()) < max_splits) {
    if (end < separator.size()) break;
    size_t found = text.bytes.rfind(separator, end - separator.size());
    if (found == std::string_view::npos) break;
    RETURN_IF_ERROR(AddPiece(heap, text, found + separator.size(), end, pieces));
    end = found;
  }
  RETURN_IF_ERROR(AddPiece(heap, text, 0, end, pieces));
  std::reverse(pieces.begin(), pieces.end());
  return absl::OkStatus();
}

// Searching backwards compares at every place; what FindPart takes is charged as a scan.
absl::Status ChargeReverseSearch(Heap& heap, std::string_view bytes, std::string_view part) {
  if (part.size() > bytes.size()) return absl::OkStatus();
  return heap.Charge((bytes.size() - part.size()) / 16 * (part.size() / 64));
}

Result Split(Heap& heap, const Text& self, const Arguments& arguments, bool from_right) {
  RETURN_IF_ERROR(arguments.Check({"sep", "maxsplit"}));
  ASSIGN_OR_RETURN(const Text* separator, arguments.FindText(0, "sep"));
  ASSIGN_OR_RETURN(int64_t max_splits, arguments.FindInt(1, "maxsplit", -1));
  RETURN_IF_ERROR(heap.ChargeScan(self.bytes.size()));
  std::vector<Value> pieces;
  if (separator == nullptr) {
    if (from_right && max_splits >= 0) {
      return absl::InvalidArgumentError("rsplit with maxsplit needs a separator");
    }
    RETURN_IF_ERROR(SplitAtSpace(heap, self, max_splits, pieces));
  } else if (separator->bytes.empty()) {
    return absl::InvalidArgumentError("empty separator");
  } else if (from_right) {
    RETURN_IF_ERROR(ChargeReverseSearch(heap, self.bytes, separator->bytes));
    RETURN_IF_ERROR(SplitFromRight(heap, self, separator->bytes, max_splits, pieces));
  } else {
    RETURN_IF_ERROR(SplitAt(heap, self, separator->bytes, max_splits, pieces));
  }
  return heap.MakeList(std::move(pieces));
}

Result SplitLines(Heap& heap, const Text& self, const Arguments& arguments) {
  RETURN_IF_ERROR(arguments.Check({"keepends"}));
  bool keep_ends = arguments.FindBool(0, "keepends", false);
  RETURN_IF_ERROR(heap.ChargeScan(self.bytes.size()));
  std::vector<Value> lines;
  for (size_t at = 0; at < self.bytes.size();) {
    size_t end = std::min(self.bytes.find_first_of("\r\n", at), self.bytes.size());
    size_t next = std::min(end + 1, self.bytes.size());
    if (self.bytes.substr(end, 2) == "\r\n") ++next;
    RETURN_IF_ERROR(AddPiece(heap, self, at, keep_ends ? next : end, lines));
    at = next;
  }
  return heap.MakeList(std::move(lines));
}

Result Partition(Heap& heap, const Text& self, const Arguments& arguments, bool from_right) {
  RETURN_IF_ERROR(arguments.Check({"sep"}));
  ASSIGN_OR_RETURN(const Text* separator, arguments.FindText(0, "sep"));
  if (separator == nullptr || separator->bytes.empty()) {
    return absl::InvalidArgumentError("empty separator");
  }
  RETURN_IF_ERROR(heap.ChargeScan(self.bytes.size()));
  if (from_right) RETURN_IF_ERROR(ChargeReverseSearch(heap, self.bytes, separator->bytes));
  size_t found =
      from_right ? self.bytes.rfind(separator->bytes) : FindPart(self.bytes, separator->bytes);
  std::vector<Value> parts;
  if (found == std::string_view::npos) {
    Value whole = heap.View(self);
    parts = {whole, heap.Constant(""), heap.Constant("")};
    if (from_right) std::swap(parts[0], parts[2]);
  } else {
    size_t end = found + separator->bytes.size();
    parts = {heap.View(Slice(self, 0, found)), heap.View(Slice(self, found, end)),
             heap.View(Slice(self, end, self.bytes.size()))};
  }
  return heap.MakeList(std::move(parts), Kind::kTuple);
}

// startswith and endswith take one string or a tuple of them.
Result HasAffix(Heap& heap, const Text& self, const Arguments& arguments, bool at_end) {
  RETURN_IF_ERROR(arguments.Check({"affix"}));
  const Value* affix = arguments.Find(0, "affix");
  if (affix == nullptr) return absl::InvalidArgumentError("needs a string");
  std::vector<Value> candidates{*affix};
  if (affix->is(Kind::kTuple)) candidates = affix->list().items;
  for (const Value& candidate : candidates) {
    if (!candidate.is(Kind::kString)) {
      return absl::InvalidArgumentError(
          absl::StrCat("needs a string, not '", ToAbsl(TypeName(candidate.kind())), "'"));
    }
    std::string_view bytes = candidate.bytes();
    RETURN_IF_ERROR(heap.Charge(1 + bytes.size() / 64));
    if (bytes.size() > self.bytes.size()) continue;
    size_t begin = at_end ? self.bytes.size() - bytes.size() : 0;
    if (self.bytes.substr(begin, bytes.size()) == bytes) return Value::Bool(true);
  }
  return Value::Bool(false);
}

Result Find(Heap& heap, const Text& self, const Arguments& arguments, bool from_right) {
  RETURN_IF_ERROR(arguments.Check({"sub"}));
  ASSIGN_OR_RETURN(const Text* sub, arguments.FindText(0, "sub"));
  if (sub == nullptr) return absl::InvalidArgumentError("needs a string");
  RETURN_IF_ERROR(heap.ChargeScan(self.bytes.size()));
  if (from_right) RETURN_IF_ERROR(ChargeReverseSearch(heap, self.bytes, sub->bytes));
  size_t found = from_right ? self.bytes.rfind(sub->bytes) : FindPart(self.bytes, sub->bytes);
  if (found == std::string_view::npos) return Value::Int(-1);
  return Value::Int(CountCharacters(self.bytes.substr(0, found)), self.any_untrusted());
}

Result Index(Heap& heap, const Text& self, const Arguments& arguments, bool from_right) {
  ASSIGN_OR_RETURN(Value found, Find(heap, self, arguments, from_right));
  if (found.AsInt() < 0) return absl::InvalidArgumentError("substring not found");
  return found;
}

// center, ljust and rjust: how much of the padding goes to the left.
enum class Padding { kNone, kHalf, kAll };
Result Pad(Heap& heap, const Text& self, const Arguments& arguments, Padding left) {
  RETURN_IF_ERROR(arguments.Check({"width", "fillchar"}));
  ASSIGN_OR_RETURN(int64_t width, arguments.FindInt(0, "width", 0));
  ASSIGN_OR_RETURN(const Text* fill, arguments.FindText(1, "fillchar"));
  const Text filler = fill != nullptr ? *fill : MakeText(" ", /*untrusted=*/false);
  RETURN_IF_ERROR(heap.ChargeScan(self.bytes.size() + filler.bytes.size()));
  if (CountCharacters(filler.bytes) != 1) {
    return absl::InvalidArgumentError("the fill character must be exactly one character long");
  }
  const int64_t length = static_cast<int64_t>(CountCharacters(self.bytes));
  if (width <= length) return heap.View(self);
  const int64_t missing = width - length;
  // Python gives the odd one to the left where the width is odd.
  const int64_t half = missing / 2 + (missing & width & 1);
  const int64_t before = left == Padding::kAll ? missing : left == Padding::kHalf ? half : 0;
  ASSIGN_OR_RETURN(Value head, Repeat(heap, filler, before));
  ASSIGN_OR_RETURN(Value tail, Repeat(heap, filler, missing - before));
  TextBuilder out(kMaxTextBytes);
  out.Append(head.text());
  out.Append(self);
  out.Append(tail.text());
  return heap.Take(std::move(out));
}

Result ZeroFill(Heap& heap, const Text& self, const Arguments& arguments) {
  RETURN_IF_ERROR(arguments.Check({"width"}));
  ASSIGN_OR_RETURN(int64_t width, arguments.FindInt(0, "width", 0));
  RETURN_IF_ERROR(heap.ChargeScan(self.bytes.size()));
  const int64_t length = static_cast<int64_t>(CountCharacters(self.bytes));
  if (width <= length) return heap.View(self);
  const bool is_signed = length > 0 && (self.bytes[0] == '-' || self.bytes[0] == '+');
  ASSIGN_OR_RETURN(Value zeros, Repeat(heap, MakeText("0", /*untrusted=*/false), width - length));
  TextBuilder out(kMaxTextBytes);
  out.AppendSlice(self, 0, is_signed ? 1 : 0);
  out.Append(zeros.text());
  out.AppendSlice(self, is_signed ? 1 : 0, self.bytes.size());
  return heap.Take(std::move(out));
}

// Whether there are letters and all of them are as ChangeCase would have them.
template <CaseStyle style>
Result IsInCase(Heap& heap, const Text& self, const Arguments& arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  ASSIGN_OR_RETURN(Value changed, ChangeCase(heap, self, style));
  RETURN_IF_ERROR(heap.ChargeScan(self.bytes.size()));
  bool has_case = false;
  for (size_t at = 0; at < self.bytes.size();) {
    const Character c = DecodeAt(self.bytes, at);
    has_case = has_case || UpperOf(c.code) != LowerOf(c.code);
    at += c.size;
  }
  return Value::Bool(has_case && changed.bytes() == self.bytes, self.any_untrusted());
}

Result Count(Heap& heap, const Text& self, const Arguments& arguments) {
  RETURN_IF_ERROR(arguments.Check({"sub"}));
  ASSIGN_OR_RETURN(const Text* sub, arguments.FindText(0, "sub"));
  if (sub == nullptr) return absl::InvalidArgumentError("needs a string");
  RETURN_IF_ERROR(heap.ChargeScan(self.bytes.size()));
  if (sub->bytes.empty()) return Value::Int(CountCharacters(self.bytes) + 1, self.any_untrusted());
  int64_t count = 0;
  for (size_t at = FindPart(self.bytes, sub->bytes); at != std::string_view::npos;
       at = FindPart(self.bytes, sub->bytes, at + sub->bytes.size())) {
    ++count;
  }
  RETURN_IF_ERROR(heap.Charge(count / 4));
  return Value::Int(count, self.any_untrusted());
}

Result ReplaceMethod(Heap& heap, const Text& self, const Arguments& arguments) {
  RETURN_IF_ERROR(arguments.Check({"old", "new", "count"}));
  ASSIGN_OR_RETURN(const Text* from, arguments.FindText(0, "old"));
  ASSIGN_OR_RETURN(const Text* to, arguments.FindText(1, "new"));
  ASSIGN_OR_RETURN(int64_t count, arguments.FindInt(2, "count", -1));
  if (from == nullptr || to == nullptr) return absl::InvalidArgumentError("needs two strings");
  return Replace(heap, self, *from, *to, count);
}

Result JoinMethod(Heap& heap, const Text& self, const Arguments& arguments) {
  RETURN_IF_ERROR(arguments.Check({"iterable"}));
  const Value* iterable = arguments.Find(0, "iterable");
  if (iterable == nullptr) return absl::InvalidArgumentError("needs something to join");
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, *iterable));
  for (const Value& item : items) {
    if (!item.is(Kind::kString)) {
      return absl::InvalidArgumentError(
          absl::StrCat("joins strings only, found '", ToAbsl(TypeName(item.kind())), "'"));
    }
  }
  return Join(heap, items, self);
}

// Whether all characters satisfy the test and there is at least one.
template <typename Holds>
Result AllCharacters(Heap& heap, const Text& self, Holds holds) {
  bool all = !self.bytes.empty();
  size_t at = 0;
  while (all && at < self.bytes.size()) {
    Character c = DecodeAt(self.bytes, at);
    all = holds(c.code);
    at += c.size;
  }
  RETURN_IF_ERROR(heap.ChargeScan(at));
  return Value::Bool(all);
}

bool IsDigitCode(char32_t code) { return code >= '0' && code <= '9'; }

Result RemoveAffix(Heap& heap, const Text& self, const Arguments& arguments, bool at_end) {
  RETURN_IF_ERROR(arguments.Check({"affix"}));
  ASSIGN_OR_RETURN(const Text* affix, arguments.FindText(0, "affix"));
  if (affix == nullptr) return absl::InvalidArgumentError("needs a string");
  size_t size = self.bytes.size();
  size_t cut = affix->bytes.size();
  if (cut > size) return heap.View(self);
  RETURN_IF_ERROR(heap.Charge(1 + cut / 64));
  size_t begin = at_end ? size - cut : 0;
  if (self.bytes.substr(begin, cut) != affix->bytes) return heap.View(self);
  return heap.View(at_end ? Slice(self, 0, begin) : Slice(self, cut, size));
}

// Fills "{}", "{0}" and "{name}" in.
Result FormatMethod(Heap& heap, const Text& self, const Arguments& arguments) {
  RETURN_IF_ERROR(heap.ChargeScan(self.bytes.size()));
  TextBuilder out(kMaxTextBytes);
  size_t next = 0;
  size_t at = 0;
  const std::string_view bytes = self.bytes;
  while (at < bytes.size()) {
    size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
    out.AppendSlice(self, at, brace);
    if (brace == bytes.size()) break;
    if (brace + 1 < bytes.size() && bytes[brace + 1] == bytes[brace]) {
      out.AppendSlice(self, brace, brace + 1);
      at = brace + 2;
      continue;
    }
    size_t end = bytes.find('}', brace);
    if (bytes[brace] == '}' || end == std::string_view::npos) {
      return absl::InvalidArgumentError("single '{' or '}' in the format");
    }
    std::string_view field = bytes.substr(brace + 1, end - brace - 1);
    if (field.find_first_of(".[:!") != std::string_view::npos || field.size() > 100) {
      return absl::InvalidArgumentError("only plain {}, {0} and {name} fields are supported");
    }
    bool numbered = !field.empty() && std::all_of(field.begin(), field.end(), IsDigitCode);
    size_t index = field.empty() ? next++ : std::string_view::npos;
    if (numbered && field.size() < 6) index = std::stoul(std::string(field));
    const Value* value = arguments.Find(index, field);
    if (value == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no argument for the field '{", ToAbsl(field), "}'"));
    }
    RETURN_IF_ERROR(AppendString(heap, *value, out));
    at = end + 1;
  }
  return heap.Take(std::move(out));
}

struct StringMethod {
  std::string_view name;
  Result (*call)(Heap&, const Text&, const Arguments&);
};

template <CaseStyle style>
Result CaseMethod(Heap& heap, const Text& self, const Arguments& arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  return ChangeCase(heap, self, style);
}

using A = const Arguments&;
using T = const Text&;
constexpr StringMethod kStringMethods[] = {
    {"strip", [](Heap& h, T s, A a) { return StripMethod(h, s, a, Side::kBoth); }},
    {"lstrip", [](Heap& h, T s, A a) { return StripMethod(h, s, a, Side::kLeft); }},
    {"rstrip", [](Heap& h, T s, A a) { return StripMethod(h, s, a, Side::kRight); }},
    {"split", [](Heap& h, T s, A a) { return Split(h, s, a, false); }},
    {"rsplit", [](Heap& h, T s, A a) { return Split(h, s, a, true); }},
    {"splitlines", SplitLines},
    {"partition", [](Heap& h, T s, A a) { return Partition(h, s, a, false); }},
    {"rpartition", [](Heap& h, T s, A a) { return Partition(h, s, a, true); }},
    {"startswith", [](Heap& h, T s, A a) { return HasAffix(h, s, a, false); }},
    {"endswith", [](Heap& h, T s, A a) { return HasAffix(h, s, a, true); }},
    {"removeprefix", [](Heap& h, T s, A a) { return RemoveAffix(h, s, a, false); }},
    {"removesuffix", [](Heap& h, T s, A a) { return RemoveAffix(h, s, a, true); }},
    {"find", [](Heap& h, T s, A a) { return Find(h, s, a, false); }},
    {"rfind", [](Heap& h, T s, A a) { return Find(h, s, a, true); }},
    {"index", [](Heap& h, T s, A a) { return Index(h, s, a, false); }},
    {"rindex", [](Heap& h, T s, A a) { return Index(h, s, a, true); }},
    {"count", Count},
    {"center", [](Heap& h, T s, A a) { return Pad(h, s, a, Padding::kHalf); }},
    {"ljust", [](Heap& h, T s, A a) { return Pad(h, s, a, Padding::kNone); }},
    {"rjust", [](Heap& h, T s, A a) { return Pad(h, s, a, Padding::kAll); }},
    {"zfill", ZeroFill},
    {"isupper", IsInCase<CaseStyle::kUpper>},
    {"islower", IsInCase<CaseStyle::kLower>},
    {"istitle", IsInCase<CaseStyle::kTitle>},
    {"swapcase", CaseMethod<CaseStyle::kSwap>},
    {"casefold", CaseMethod<CaseStyle::kLower>},
    {"upper", CaseMethod<CaseStyle::kUpper>},
    {"lower", CaseMethod<CaseStyle::kLower>},
    {"title", CaseMethod<CaseStyle::kTitle>},
    {"capitalize", CaseMethod<CaseStyle::kCapitalize>},
    {"replace", ReplaceMethod},
    {"join", JoinMethod},
    {"format", FormatMethod},
    {"isdigit", [](Heap& h, T s, A) { return AllCharacters(h, s, IsDigitCode); }},
    {"isdecimal", [](Heap& h, T s, A) { return AllCharacters(h, s, IsDigitCode); }},
    {"isnumeric", [](Heap& h, T s, A) { return AllCharacters(h, s, IsDigitCode); }},
    {"isalpha", [](Heap& h, T s, A) { return AllCharacters(h, s, IsLetter); }},
    {"isalnum",
     [](Heap& h, T s, A) {
       return AllCharacters(h, s, [](char32_t c) { return IsLetter(c) || IsDigitCode(c); });
     }},
    {"isspace", [](Heap& h, T s, A) { return AllCharacters(h, s, IsSpace); }},
};

constexpr std::string_view kDictMethods[] = {"get", "items", "keys", "values", "copy"};
constexpr std::string_view kListMethods[] = {"index", "count", "copy"};

const StringMethod* FindStringMethod(std::string_view name) {
  for (const StringMethod& method : kStringMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

Result CallDictMethod(Heap& heap, const Dict& dict, std::string_view name, A arguments) {
  if (name == "get") {
    RETURN_IF_ERROR(arguments.Check({"key", "default"}));
    const Value* key = arguments.Find(0, "key");
    if (key == nullptr) return absl::InvalidArgumentError("needs a key");
    ASSIGN_OR_RETURN(const Value* found, FindKey(heap, dict, *key));
    if (found != nullptr) return *found;
    const Value* fallback = arguments.Find(1, "default");
    return fallback != nullptr ? *fallback : Value::None();
  }
  RETURN_IF_ERROR(arguments.Check({}));
  if (name == "copy") return heap.MakeDict(dict.entries);
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    if (name == "items") {
      ASSIGN_OR_RETURN(Value pair, heap.MakeList({key, value}, Kind::kTuple));
      items.push_back(pair);
    } else {
      items.push_back(name == "keys" ? key : value);
    }
  }
  return heap.MakeList(std::move(items));
}

Result CallListMethod(Heap& heap, const List& list, std::string_view name, A arguments) {
  if (name == "copy") {
    RETURN_IF_ERROR(arguments.Check({}));
    return heap.MakeList(list.items);
  }
  RETURN_IF_ERROR(arguments.Check({"value"}));
  const Value* wanted = arguments.Find(0, "value");
  if (wanted == nullptr) return absl::InvalidArgumentError("needs a value");
  int64_t count = 0;
  for (size_t i = 0; i < list.items.size(); ++i) {
    ASSIGN_OR_RETURN(bool equal, IsEqual(heap, list.items[i], *wanted));
    if (equal && name == "index") return Value::Int(static_cast<int64_t>(i));
    count += equal ? 1 : 0;
  }
  if (name == "index") return absl::InvalidArgumentError("the value is not in the list");
  return Value::Int(count);
}

template <size_t N>
bool IsOneOf(std::string_view name, const std::string_view (&names)[N]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

}  // namespace

bool HasMethod(const Value& value, std::string_view name) {
  if (value.is(Kind::kString)) return FindStringMethod(name) != nullptr;
  if (value.is(Kind::kDict)) return IsOneOf(name, kDictMethods);
  // A tuple needs no copy, and Python gives it none.
  if (value.is_list()) {
    return IsOneOf(name, kListMethods) && (name != "copy" || value.is(Kind::kList));
  }
  return false;
}

absl::StatusOr<Value> CallMethod(Heap& heap, const Value& self, std::string_view name,
                                 const Arguments& arguments) {
  RETURN_IF_ERROR(heap.Charge(1));
  absl::StatusOr<Value> result =
      self.is(Kind::kDict) ? CallDictMethod(heap, self.dict(), name, arguments)
      : self.is_list()     ? CallListMethod(heap, self.list(), name, arguments)
                           : FindStringMethod(name)->call(heap, self.text(), arguments);
  if (!result.ok()) return result;
  return result->WithUntrusted(self.untrusted());
}

}  // namespace fastgen::jinja
