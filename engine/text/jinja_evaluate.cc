// The interpreter's expressions, except calls.
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"
#include "engine/text/jinja_tests.h"

namespace fastgen::jinja {

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression) {
  if (++depth_ > kMaxEvaluationDepth) {
    return Located(expression.at, absl::ResourceExhaustedError(absl::StrCat(
                                      "recursion deeper than ", kMaxEvaluationDepth, " levels")));
  }
  absl::Status charged = heap_.Charge(1);
  absl::StatusOr<Value> value = charged.ok() ? Dispatch(expression) : charged;
  --depth_;
  if (!value.ok()) return Located(expression.at, value.status());
  return value;
}

absl::StatusOr<Value> Interpreter::Dispatch(const Expression& expression) {
  switch (expression.kind) {
    case ExpressionKind::kConstant:
      return expression.constant;
    case ExpressionKind::kName:
      return EvaluateName(expression);
    case ExpressionKind::kBlockBody:
      return block_bodies_.back();
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
      return EvaluateList(expression);
    case ExpressionKind::kDict:
      return EvaluateDict(expression);
    case ExpressionKind::kSlice:
      return EvaluateSlice(expression);
    case ExpressionKind::kCall:
      return EvaluateCall(expression, Value());
    case ExpressionKind::kFilter:
      return EvaluateFilter(expression);
    case ExpressionKind::kTest:
      return EvaluateTest(expression);
    case ExpressionKind::kCompare:
      return EvaluateCompare(expression);
    case ExpressionKind::kConcat:
      return EvaluateConcat(expression);
    case ExpressionKind::kConditional:
      return EvaluateConditional(expression);
    default:
      break;
  }
  ASSIGN_OR_RETURN(Value first, Evaluate(*expression.parts[0]));
  switch (expression.kind) {
    case ExpressionKind::kAttribute:
      return GetAttribute(heap_, first, expression.name);
    case ExpressionKind::kNot:
      return Value::Bool(!IsTrue(first));
    case ExpressionKind::kNegate:
      return Negate(first);
    case ExpressionKind::kPlus:
      return Calculate(heap_, Operator::kAdd, Value::Int(0), first);
    case ExpressionKind::kAnd:
      return IsTrue(first) ? Evaluate(*expression.parts[1]) : first;
    case ExpressionKind::kOr:
      return IsTrue(first) ? first : Evaluate(*expression.parts[1]);
    default:
      break;
  }
  ASSIGN_OR_RETURN(Value second, Evaluate(*expression.parts[1]));
  if (expression.kind == ExpressionKind::kSubscript) return GetItem(heap_, first, second);
  return Calculate(heap_, expression.operators[0], first, second);
}

absl::StatusOr<Value> Interpreter::EvaluateName(const Expression& expression) {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    RETURN_IF_ERROR(heap_.Charge(scope->variables.size() / 16));
    if (const Value* found = scope->Find(expression.name)) return *found;
  }
  return Value::Undefined(expression.name);
}

absl::StatusOr<Value> Interpreter::EvaluateList(const Expression& expression) {
  std::vector<Value> items;
  items.reserve(expression.parts.size());
  for (const ExpressionPtr& part : expression.parts) {
    ASSIGN_OR_RETURN(Value item, Evaluate(*part));
    items.push_back(item);
  }
  return heap_.MakeList(std::move(items),
                        expression.kind == ExpressionKind::kTuple ? Kind::kTuple : Kind::kList);
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expression& expression) {
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i < expression.parts.size(); i += 2) {
    ASSIGN_OR_RETURN(Value key, Evaluate(*expression.parts[i]));
    ASSIGN_OR_RETURN(Value value, Evaluate(*expression.parts[i + 1]));
    entries.emplace_back(key, value);
  }
  return heap_.MakeDict(std::move(entries));
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expression& expression) {
  ASSIGN_OR_RETURN(Value value, Evaluate(*expression.parts[0]));
  SliceBounds bounds;
  std::optional<int64_t>* places[] = {&bounds.start, &bounds.stop, &bounds.step};
  for (int i = 0; i < 3; ++i) {
    if (expression.parts[i + 1] == nullptr) continue;
    ASSIGN_OR_RETURN(Value bound, Evaluate(*expression.parts[i + 1]));
    if (bound.is(Kind::kNone)) continue;
    if (!bound.is_integral()) {
      return absl::InvalidArgumentError(absl::StrCat("slice indices must be integers, not '",
                                                     ToAbsl(TypeName(bound.kind())), "'"));
    }
    *places[i] = bound.AsInt();
  }
  return GetSlice(heap_, value, bounds);
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expression& expression) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*expression.parts[0]));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, Evaluate(*expression.parts[i + 1]));
    ASSIGN_OR_RETURN(bool holds, Relate(heap_, expression.operators[i], left, right));
    if (!holds) return Value::Bool(false);
    left = right;
  }
  return Value::Bool(true);
}

absl::StatusOr<Value> Interpreter::EvaluateConcat(const Expression& expression) {
  TextBuilder out(kMaxTextBytes);
  for (const ExpressionPtr& part : expression.parts) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*part));
    RETURN_IF_ERROR(AppendString(heap_, value, out));
  }
  return heap_.Take(std::move(out));
}

absl::StatusOr<Value> Interpreter::EvaluateConditional(const Expression& expression) {
  ASSIGN_OR_RETURN(Value condition, Evaluate(*expression.parts[1]));
  if (IsTrue(condition)) return Evaluate(*expression.parts[0]);
  if (expression.parts[2] == nullptr) return Value();
  return Evaluate(*expression.parts[2]);
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const Expression& expression) {
  Arguments arguments;
  for (size_t i = 1; i < expression.parts.size(); ++i) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*expression.parts[i]));
    arguments.positional.push_back(value);
  }
  for (const auto& [name, part] : expression.named) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*part));
    arguments.named.emplace_back(name, value);
  }
  RETURN_IF_ERROR(UnpackArguments(expression, arguments));
  return arguments;
}

absl::Status Interpreter::UnpackArguments(const Expression& expression, Arguments& arguments) {
  if (expression.star != nullptr) {
    ASSIGN_OR_RETURN(Value star, Evaluate(*expression.star));
    ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap_, star));
    arguments.positional.insert(arguments.positional.end(), items.begin(), items.end());
  }
  if (expression.double_star != nullptr) {
    ASSIGN_OR_RETURN(Value mapping, Evaluate(*expression.double_star));
    if (!mapping.is(Kind::kDict)) return absl::InvalidArgumentError("** needs a mapping");
    RETURN_IF_ERROR(heap_.Charge(mapping.dict().entries.size()));
    for (const auto& [key, value] : mapping.dict().entries) {
      if (!key.is(Kind::kString)) return absl::InvalidArgumentError("keywords must be strings");
      arguments.named.emplace_back(&key.text(), value);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::EvaluateFilter(const Expression& expression) {
  ASSIGN_OR_RETURN(Value value, Evaluate(*expression.parts[0]));
  ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expression));
  return ApplyFilter(heap_, *expression.filter, value, arguments);
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const Expression& expression) {
  ASSIGN_OR_RETURN(Value value, Evaluate(*expression.parts[0]));
  ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expression));
  ASSIGN_OR_RETURN(bool holds, ApplyTest(heap_, *expression.test, value, arguments));
  return Value::Bool(holds);
}

}  // namespace fastgen::jinja
