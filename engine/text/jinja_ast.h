// The syntax tree of a template, and the Program that owns it.
//
// Names are interned: the same name is the same pointer, so that scopes compare pointers. Literals
// live in the program's own Heap.
// Invariant: blocks and brackets nest at most kMaxSyntaxNesting deep, expressions at most
// kMaxExpressionDepth (chains of operators count), so that recursion over the tree is bounded.
// Thread rule: immutable once parsed.
// Tested by tests/engine/text/jinja_sandbox_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/jinja_lexer.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

inline constexpr int kMaxSyntaxNesting = 100;
inline constexpr int kMaxExpressionDepth = 200;

struct Filter;
struct Test;

enum class ExpressionKind : uint8_t {
  kConstant,     // constant
  kName,         // name
  kList,         // parts
  kTuple,        // parts
  kDict,         // parts: key, value, key, value
  kAttribute,    // parts[0].name
  kSubscript,    // parts[0][parts[1]]
  kSlice,        // parts[0][parts[1]:parts[2]:parts[3]], each of the last three may be null
  kCall,         // parts[0](parts[1]..., named)
  kFilter,       // parts[0] | filter(parts[1]..., named)
  kTest,         // parts[0] is test(parts[1]...)
  kNot,          // parts[0]
  kNegate,       // parts[0]
  kPlus,         // parts[0]
  kBinary,       // parts[0] operators[0] parts[1]
  kCompare,      // parts[0] operators[0] parts[1] operators[1] parts[2]...
  kAnd,          // parts[0], parts[1]
  kOr,           // parts[0], parts[1]
  kConcat,       // parts
  kConditional,  // parts[0] if parts[1] else parts[2], which may be null
  kBlockBody,    // the text of the filter or set block around it
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  Position at;
  int depth = 1;
  Value constant;
  const Text* name = nullptr;
  std::vector<ExpressionPtr> parts;
  std::vector<Operator> operators;
  std::vector<std::pair<const Text*, ExpressionPtr>> named;
  ExpressionPtr star;         // f(*star)
  ExpressionPtr double_star;  // f(**double_star)
  const Filter* filter = nullptr;
  const Test* test = nullptr;
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

struct ForStatement {
  ExpressionPtr target;
  ExpressionPtr iterable;
  ExpressionPtr condition;  // or null
  Block body;
  Block otherwise;
  bool recursive = false;
};

struct MacroDefinition {
  const Text* name = nullptr;
  std::vector<std::pair<const Text*, ExpressionPtr>> parameters;  // with default or null
  Block body;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

enum class StatementKind : uint8_t {
  kData,         // data
  kOutput,       // expression
  kIf,           // conditions[i] -> blocks[i]; one block more is the else
  kFor,          // loop
  kSet,          // target = expression
  kSetBlock,     // target = blocks[0] through the filters of expression (or null)
  kMacro,        // macro
  kCall,         // expression (a call) with macro as its caller
  kFilterBlock,  // blocks[0] through the filters of expression
  kScope,        // blocks[0], with targets[i] = conditions[i]
  kBreak,
  kContinue,
};

struct Statement {
  StatementKind kind = StatementKind::kData;
  Position at;
  const Text* data = nullptr;
  ExpressionPtr expression;
  ExpressionPtr target;
  std::vector<ExpressionPtr> targets;
  std::vector<ExpressionPtr> conditions;
  std::vector<Block> blocks;
  std::unique_ptr<ForStatement> loop;
  std::unique_ptr<MacroDefinition> macro;
};

// The names that the language itself binds.
struct WellKnownNames {
  const Text* loop = nullptr;
  const Text* caller = nullptr;
  const Text* varargs = nullptr;
  const Text* kwargs = nullptr;
};

class SyntaxTree {
 public:
  const Text* Intern(std::string_view name);
  // The interned name, or null when the template never mentions it.
  const Text* FindName(std::string_view name) const;

  std::string source;
  Heap literals;
  Block body;
  WellKnownNames names;

 private:
  std::map<std::string, const Text*, std::less<>> interned_;
};

}  // namespace fastgen::jinja
