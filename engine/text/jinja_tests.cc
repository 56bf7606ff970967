#include "engine/text/jinja_tests.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_operators.h"

namespace fastgen::jinja {
namespace {

using Result = absl::StatusOr<bool>;
using Args = const Arguments&;

absl::StatusOr<Value> Remainder(Heap& heap, const Value& value, const Value& divisor) {
  return Calculate(heap, Operator::kModulo, value, divisor);
}

Result HasRemainder(Heap& heap, const Value& value, const Value& divisor, int64_t wanted) {
  if (!value.is_number()) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs a number, not '", ToAbsl(TypeName(value.kind())), "'"));
  }
  ASSIGN_OR_RETURN(Value rest, Remainder(heap, value, divisor));
  return rest.AsFloat() == static_cast<double>(wanted);
}

template <Operator op>
Result Compared(Heap& heap, const Value& value, Args arguments) {
  return Relate(heap, op, value, arguments.positional[0]);
}

template <Kind kind>
Result IsKind(Heap&, const Value& value, Args) {
  return value.is(kind);
}

bool IsBool(const Value& value, bool wanted) {
  return value.is(Kind::kBool) && value.as_bool() == wanted;
}

bool IsSized(const Value& value) {
  return value.is(Kind::kString) || value.is_list() || value.is(Kind::kDict) ||
         value.is(Kind::kUndefined);
}

// Whether the text has letters and all are in the case that `change` leaves alone.
Result IsInCase(Heap& heap, const Value& value, char32_t (*change)(char32_t),
                char32_t (*other)(char32_t)) {
  if (!value.is(Kind::kString)) return false;
  bool cased = false;
  bool holds = true;
  size_t at = 0;
  while (holds && at < value.bytes().size()) {
    Character c = DecodeAt(value.bytes(), at);
    holds = change(c.code) == c.code;
    cased = cased || other(c.code) != c.code;
    at += c.size;
  }
  RETURN_IF_ERROR(heap.ChargeScan(at));
  return holds && cased;
}

// `is` on the singletons, identity on objects; for numbers and strings equality of value and type.
Result IsSame(Heap& heap, const Value& value, Args arguments) {
  const Value& other = arguments.positional[0];
  if (value.kind() != other.kind()) return false;
  if (value.is_list()) return &value.list() == &other.list();
  if (value.is(Kind::kDict)) return &value.dict() == &other.dict();
  return IsEqual(heap, value, other);
}

constexpr Test kTests[] = {
    {"defined", [](Heap&, const Value& v, Args) -> Result { return !v.is(Kind::kUndefined); }},
    {"undefined", IsKind<Kind::kUndefined>},
    {"none", IsKind<Kind::kNone>},
    {"boolean", IsKind<Kind::kBool>},
    {"integer", IsKind<Kind::kInt>},
    {"float", IsKind<Kind::kFloat>},
    {"number", [](Heap&, const Value& v, Args) -> Result { return v.is_number(); }},
    {"string", IsKind<Kind::kString>},
    {"mapping", IsKind<Kind::kDict>},
    {"sequence", [](Heap&, const Value& v, Args) -> Result { return IsSized(v); }},
    {"iterable",
     [](Heap&, const Value& v, Args) -> Result { return IsSized(v) || v.is(Kind::kLoop); }},
    {"callable", [](Heap&, const Value& v, Args) -> Result { return v.is_callable(); }},
    {"true", [](Heap&, const Value& v, Args) -> Result { return IsBool(v, true); }},
    {"false", [](Heap&, const Value& v, Args) -> Result { return IsBool(v, false); }},
    {"odd", [](Heap& h, const Value& v, Args) { return HasRemainder(h, v, Value::Int(2), 1); }},
    {"even", [](Heap& h, const Value& v, Args) { return HasRemainder(h, v, Value::Int(2), 0); }},
    {"divisibleby",
     [](Heap& h, const Value& v, Args a) { return HasRemainder(h, v, a.positional[0], 0); }, 1},
    {"lower", [](Heap& h, const Value& v, Args) { return IsInCase(h, v, LowerOf, UpperOf); }},
    {"upper", [](Heap& h, const Value& v, Args) { return IsInCase(h, v, UpperOf, LowerOf); }},
    {"escaped", [](Heap&, const Value&, Args) -> Result { return false; }},
    {"sameas", IsSame, 1},
    {"in", Compared<Operator::kIn>, 1},
    {"eq", Compared<Operator::kEqual>, 1},
    {"equalto", Compared<Operator::kEqual>, 1},
    {"==", Compared<Operator::kEqual>, 1},
    {"ne", Compared<Operator::kNotEqual>, 1},
    {"!=", Compared<Operator::kNotEqual>, 1},
    {"lt", Compared<Operator::kLess>, 1},
    {"lessthan", Compared<Operator::kLess>, 1},
    {"<", Compared<Operator::kLess>, 1},
    {"le", Compared<Operator::kLessEqual>, 1},
    {"<=", Compared<Operator::kLessEqual>, 1},
    {"gt", Compared<Operator::kGreater>, 1},
    {"greaterthan", Compared<Operator::kGreater>, 1},
    {">", Compared<Operator::kGreater>, 1},
    {"ge", Compared<Operator::kGreaterEqual>, 1},
    {">=", Compared<Operator::kGreaterEqual>, 1},
    {"filter",
     [](Heap&, const Value& v, Args) -> Result {
       return v.is(Kind::kString) && FindFilter(v.bytes()) != nullptr;
     }},
    {"test",
     [](Heap&, const Value& v, Args) -> Result {
       return v.is(Kind::kString) && FindTest(v.bytes()) != nullptr;
     }},
};

}  // namespace

const Test* FindTest(std::string_view name) {
  for (const Test& test : kTests) {
    if (test.name == name) return &test;
  }
  return nullptr;
}

absl::StatusOr<bool> ApplyTest(Heap& heap, const Test& test, const Value& value,
                               const Arguments& arguments) {
  RETURN_IF_ERROR(heap.Charge(1));
  if (arguments.positional.size() != test.num_arguments || !arguments.named.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("test '", ToAbsl(test.name), "' takes ", test.num_arguments,
                     " arguments, got ", arguments.positional.size() + arguments.named.size()));
  }
  return test.run(heap, value, arguments);
}

}  // namespace fastgen::jinja
