// The interpreter: walks a SyntaxTree with a context and collects the text.
//
// Scopes are Jinja's: for, macro, call, with, filter and block set open one, if does not; an
// assignment goes to the innermost, a lookup goes outwards lexically, and every iteration starts
// with an empty scope.
// Invariants: 1. every evaluation is charged to the heap, and recursion is bounded by
// kMaxEvaluationDepth; 2. the first error ends the render; it gets the position of the innermost
// node that met it.
// Thread rule: one render, one thread; the tree is shared and immutable.
// Tested by tests/engine/text/chat_template_golden_test.cc and jinja_sandbox_test.cc.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

// Some 120 nested macro calls; together they need less than 1 MiB of stack (2 MiB under ASan).
inline constexpr int kMaxEvaluationDepth = 600;

struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<const Text*, Value>> variables;

  const Value* Find(const Text* name) const;
  void Set(const Text* name, const Value& value);
};

struct Macro {
  const MacroDefinition* definition = nullptr;
  Scope* scope = nullptr;  // where it was defined
};

class Interpreter {
 public:
  // Both must outlive the interpreter. `now` serves strftime_now.
  Interpreter(const SyntaxTree& tree, Heap* heap, absl::Time now);

  // Names that the template never mentions are dropped.
  void SetGlobal(std::string_view name, const Value& value);

  absl::StatusOr<std::pair<std::string, std::vector<ByteRange>>> Run();

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // Statements: jinja_interpreter.cc.
  absl::StatusOr<Flow> Execute(const Block& block);
  absl::StatusOr<Flow> ExecuteOne(const Statement& statement);
  absl::StatusOr<Flow> Dispatch(const Statement& statement);
  absl::StatusOr<Flow> ExecuteIf(const Statement& statement);
  absl::StatusOr<Flow> ExecuteScope(const Statement& statement);
  absl::Status ExecuteFor(const ForStatement& statement, const Value& iterable, int level);
  absl::Status RunLoop(const ForStatement& statement, Loop* loop);
  absl::StatusOr<std::vector<Value>> SelectItems(const ForStatement& statement,
                                                 std::vector<Value> items);
  absl::Status ExecuteSetBlock(const Statement& statement);
  absl::Status ExecuteFilterBlock(const Statement& statement);
  absl::Status ExecuteCallBlock(const Statement& statement);
  absl::Status Assign(const Expression& target, const Value& value);
  absl::Status Output(const Value& value);
  absl::Status CheckOutput(size_t size_before);
  // The text that `block` makes in a scope of its own.
  absl::StatusOr<Value> Capture(const Block& block, Scope* scope);
  Scope* NewScope(Scope* parent);

  // Expressions: jinja_evaluate.cc.
  absl::StatusOr<Value> Evaluate(const Expression& expression);
  absl::StatusOr<Value> Dispatch(const Expression& expression);
  absl::StatusOr<Value> EvaluateName(const Expression& expression);
  absl::StatusOr<Value> EvaluateList(const Expression& expression);
  absl::StatusOr<Value> EvaluateDict(const Expression& expression);
  absl::StatusOr<Value> EvaluateSlice(const Expression& expression);
  absl::StatusOr<Value> EvaluateCompare(const Expression& expression);
  absl::StatusOr<Value> EvaluateConcat(const Expression& expression);
  absl::StatusOr<Value> EvaluateConditional(const Expression& expression);
  absl::StatusOr<Value> EvaluateFilter(const Expression& expression);
  absl::StatusOr<Value> EvaluateTest(const Expression& expression);
  absl::StatusOr<Arguments> EvaluateArguments(const Expression& expression);
  absl::Status UnpackArguments(const Expression& expression, Arguments& arguments);

  // Calls: jinja_calls.cc. `caller` is what a call block passes, or undefined.
  absl::StatusOr<Value> EvaluateCall(const Expression& expression, const Value& caller);
  absl::StatusOr<Value> Call(const Value& callee, const Arguments& arguments, const Value& caller);
  absl::StatusOr<Value> CallMacro(const Macro& macro, const Arguments& arguments,
                                  const Value& caller);
  absl::Status BindParameters(const MacroDefinition& macro, const Arguments& arguments);
  absl::StatusOr<Value> CallLoop(Loop& loop, const Arguments& arguments);
  absl::StatusOr<Value> CallLoopMethod(Loop& loop, std::string_view name,
                                       const Arguments& arguments);
  absl::StatusOr<Value> CallFunction(Function function, const Arguments& arguments);
  absl::StatusOr<Value> MakeRange(const Arguments& arguments);
  absl::StatusOr<Value> MakeMapping(const Arguments& arguments);
  absl::StatusOr<Value> MakeNamespace(const Arguments& arguments);
  absl::StatusOr<Value> FormatNow(const Arguments& arguments);

  // Gives an error its position unless it has one.
  absl::Status Located(Position at, const absl::Status& status);

  const SyntaxTree& tree_;
  Heap& heap_;
  absl::Time now_;
  std::deque<Scope> scopes_;
  std::deque<Macro> macros_;
  Scope* scope_ = nullptr;
  TextBuilder* out_ = nullptr;
  std::vector<Value> block_bodies_;
  int depth_ = 0;
  bool failed_ = false;
};

}  // namespace fastgen::jinja
