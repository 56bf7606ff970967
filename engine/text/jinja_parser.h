// The parser: tokens to a SyntaxTree, in two layers that share one token stream.
//
// ExpressionParser follows Jinja's precedence: conditional, or, and, not, comparison and `in`, +
// and -, ~, * / // %, **, sign, then filters and tests, which bind to the signed value.
// TemplateParser adds the block tags. Errors are INVALID_ARGUMENT with line and column. Recursion
// is bounded by kMaxSyntaxNesting.
// Thread rule: any thread.
// Tested by tests/engine/text/chat_template_golden_test.cc and jinja_sandbox_test.cc.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_lexer.h"

namespace fastgen::jinja {

absl::StatusOr<std::unique_ptr<SyntaxTree>> Parse(std::string_view source);

class ExpressionParser {
 public:
  ExpressionParser(SyntaxTree* tree, std::vector<Token> tokens)
      : tree_(*tree), tokens_(std::move(tokens)) {}

 protected:
  enum class Conditional { kAllowed, kNotAllowed };

  const Token& token() const { return tokens_[next_]; }
  const Token& Peek() const { return tokens_[next_ + 1 < tokens_.size() ? next_ + 1 : next_]; }
  void Advance() { next_ += next_ + 1 < tokens_.size() ? 1 : 0; }
  bool AtOperator(std::string_view op) const;
  bool AtName(std::string_view name) const;
  bool SkipOperator(std::string_view op);
  bool SkipName(std::string_view name);
  absl::Status ExpectOperator(std::string_view op);
  absl::Status ExpectKind(TokenKind kind);
  absl::StatusOr<const Text*> ExpectName();
  absl::Status Unexpected(std::string_view expected) const;

  absl::StatusOr<ExpressionPtr> ParseExpression(Conditional conditional = Conditional::kAllowed);
  // One expression, or a tuple when commas follow.
  absl::StatusOr<ExpressionPtr> ParseTuple(Conditional conditional = Conditional::kAllowed);
  // A name, a namespace's attribute, or a tuple of them.
  absl::StatusOr<ExpressionPtr> ParseTarget();
  absl::StatusOr<ExpressionPtr> ParseFilters(ExpressionPtr piped, bool first_needs_bar);
  absl::StatusOr<ExpressionPtr> ParseUnary(bool with_filters);
  ExpressionPtr New(ExpressionKind kind, Position at) const;

  // Counts one level of nesting while alive.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser* parser) : parser_(parser) { ++parser_->nesting_; }
    ~Nesting() { --parser_->nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    absl::Status Check() const;

   private:
    ExpressionParser* parser_;
  };

  SyntaxTree& tree_;
  MacroDefinition* macro_ = nullptr;  // the innermost macro or call block being parsed

 private:
  using Level = absl::StatusOr<ExpressionPtr> (ExpressionParser::*)();

  absl::StatusOr<ExpressionPtr> ParseOr();
  absl::StatusOr<ExpressionPtr> ParseAnd();
  absl::StatusOr<ExpressionPtr> ParseNot();
  absl::StatusOr<ExpressionPtr> ParseCompare();
  absl::StatusOr<ExpressionPtr> ParseSum();
  absl::StatusOr<ExpressionPtr> ParseConcat();
  absl::StatusOr<ExpressionPtr> ParseProduct();
  absl::StatusOr<ExpressionPtr> ParsePower();
  absl::StatusOr<ExpressionPtr> ParseSigned() { return ParseUnary(/*with_filters=*/true); }
  absl::StatusOr<ExpressionPtr> ParsePrimary();
  absl::StatusOr<ExpressionPtr> ParseNameOrConstant();
  absl::StatusOr<ExpressionPtr> ParseStrings();
  absl::StatusOr<ExpressionPtr> ParseParentheses();
  absl::StatusOr<ExpressionPtr> ParseListLiteral();
  absl::StatusOr<ExpressionPtr> ParseDictLiteral();
  absl::StatusOr<ExpressionPtr> ParsePostfix(ExpressionPtr value);
  absl::StatusOr<ExpressionPtr> ParseAttribute(ExpressionPtr value);
  absl::StatusOr<ExpressionPtr> ParseSubscript(ExpressionPtr value);
  absl::StatusOr<ExpressionPtr> ParseTest(ExpressionPtr value);
  absl::Status ParseArguments(Expression* call);
  absl::StatusOr<ExpressionPtr> ParseLeftToRight(
      Level operand, std::initializer_list<std::pair<std::string_view, Operator>> operators);
  absl::StatusOr<ExpressionPtr> ParseTargetItem();
  bool AtComparison(Operator* op, int* num_tokens) const;
  void NoteSpecialName(const Text* name);
  // Sets the depth from the parts. INVALID_ARGUMENT when too deep.
  absl::StatusOr<ExpressionPtr> Finish(ExpressionPtr expression) const;

  std::vector<Token> tokens_;
  size_t next_ = 0;
  int nesting_ = 0;
};

}  // namespace fastgen::jinja
