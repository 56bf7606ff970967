#include "engine/text/jinja_operators.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_methods.h"

namespace fastgen::jinja {
namespace {

std::string_view Sign(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kPower:
      return "**";
    default:
      return "?";
  }
}

absl::Status Overflow(Operator op) {
  return absl::InvalidArgumentError(
      absl::StrCat("the result of ", ToAbsl(Sign(op)), " does not fit into 64 bits"));
}

absl::Status Unsupported(Operator op, const Value& a, const Value& b) {
  if (op == Operator::kAdd && (a.is(Kind::kString) || a.is_list())) {
    absl::string_view type = ToAbsl(TypeName(a.kind()));
    return absl::InvalidArgumentError(absl::StrCat("can only concatenate ", type, " (not \"",
                                                   ToAbsl(TypeName(b.kind())), "\") to ", type));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unsupported operand type(s) for ", ToAbsl(Sign(op)), ": '",
                   ToAbsl(TypeName(a.kind())), "' and '", ToAbsl(TypeName(b.kind())), "'"));
}

absl::StatusOr<int64_t> IntegerPower(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
      return Overflow(Operator::kPower);
    }
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) {
      return Overflow(Operator::kPower);
    }
  }
  return result;
}

absl::StatusOr<Value> CalculateIntegers(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow(op);
      return Value::Int(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return Overflow(op);
      return Value::Int(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow(op);
      return Value::Int(result);
    case Operator::kPower: {
      ASSIGN_OR_RETURN(result, IntegerPower(a, b));
      return Value::Int(result);
    }
    default:
      break;
  }
  if (b == 0) return absl::InvalidArgumentError("division by zero");
  if (op == Operator::kDivide) {
    return Value::Float(static_cast<double>(a) / static_cast<double>(b));
  }
  if (b == -1) {
    if (op == Operator::kModulo) return Value::Int(0);
    if (__builtin_sub_overflow(int64_t{0}, a, &result)) return Overflow(op);
    return Value::Int(result);
  }
  // Python rounds towards minus infinity, C++ towards zero.
  int64_t quotient = a / b;
  int64_t rest = a % b;
  if (rest != 0 && (rest < 0) != (b < 0)) {
    --quotient;
    rest += b;
  }
  return Value::Int(op == Operator::kModulo ? rest : quotient);
}

absl::StatusOr<Value> CalculateFloats(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::Float(a + b);
    case Operator::kSubtract:
      return Value::Float(a - b);
    case Operator::kMultiply:
      return Value::Float(a * b);
    case Operator::kPower: {
      if (a == 0 && b < 0) return absl::InvalidArgumentError("division by zero");
      double result = std::pow(a, b);
      if (!std::isfinite(result) && std::isfinite(a) && std::isfinite(b)) {
        return absl::InvalidArgumentError("the result of ** is not a finite real number");
      }
      return Value::Float(result);
    }
    default:
      break;
  }
  if (b == 0) return absl::InvalidArgumentError("division by zero");
  if (op == Operator::kDivide) return Value::Float(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return Value::Float(op == Operator::kModulo ? rest : std::floor((a - rest) / b + 0.5));
}

absl::StatusOr<Value> Multiply(Heap& heap, const Value& sequence, int64_t count) {
  if (sequence.is(Kind::kString)) return Repeat(heap, sequence.text(), count);
  const std::vector<Value>& items = sequence.list().items;
  std::vector<Value> result;
  if (count > 0 && !items.empty()) {
    if (static_cast<uint64_t>(count) > kMaxSteps / items.size()) {
      return absl::ResourceExhaustedError("the repeated list would be too long");
    }
    RETURN_IF_ERROR(heap.Charge(count * items.size()));
    result.reserve(count * items.size());
    for (int64_t i = 0; i < count; ++i) result.insert(result.end(), items.begin(), items.end());
  }
  ASSIGN_OR_RETURN(Value list, heap.MakeList(std::move(result), sequence.kind()));
  return list.WithUntrusted(sequence.untrusted());
}

absl::StatusOr<Value> Concatenate(Heap& heap, const Value& a, const Value& b) {
  if (a.is(Kind::kString)) {
    TextBuilder out(kMaxTextBytes);
    out.Append(a.text());
    out.Append(b.text());
    return heap.Take(std::move(out));
  }
  RETURN_IF_ERROR(heap.Charge((a.list().items.size() + b.list().items.size()) / 4));
  std::vector<Value> items = a.list().items;
  items.insert(items.end(), b.list().items.begin(), b.list().items.end());
  ASSIGN_OR_RETURN(Value list, heap.MakeList(std::move(items), a.kind()));
  return list.WithUntrusted(a.untrusted() || b.untrusted());
}

}  // namespace

absl::StatusOr<Value> Calculate(Heap& heap, Operator op, const Value& a, const Value& b) {
  if (a.is(Kind::kUndefined)) return UndefinedError(a);
  if (op == Operator::kModulo && a.is(Kind::kString)) {
    if (b.is(Kind::kTuple)) return FormatPercent(heap, a.text(), b.list().items);
    return FormatPercent(heap, a.text(), {b});
  }
  if (b.is(Kind::kUndefined)) return UndefinedError(b);
  if (a.is_number() && b.is_number()) {
    bool integers =
        a.is_integral() && b.is_integral() && !(op == Operator::kPower && b.AsInt() < 0);
    ASSIGN_OR_RETURN(Value result, integers ? CalculateIntegers(op, a.AsInt(), b.AsInt())
                                            : CalculateFloats(op, a.AsFloat(), b.AsFloat()));
    return result.WithUntrusted(a.untrusted() || b.untrusted());
  }
  bool sequence_a = a.is(Kind::kString) || a.is_list();
  bool sequence_b = b.is(Kind::kString) || b.is_list();
  if (op == Operator::kAdd && sequence_a && a.kind() == b.kind()) return Concatenate(heap, a, b);
  if (op == Operator::kMultiply && sequence_a && b.is_integral()) {
    return Multiply(heap, a, b.AsInt());
  }
  if (op == Operator::kMultiply && sequence_b && a.is_integral()) {
    return Multiply(heap, b, a.AsInt());
  }
  return Unsupported(op, a, b);
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.is(Kind::kUndefined)) return UndefinedError(value);
  if (value.is(Kind::kFloat)) return Value::Float(-value.AsFloat(), value.untrusted());
  if (!value.is_integral()) {
    return absl::InvalidArgumentError(
        absl::StrCat("bad operand type for unary -: '", ToAbsl(TypeName(value.kind())), "'"));
  }
  int64_t result = 0;
  if (__builtin_sub_overflow(int64_t{0}, value.AsInt(), &result)) {
    return Overflow(Operator::kSubtract);
  }
  return Value::Int(result, value.untrusted());
}

absl::StatusOr<bool> Contains(Heap& heap, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is(Kind::kString)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "'in <string>' requires string as left operand, not ", ToAbsl(TypeName(item.kind()))));
      }
      RETURN_IF_ERROR(heap.ChargeScan(container.bytes().size()));
      return FindPart(container.bytes(), item.bytes()) != std::string_view::npos;
    case Kind::kDict: {
      ASSIGN_OR_RETURN(const Value* found, FindKey(heap, container.dict(), item));
      return found != nullptr;
    }
    case Kind::kList:
    case Kind::kTuple:
      for (const Value& candidate : container.list().items) {
        ASSIGN_OR_RETURN(bool equal, IsEqual(heap, candidate, item));
        if (equal) return true;
      }
      return false;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "argument of type '", ToAbsl(TypeName(container.kind())), "' is not iterable"));
  }
}

absl::StatusOr<bool> Relate(Heap& heap, Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::kEqual:
      return IsEqual(heap, a, b);
    case Operator::kNotEqual: {
      ASSIGN_OR_RETURN(bool equal, IsEqual(heap, a, b));
      return !equal;
    }
    case Operator::kIn:
      return Contains(heap, b, a);
    case Operator::kNotIn: {
      ASSIGN_OR_RETURN(bool contained, Contains(heap, b, a));
      return !contained;
    }
    default:
      break;
  }
  ASSIGN_OR_RETURN(int order, Compare(heap, a, b));
  switch (op) {
    case Operator::kLess:
      return order < 0;
    case Operator::kLessEqual:
      return order <= 0;
    case Operator::kGreater:
      return order > 0;
    default:
      return order >= 0;
  }
}

}  // namespace fastgen::jinja
