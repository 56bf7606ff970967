// The interpreter's calls: macros, methods, loops and the global functions.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_print.h"

namespace fastgen::jinja {

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expression& expression, const Value& caller) {
  ASSIGN_OR_RETURN(Value callee, Evaluate(*expression.parts[0]));
  ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expression));
  return Call(callee, arguments, caller);
}

absl::StatusOr<Value> Interpreter::Call(const Value& callee, const Arguments& arguments,
                                        const Value& caller) {
  switch (callee.kind()) {
    case Kind::kMacro:
      return CallMacro(callee.macro(), arguments, caller);
    case Kind::kFunction:
      return CallFunction(callee.function(), arguments);
    case Kind::kLoop:
      return CallLoop(callee.loop(), arguments);
    case Kind::kUndefined:
      return UndefinedError(callee);
    case Kind::kMethod: {
      const Method& method = callee.method();
      absl::StatusOr<Value> result =
          method.self.is(Kind::kLoop) ? CallLoopMethod(method.self.loop(), method.name, arguments)
                                      : CallMethod(heap_, method.self, method.name, arguments);
      if (result.ok()) return result;
      return absl::Status(result.status().code(),
                          absl::StrCat(ToAbsl(method.name), "(): ", result.status().message()));
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("'", ToAbsl(TypeName(callee.kind())), "' object is not callable"));
  }
}

absl::StatusOr<Value> Interpreter::CallMacro(const Macro& macro, const Arguments& arguments,
                                             const Value& caller) {
  Scope* inner = NewScope(macro.scope);
  Scope* outer = std::exchange(scope_, inner);
  if (caller.is(Kind::kMacro)) inner->Set(tree_.names.caller, caller);
  absl::Status bound = BindParameters(*macro.definition, arguments);
  scope_ = outer;
  RETURN_IF_ERROR(bound);
  return Capture(macro.definition->body, inner);
}

// Binds into the current scope. A parameter without argument and default is undefined.
absl::Status Interpreter::BindParameters(const MacroDefinition& macro, const Arguments& arguments) {
  const size_t num_parameters = macro.parameters.size();
  if (arguments.positional.size() > num_parameters && !macro.uses_varargs) {
    return absl::InvalidArgumentError(
        absl::StrCat("macro '", ToAbsl(macro.name->bytes), "' takes not more than ", num_parameters,
                     " arguments, got ", arguments.positional.size()));
  }
  RETURN_IF_ERROR(heap_.Charge(num_parameters * (1 + arguments.named.size())));
  for (size_t i = 0; i < num_parameters; ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    Value value = Value::Undefined(name);
    if (const Value* given = arguments.Find(i, name->bytes)) {
      value = *given;
    } else if (fallback != nullptr) {
      ASSIGN_OR_RETURN(value, Evaluate(*fallback));
    }
    scope_->Set(name, value);
  }
  std::vector<std::pair<Value, Value>> others;
  for (const auto& [name, value] : arguments.named) {
    auto is_name = [&](const auto& parameter) { return parameter.first->bytes == name->bytes; };
    if (std::any_of(macro.parameters.begin(), macro.parameters.end(), is_name)) continue;
    if (!macro.uses_kwargs) {
      return absl::InvalidArgumentError(absl::StrCat("macro '", ToAbsl(macro.name->bytes),
                                                     "' takes no argument named '",
                                                     ToAbsl(name->bytes.substr(0, 100)), "'"));
    }
    others.emplace_back(Value::String(name), value);
  }
  if (macro.uses_kwargs) {
    ASSIGN_OR_RETURN(Value kwargs, heap_.MakeDict(std::move(others)));
    scope_->Set(tree_.names.kwargs, kwargs);
  }
  if (macro.uses_varargs) {
    size_t first = std::min(num_parameters, arguments.positional.size());
    ASSIGN_OR_RETURN(Value varargs, heap_.MakeList({arguments.positional.begin() + first,
                                                    arguments.positional.end()},
                                                   Kind::kTuple));
    scope_->Set(tree_.names.varargs, varargs);
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::CallLoop(Loop& loop, const Arguments& arguments) {
  if (loop.recursive == nullptr) {
    return absl::InvalidArgumentError("loop() needs a for block marked 'recursive'");
  }
  RETURN_IF_ERROR(arguments.Check({"iterable"}));
  const Value* iterable = arguments.Find(0, "iterable");
  if (iterable == nullptr) return absl::InvalidArgumentError("loop() needs something to iterate");
  TextBuilder captured(kMaxTextBytes);
  TextBuilder* outer_out = std::exchange(out_, &captured);
  Scope* outer_scope = std::exchange(scope_, loop.outer);
  absl::Status status = ExecuteFor(*loop.recursive, *iterable, loop.level + 1);
  out_ = outer_out;
  scope_ = outer_scope;
  RETURN_IF_ERROR(status);
  return heap_.Take(std::move(captured));
}

absl::StatusOr<Value> Interpreter::CallLoopMethod(Loop& loop, std::string_view name,
                                                  const Arguments& arguments) {
  if (name == "cycle") {
    if (arguments.positional.empty()) return absl::InvalidArgumentError("needs arguments");
    return arguments.positional[loop.index % arguments.positional.size()];
  }
  bool changed = loop.last_changed.size() != arguments.positional.size() || loop.index == 0;
  for (size_t i = 0; i < arguments.positional.size() && !changed; ++i) {
    ASSIGN_OR_RETURN(bool equal, IsEqual(heap_, loop.last_changed[i], arguments.positional[i]));
    changed = !equal;
  }
  loop.last_changed = arguments.positional;
  return Value::Bool(changed);
}

absl::StatusOr<Value> Interpreter::CallFunction(Function function, const Arguments& arguments) {
  switch (function) {
    case Function::kRange:
      return MakeRange(arguments);
    case Function::kDict:
      return MakeMapping(arguments);
    case Function::kNamespace:
      return MakeNamespace(arguments);
    case Function::kStrftimeNow:
      return FormatNow(arguments);
    case Function::kRaiseException:
      break;
  }
  RETURN_IF_ERROR(arguments.Check({"message"}));
  const Value* message = arguments.Find(0, "message");
  if (message == nullptr) return absl::InvalidArgumentError("raise_exception() needs a message");
  ASSIGN_OR_RETURN(Value text, ToString(heap_, *message));
  constexpr size_t kMaxMessageBytes = 1000;
  return absl::InvalidArgumentError(ToAbsl(text.bytes().substr(0, kMaxMessageBytes)));
}

absl::StatusOr<Value> Interpreter::MakeRange(const Arguments& arguments) {
  if (arguments.positional.empty() || arguments.positional.size() > 3 || !arguments.named.empty()) {
    return absl::InvalidArgumentError("range() takes one to three integers");
  }
  int64_t bounds[3] = {0, 0, 1};
  size_t first = arguments.positional.size() == 1 ? 1 : 0;
  bool untrusted = false;
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    ASSIGN_OR_RETURN(bounds[first + i], arguments.FindInt(i, "bound", 0));
    untrusted = untrusted || arguments.positional[i].untrusted();
  }
  auto [start, stop, step] = bounds;
  if (step == 0) return absl::InvalidArgumentError("range() step must not be zero");
  // Wide enough for any two 64-bit bounds.
  __int128 span =
      step > 0 ? static_cast<__int128>(stop) - start : static_cast<__int128>(start) - stop;
  __int128 stride = step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step);
  __int128 count = span > 0 ? (span + stride - 1) / stride : 0;
  if (count > kMaxRange) {
    return absl::ResourceExhaustedError(absl::StrCat("range() of more than ", kMaxRange, " items"));
  }
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) {
    items.push_back(Value::Int(start + i * step, untrusted));
  }
  return heap_.MakeList(std::move(items));
}

absl::StatusOr<Value> Interpreter::MakeMapping(const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> entries;
  if (arguments.positional.size() > 1) {
    return absl::InvalidArgumentError("dict() takes at most one mapping");
  }
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Kind::kDict)) {
      entries = source.dict().entries;
    } else {
      ASSIGN_OR_RETURN(std::vector<Value> pairs, Iterate(heap_, source));
      for (const Value& pair : pairs) {
        if (!pair.is_list() || pair.list().items.size() != 2) {
          return absl::InvalidArgumentError("dict() needs a mapping or pairs");
        }
        entries.emplace_back(pair.list().items[0], pair.list().items[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) {
    entries.emplace_back(Value::String(name), value);
  }
  ASSIGN_OR_RETURN(Value mapping, heap_.MakeDict(std::move(entries)));
  return mapping.WithUntrusted(!arguments.positional.empty() &&
                               arguments.positional[0].untrusted());
}

absl::StatusOr<Value> Interpreter::MakeNamespace(const Arguments& arguments) {
  ASSIGN_OR_RETURN(Value mapping, MakeMapping(arguments));
  Namespace* made = heap_.MakeNamespace();
  for (const auto& [key, value] : mapping.dict().entries) {
    if (!key.is(Kind::kString)) {
      return absl::InvalidArgumentError("namespace() needs names that are strings");
    }
    made->attributes.emplace_back(key.bytes(), value);
  }
  RETURN_IF_ERROR(heap_.Charge(made->attributes.size()));
  RETURN_IF_ERROR(heap_.ChargeBytes(made->attributes.size() * (sizeof(Value) + 16)));
  return Value::Of(made);
}

// Only plain conversions pass: widths and the like are the C library's to interpret.
absl::StatusOr<Value> Interpreter::FormatNow(const Arguments& arguments) {
  RETURN_IF_ERROR(arguments.Check({"format"}));
  ASSIGN_OR_RETURN(const Text* format, arguments.FindText(0, "format"));
  if (format == nullptr) return absl::InvalidArgumentError("strftime_now() needs a format");
  constexpr size_t kMaxFormatBytes = 256;
  std::string_view bytes = format->bytes;
  if (bytes.size() > kMaxFormatBytes || bytes.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("strftime_now() takes formats of at most ", kMaxFormatBytes, " bytes"));
  }
  constexpr std::string_view kConversions = "aAbBcCdDeFgGhHIjklmMnprRsSTuUVwWxXyYzZ%";
  for (size_t at = bytes.find('%'); at != std::string_view::npos; at = bytes.find('%', at + 2)) {
    if (bytes.substr(at + 1, 1) == "-") ++at;
    if (at + 1 >= bytes.size() || kConversions.find(bytes[at + 1]) == std::string_view::npos) {
      return absl::InvalidArgumentError("strftime_now() does not know this conversion");
    }
  }
  std::string text = absl::FormatTime(ToAbsl(bytes), now_, absl::LocalTimeZone());
  return heap_.Copy(text, format->any_untrusted());
}

}  // namespace fastgen::jinja
