#include "engine/text/jinja_interpreter.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_print.h"

namespace fastgen::jinja {

const Value* Scope::Find(const Text* name) const {
  for (const auto& [key, value] : variables) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Scope::Set(const Text* name, const Value& value) {
  for (auto& [key, old] : variables) {
    if (key == name) {
      old = value;
      return;
    }
  }
  variables.emplace_back(name, value);
}

Interpreter::Interpreter(const SyntaxTree& tree, Heap* heap, absl::Time now)
    : tree_(tree), heap_(*heap), now_(now) {
  scope_ = NewScope(nullptr);
  SetGlobal("range", Value::Of(Function::kRange));
  SetGlobal("dict", Value::Of(Function::kDict));
  SetGlobal("namespace", Value::Of(Function::kNamespace));
  SetGlobal("raise_exception", Value::Of(Function::kRaiseException));
  SetGlobal("strftime_now", Value::Of(Function::kStrftimeNow));
}

void Interpreter::SetGlobal(std::string_view name, const Value& value) {
  if (const Text* known = tree_.FindName(name)) scope_->Set(known, value);
}

absl::StatusOr<std::pair<std::string, std::vector<ByteRange>>> Interpreter::Run() {
  TextBuilder output(kMaxTextBytes);
  out_ = &output;
  // What the template assigns goes to a scope above the globals, so that macros see both.
  scope_ = NewScope(scope_);
  RETURN_IF_ERROR(Execute(tree_.body).status());
  return output.Take();
}

absl::Status Interpreter::Located(Position at, const absl::Status& status) {
  if (failed_) return status;
  failed_ = true;
  return ErrorAt(at, status);
}

Scope* Interpreter::NewScope(Scope* parent) {
  // A failed charge shows at the next step.
  heap_.ChargeBytes(sizeof(Scope)).IgnoreError();
  scopes_.push_back({parent, {}});
  return &scopes_.back();
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Block& block) {
  for (const auto& statement : block) {
    ASSIGN_OR_RETURN(Flow flow, ExecuteOne(*statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteOne(const Statement& statement) {
  if (++depth_ > kMaxEvaluationDepth) {
    return Located(statement.at, absl::ResourceExhaustedError(absl::StrCat(
                                     "recursion deeper than ", kMaxEvaluationDepth, " levels")));
  }
  absl::Status charged = heap_.Charge(1);
  absl::StatusOr<Flow> flow = charged.ok() ? Dispatch(statement) : charged;
  --depth_;
  if (!flow.ok()) return Located(statement.at, flow.status());
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Dispatch(const Statement& statement) {
  switch (statement.kind) {
    case StatementKind::kData:
      RETURN_IF_ERROR(Output(Value::String(statement.data)));
      return Flow::kNext;
    case StatementKind::kOutput: {
      ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expression));
      RETURN_IF_ERROR(Output(value));
      return Flow::kNext;
    }
    case StatementKind::kIf:
      return ExecuteIf(statement);
    case StatementKind::kFor: {
      ASSIGN_OR_RETURN(Value iterable, Evaluate(*statement.loop->iterable));
      RETURN_IF_ERROR(ExecuteFor(*statement.loop, iterable, 0));
      return Flow::kNext;
    }
    case StatementKind::kSet: {
      ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expression));
      RETURN_IF_ERROR(Assign(*statement.target, value));
      return Flow::kNext;
    }
    case StatementKind::kSetBlock:
      RETURN_IF_ERROR(ExecuteSetBlock(statement));
      return Flow::kNext;
    case StatementKind::kMacro:
      macros_.push_back({statement.macro.get(), scope_});
      RETURN_IF_ERROR(heap_.ChargeBytes(sizeof(Macro)));
      scope_->Set(statement.macro->name, Value::Of(&macros_.back()));
      return Flow::kNext;
    case StatementKind::kCall:
      RETURN_IF_ERROR(ExecuteCallBlock(statement));
      return Flow::kNext;
    case StatementKind::kFilterBlock:
      RETURN_IF_ERROR(ExecuteFilterBlock(statement));
      return Flow::kNext;
    case StatementKind::kScope:
      return ExecuteScope(statement);
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

absl::Status Interpreter::CheckOutput(size_t size_before) {
  if (out_->overflowed()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the output is longer than ", kMaxTextBytes, " bytes"));
  }
  return heap_.ChargeBytes(out_->size() - size_before);
}

absl::Status Interpreter::Output(const Value& value) {
  size_t size_before = out_->size();
  RETURN_IF_ERROR(AppendString(heap_, value, *out_));
  return CheckOutput(size_before);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(const Statement& statement) {
  for (size_t i = 0; i < statement.blocks.size(); ++i) {
    if (i < statement.conditions.size()) {
      ASSIGN_OR_RETURN(Value condition, Evaluate(*statement.conditions[i]));
      if (!IsTrue(condition)) continue;
    }
    return Execute(statement.blocks[i]);
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteScope(const Statement& statement) {
  Scope* inner = NewScope(scope_);
  for (size_t i = 0; i < statement.targets.size(); ++i) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*statement.conditions[i]));
    inner->Set(statement.targets[i]->name, value);
  }
  Scope* outer = std::exchange(scope_, inner);
  absl::StatusOr<Flow> flow = Execute(statement.blocks[0]);
  scope_ = outer;
  return flow;
}

absl::StatusOr<std::vector<Value>> Interpreter::SelectItems(const ForStatement& statement,
                                                            std::vector<Value> items) {
  if (statement.condition == nullptr) return items;
  std::vector<Value> selected;
  Scope* inner = NewScope(scope_);
  Scope* outer = std::exchange(scope_, inner);
  for (const Value& item : items) {
    inner->variables.clear();
    RETURN_IF_ERROR(Assign(*statement.target, item));
    ASSIGN_OR_RETURN(Value condition, Evaluate(*statement.condition));
    if (IsTrue(condition)) selected.push_back(item);
  }
  scope_ = outer;
  return selected;
}

absl::Status Interpreter::ExecuteFor(const ForStatement& statement, const Value& iterable,
                                     int level) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap_, iterable));
  ASSIGN_OR_RETURN(items, SelectItems(statement, std::move(items)));
  RETURN_IF_ERROR(heap_.ChargeBytes(items.size() * sizeof(Value)));
  Scope* outer = scope_;
  Scope* inner = NewScope(outer);
  scope_ = inner;
  absl::Status status;
  if (items.empty()) {
    status = Execute(statement.otherwise).status();
  } else {
    Loop* loop = heap_.MakeLoop();
    loop->items = std::move(items);
    loop->level = level;
    loop->outer = outer;
    if (statement.recursive) loop->recursive = &statement;
    status = RunLoop(statement, loop);
  }
  scope_ = outer;
  return status;
}

absl::Status Interpreter::RunLoop(const ForStatement& statement, Loop* loop) {
  bool ran_through = false;
  for (; loop->index < loop->items.size(); ++loop->index) {
    RETURN_IF_ERROR(heap_.Charge(1));
    scope_->variables.clear();
    scope_->Set(tree_.names.loop, Value::Of(loop));
    RETURN_IF_ERROR(Assign(*statement.target, loop->items[loop->index]));
    ASSIGN_OR_RETURN(Flow flow, Execute(statement.body));
    if (flow == Flow::kBreak) break;
    ran_through = ran_through || flow == Flow::kNext;
  }
  if (ran_through) return absl::OkStatus();
  // As Jinja has it: the else block stands in where no pass came to the end of the body.
  scope_ = loop->outer;
  return Execute(statement.otherwise).status();
}

absl::Status Interpreter::Assign(const Expression& target, const Value& value) {
  if (target.kind == ExpressionKind::kName) {
    scope_->Set(target.name, value);
    return heap_.Charge(1 + scope_->variables.size() / 16);
  }
  if (target.kind == ExpressionKind::kAttribute) {
    ASSIGN_OR_RETURN(Value object, Evaluate(*target.parts[0]));
    if (!object.is(Kind::kNamespace)) {
      return absl::InvalidArgumentError("cannot assign attribute on non-namespace object");
    }
    Namespace& ns = object.name_space();
    RETURN_IF_ERROR(heap_.Charge(1 + ns.attributes.size() / 16));
    if (Value* known = ns.Find(target.name->bytes)) {
      *known = value;
    } else {
      ns.attributes.emplace_back(target.name->bytes, value);
    }
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap_, value));
  if (items.size() != target.parts.size()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot unpack ", items.size(), " values into ",
                                                   target.parts.size(), " names"));
  }
  for (size_t i = 0; i < items.size(); ++i) {
    RETURN_IF_ERROR(Assign(*target.parts[i], items[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::Capture(const Block& block, Scope* scope) {
  TextBuilder captured(kMaxTextBytes);
  TextBuilder* outer_out = std::exchange(out_, &captured);
  Scope* outer_scope = std::exchange(scope_, scope);
  absl::Status status = Execute(block).status();
  out_ = outer_out;
  scope_ = outer_scope;
  RETURN_IF_ERROR(status);
  return heap_.Take(std::move(captured));
}

absl::Status Interpreter::ExecuteSetBlock(const Statement& statement) {
  ASSIGN_OR_RETURN(Value value, Capture(statement.blocks[0], NewScope(scope_)));
  if (statement.expression != nullptr) {
    block_bodies_.push_back(value);
    ASSIGN_OR_RETURN(value, Evaluate(*statement.expression));
    block_bodies_.pop_back();
  }
  return Assign(*statement.target, value);
}

absl::Status Interpreter::ExecuteFilterBlock(const Statement& statement) {
  ASSIGN_OR_RETURN(Value value, Capture(statement.blocks[0], NewScope(scope_)));
  block_bodies_.push_back(value);
  ASSIGN_OR_RETURN(value, Evaluate(*statement.expression));
  block_bodies_.pop_back();
  return Output(value);
}

absl::Status Interpreter::ExecuteCallBlock(const Statement& statement) {
  macros_.push_back({statement.macro.get(), scope_});
  RETURN_IF_ERROR(heap_.ChargeBytes(sizeof(Macro)));
  ASSIGN_OR_RETURN(Value value, EvaluateCall(*statement.expression, Value::Of(&macros_.back())));
  return Output(value);
}

}  // namespace fastgen::jinja
