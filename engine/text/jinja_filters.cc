#include "engine/text/jinja_filters.h"

#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"

namespace fastgen::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Args = const Arguments&;

Result Default(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"default_value", "boolean"}));
  bool replace =
      value.is(Kind::kUndefined) || (arguments.FindBool(1, "boolean", false) && !IsTrue(value));
  if (!replace) return value;
  const Value* fallback = arguments.Find(0, "default_value");
  return fallback != nullptr ? *fallback : heap.Constant("");
}

Result LengthFilter(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  ASSIGN_OR_RETURN(int64_t length, Length(heap, value));
  return Value::Int(length);
}

Result String(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  return ToString(heap, value);
}

// The number that Python's int(text, base) or float(text) reads, or null.
std::optional<int64_t> ReadInteger(std::string_view text, int base) {
  size_t begin = SkipSpaceForward(text, 0);
  std::string digits;
  for (char c :
       text.substr(begin, SkipSpaceBackward(text, text.size()) - std::min(begin, text.size()))) {
    if (c != '_') digits += c;
  }
  bool negative = !digits.empty() && digits[0] == '-';
  std::string_view rest = digits;
  if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) rest.remove_prefix(1);
  if (base == 16 && (rest.starts_with("0x") || rest.starts_with("0X"))) rest.remove_prefix(2);
  if (base == 8 && (rest.starts_with("0o") || rest.starts_with("0O"))) rest.remove_prefix(2);
  if (base == 2 && (rest.starts_with("0b") || rest.starts_with("0B"))) rest.remove_prefix(2);
  if (rest.empty() || rest.size() > 64 || !std::isalnum(static_cast<unsigned char>(rest[0])))
    return {};
  char* end = nullptr;
  errno = 0;
  std::string plain = (negative ? "-" : "") + std::string(rest);
  int64_t value = std::strtoll(plain.c_str(), &end, base);
  if (errno != 0 || *end != '\0') return {};
  return value;
}

std::optional<double> ReadFloat(std::string_view text) {
  size_t end = SkipSpaceBackward(text, text.size());
  size_t begin = std::min(SkipSpaceForward(text, 0), end);
  std::string digits(text.substr(begin, end - begin));
  if (digits.empty() || digits.size() > 400 || digits.find_first_of("xX") != std::string::npos)
    return {};
  char* last = nullptr;
  double value = std::strtod(digits.c_str(), &last);
  if (*last != '\0') return {};
  return value;
}

std::optional<int64_t> Truncate(double value) {
  if (!(std::abs(value) < 9.2e18)) return {};
  return static_cast<int64_t>(value);
}

Result Int(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"default", "base"}));
  if (value.is(Kind::kUndefined)) return UndefinedError(value);
  ASSIGN_OR_RETURN(int64_t base, arguments.FindInt(1, "base", 10));
  if (base < 2 || base > 36) return absl::InvalidArgumentError("the base must be between 2 and 36");
  std::optional<int64_t> number;
  if (value.is_integral()) number = value.AsInt();
  if (value.is(Kind::kFloat)) number = Truncate(value.AsFloat());
  if (value.is(Kind::kString)) {
    RETURN_IF_ERROR(heap.ChargeScan(value.bytes().size()));
    number = ReadInteger(value.bytes(), static_cast<int>(base));
    std::optional<double> real = number ? std::nullopt : ReadFloat(value.bytes());
    if (real) number = Truncate(*real);
  }
  if (number) return Value::Int(*number);
  const Value* fallback = arguments.Find(0, "default");
  return fallback != nullptr ? *fallback : Value::Int(0);
}

Result Float(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"default"}));
  if (value.is(Kind::kUndefined)) return UndefinedError(value);
  if (value.is_number()) return Value::Float(value.AsFloat());
  std::optional<double> number;
  if (value.is(Kind::kString)) {
    RETURN_IF_ERROR(heap.ChargeScan(value.bytes().size()));
    number = ReadFloat(value.bytes());
  }
  if (number) return Value::Float(*number);
  const Value* fallback = arguments.Find(0, "default");
  return fallback != nullptr ? *fallback : Value::Float(0);
}

absl::Status NeedNumber(const Value& value) {
  if (value.is_number()) return absl::OkStatus();
  if (value.is(Kind::kUndefined)) return UndefinedError(value);
  return absl::InvalidArgumentError(
      absl::StrCat("needs a number, not '", ToAbsl(TypeName(value.kind())), "'"));
}

Result Abs(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  RETURN_IF_ERROR(NeedNumber(value));
  if (value.is(Kind::kFloat)) return Value::Float(std::abs(value.AsFloat()));
  return value.AsInt() < 0 ? Negate(value) : Result(Value::Int(value.AsInt()));
}

Result Round(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"precision", "method"}));
  RETURN_IF_ERROR(NeedNumber(value));
  ASSIGN_OR_RETURN(int64_t precision, arguments.FindInt(0, "precision", 0));
  ASSIGN_OR_RETURN(const Text* method, arguments.FindText(1, "method"));
  std::string_view name = method != nullptr ? method->bytes : "common";
  if (name != "common" && name != "ceil" && name != "floor") {
    return absl::InvalidArgumentError("method must be common, ceil or floor");
  }
  if (precision < -300 || precision > 300)
    return absl::InvalidArgumentError("the precision is too large");
  double scale = std::pow(10.0, static_cast<double>(precision));
  double scaled = value.AsFloat() * scale;
  if (!std::isfinite(scaled)) return Value::Float(value.AsFloat());
  // nearbyint rounds halves to even, as Python does.
  double rounded = name == "ceil"    ? std::ceil(scaled)
                   : name == "floor" ? std::floor(scaled)
                                     : std::nearbyint(scaled);
  bool stays_integer = value.is_integral() && name == "common";
  if (stays_integer && precision >= 0) return Value::Int(value.AsInt());
  std::optional<int64_t> integer = stays_integer ? Truncate(rounded / scale) : std::nullopt;
  return integer ? Value::Int(*integer) : Value::Float(rounded / scale);
}

// ToJson's separators: a pair of strings.
absl::Status ReadSeparators(const Value& value, JsonFormat& format) {
  const bool is_pair = value.is_list() && value.list().items.size() == 2 &&
                       value.list().items[0].is(Kind::kString) &&
                       value.list().items[1].is(Kind::kString);
  if (!is_pair) return absl::InvalidArgumentError("separators must be two strings");
  format.item_separator = value.list().items[0].text();
  format.key_separator = value.list().items[1].text();
  return absl::OkStatus();
}

// As transformers defines it for chat templates: plain json.dumps without HTML escapes.
Result ToJson(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonFormat format;
  // A single positional number is Jinja's own signature, tojson(indent).
  const Value* first = arguments.Find(0, "ensure_ascii");
  bool is_indent = first != nullptr && first->is(Kind::kInt);
  format.ensure_ascii = first != nullptr && !is_indent && IsTrue(*first);
  const Value* indent = is_indent ? first : arguments.Find(1, "indent");
  if (indent != nullptr && !indent->is(Kind::kNone)) {
    if (!indent->is_integral() || indent->AsInt() < 0 || indent->AsInt() > 64) {
      return absl::InvalidArgumentError("indent must be an integer between 0 and 64");
    }
    format.indent = static_cast<int>(indent->AsInt());
  }
  format.item_separator = MakeText(format.indent < 0 ? ", " : ",", /*untrusted=*/false);
  format.key_separator = MakeText(": ", /*untrusted=*/false);
  const Value* separators = arguments.Find(2, "separators");
  if (separators != nullptr && !separators->is(Kind::kNone)) {
    RETURN_IF_ERROR(ReadSeparators(*separators, format));
  }
  format.sort_keys = arguments.FindBool(3, "sort_keys", false);
  TextBuilder out(kMaxTextBytes);
  RETURN_IF_ERROR(AppendJson(heap, value, format, out));
  return heap.Take(std::move(out));
}

constexpr Filter kFilters[] = {
    {"default", Default}, {"d", Default},     {"length", LengthFilter}, {"count", LengthFilter},
    {"string", String},   {"int", Int},       {"float", Float},         {"abs", Abs},
    {"round", Round},     {"tojson", ToJson},
};

}  // namespace

const Filter* FindNumberFilter(std::string_view name) {
  for (const Filter& filter : kFilters) {
    if (filter.name == name) return &filter;
  }
  return nullptr;
}

const Filter* FindFilter(std::string_view name) {
  for (auto find : {FindNumberFilter, FindTextFilter, FindSequenceFilter, FindSelectionFilter}) {
    if (const Filter* filter = find(name)) return filter;
  }
  return nullptr;
}

absl::StatusOr<Value> ApplyFilter(Heap& heap, const Filter& filter, const Value& value,
                                  const Arguments& arguments) {
  RETURN_IF_ERROR(heap.Charge(1));
  absl::StatusOr<Value> result = filter.run(heap, value, arguments);
  if (!result.ok()) {
    return absl::Status(result.status().code(), absl::StrCat("filter '", ToAbsl(filter.name),
                                                             "': ", result.status().message()));
  }
  return result->WithUntrusted(value.untrusted());
}

}  // namespace fastgen::jinja
