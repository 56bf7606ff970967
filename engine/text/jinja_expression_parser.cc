#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_parser.h"
#include "engine/text/jinja_tests.h"

namespace fastgen::jinja {

bool ExpressionParser::AtOperator(std::string_view op) const {
  return token().kind == TokenKind::kOperator && token().text == op;
}

bool ExpressionParser::AtName(std::string_view name) const {
  return token().kind == TokenKind::kName && token().text == name;
}

bool ExpressionParser::SkipOperator(std::string_view op) {
  if (!AtOperator(op)) return false;
  Advance();
  return true;
}

bool ExpressionParser::SkipName(std::string_view name) {
  if (!AtName(name)) return false;
  Advance();
  return true;
}

absl::Status ExpressionParser::Unexpected(std::string_view expected) const {
  std::string found = token().kind == TokenKind::kEnd
                          ? std::string("the end of the template")
                          : absl::StrCat("'", ToAbsl(token().text.substr(0, 40)), "'");
  return ErrorAt(token().at, absl::StrCat("expected ", ToAbsl(expected), ", found ", found));
}

absl::Status ExpressionParser::ExpectOperator(std::string_view op) {
  if (SkipOperator(op)) return absl::OkStatus();
  return Unexpected(absl::StrCat("'", ToAbsl(op), "'"));
}

absl::Status ExpressionParser::ExpectKind(TokenKind kind) {
  if (token().kind != kind) {
    return Unexpected(kind == TokenKind::kBlockEnd ? "'%}'" : "'}}'");
  }
  Advance();
  return absl::OkStatus();
}

absl::StatusOr<const Text*> ExpressionParser::ExpectName() {
  if (token().kind != TokenKind::kName) return Unexpected("a name");
  const Text* name = tree_.Intern(token().text);
  Advance();
  return name;
}

absl::Status ExpressionParser::Nesting::Check() const {
  if (parser_->nesting_ <= kMaxSyntaxNesting) return absl::OkStatus();
  return ErrorAt(parser_->token().at,
                 absl::StrCat("nested deeper than ", kMaxSyntaxNesting, " levels"));
}

ExpressionPtr ExpressionParser::New(ExpressionKind kind, Position at) const {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->at = at;
  return expression;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Finish(ExpressionPtr expression) const {
  int depth = 0;
  for (const ExpressionPtr& part : expression->parts) {
    if (part != nullptr) depth = std::max(depth, part->depth);
  }
  for (const auto& [name, value] : expression->named) depth = std::max(depth, value->depth);
  if (expression->star != nullptr) depth = std::max(depth, expression->star->depth);
  if (expression->double_star != nullptr) depth = std::max(depth, expression->double_star->depth);
  expression->depth = depth + 1;
  if (expression->depth > kMaxExpressionDepth) {
    return ErrorAt(expression->at, absl::StrCat("this expression is deeper than ",
                                                kMaxExpressionDepth, " operations"));
  }
  return expression;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseExpression(Conditional conditional) {
  Nesting nesting(this);
  RETURN_IF_ERROR(nesting.Check());
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  if (conditional == Conditional::kNotAllowed) return value;
  while (AtName("if")) {
    ExpressionPtr choice = New(ExpressionKind::kConditional, token().at);
    Advance();
    ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (SkipName("else")) {
      ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    choice->parts.push_back(std::move(value));
    choice->parts.push_back(std::move(condition));
    choice->parts.push_back(std::move(otherwise));
    ASSIGN_OR_RETURN(value, Finish(std::move(choice)));
  }
  return value;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseLeftToRight(
    Level operand, std::initializer_list<std::pair<std::string_view, Operator>> operators) {
  ASSIGN_OR_RETURN(ExpressionPtr left, (this->*operand)());
  while (true) {
    auto found = std::find_if(operators.begin(), operators.end(),
                              [this](const auto& entry) { return AtOperator(entry.first); });
    if (found == operators.end()) return left;
    ExpressionPtr binary = New(ExpressionKind::kBinary, token().at);
    Advance();
    ASSIGN_OR_RETURN(ExpressionPtr right, (this->*operand)());
    binary->operators.push_back(found->second);
    binary->parts.push_back(std::move(left));
    binary->parts.push_back(std::move(right));
    ASSIGN_OR_RETURN(left, Finish(std::move(binary)));
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseOr() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
  while (AtName("or")) {
    ExpressionPtr either = New(ExpressionKind::kOr, token().at);
    Advance();
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    either->parts.push_back(std::move(left));
    either->parts.push_back(std::move(right));
    ASSIGN_OR_RETURN(left, Finish(std::move(either)));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAnd() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
  while (AtName("and")) {
    ExpressionPtr both = New(ExpressionKind::kAnd, token().at);
    Advance();
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    both->parts.push_back(std::move(left));
    both->parts.push_back(std::move(right));
    ASSIGN_OR_RETURN(left, Finish(std::move(both)));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNot() {
  if (!AtName("not")) return ParseCompare();
  Nesting nesting(this);
  RETURN_IF_ERROR(nesting.Check());
  ExpressionPtr negation = New(ExpressionKind::kNot, token().at);
  Advance();
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseNot());
  negation->parts.push_back(std::move(value));
  return Finish(std::move(negation));
}

bool ExpressionParser::AtComparison(Operator* op, int* num_tokens) const {
  static constexpr std::pair<std::string_view, Operator> kSigns[] = {
      {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
      {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual},
  };
  *num_tokens = 1;
  for (const auto& [sign, meaning] : kSigns) {
    *op = meaning;
    if (AtOperator(sign)) return true;
  }
  *op = Operator::kIn;
  if (AtName("in")) return true;
  *op = Operator::kNotIn;
  *num_tokens = 2;
  return AtName("not") && Peek().kind == TokenKind::kName && Peek().text == "in";
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCompare() {
  Position at = token().at;
  ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  Operator op;
  int num_tokens;
  if (!AtComparison(&op, &num_tokens)) return first;
  ExpressionPtr compare = New(ExpressionKind::kCompare, at);
  compare->parts.push_back(std::move(first));
  while (AtComparison(&op, &num_tokens)) {
    for (int i = 0; i < num_tokens; ++i) Advance();
    ASSIGN_OR_RETURN(ExpressionPtr next, ParseSum());
    compare->operators.push_back(op);
    compare->parts.push_back(std::move(next));
  }
  return Finish(std::move(compare));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSum() {
  return ParseLeftToRight(&ExpressionParser::ParseConcat,
                          {{"+", Operator::kAdd}, {"-", Operator::kSubtract}});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConcat() {
  Position at = token().at;
  ASSIGN_OR_RETURN(ExpressionPtr first, ParseProduct());
  if (!AtOperator("~")) return first;
  ExpressionPtr concat = New(ExpressionKind::kConcat, at);
  concat->parts.push_back(std::move(first));
  while (SkipOperator("~")) {
    ASSIGN_OR_RETURN(ExpressionPtr next, ParseProduct());
    concat->parts.push_back(std::move(next));
  }
  return Finish(std::move(concat));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseProduct() {
  return ParseLeftToRight(&ExpressionParser::ParsePower, {{"*", Operator::kMultiply},
                                                          {"/", Operator::kDivide},
                                                          {"//", Operator::kFloorDivide},
                                                          {"%", Operator::kModulo}});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePower() {
  return ParseLeftToRight(&ExpressionParser::ParseSigned, {{"**", Operator::kPower}});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filters) {
  ExpressionPtr value;
  if (AtOperator("-") || AtOperator("+")) {
    Nesting nesting(this);
    RETURN_IF_ERROR(nesting.Check());
    ExpressionPtr sign =
        New(AtOperator("-") ? ExpressionKind::kNegate : ExpressionKind::kPlus, token().at);
    Advance();
    ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(/*with_filters=*/false));
    sign->parts.push_back(std::move(operand));
    ASSIGN_OR_RETURN(value, Finish(std::move(sign)));
  } else {
    ASSIGN_OR_RETURN(value, ParsePrimary());
    ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
  }
  if (!with_filters) return value;
  return ParseFilters(std::move(value), /*first_needs_bar=*/true);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilters(ExpressionPtr piped,
                                                             bool first_needs_bar) {
  while (true) {
    if (first_needs_bar && AtName("is")) {
      ASSIGN_OR_RETURN(piped, ParseTest(std::move(piped)));
      continue;
    }
    if (first_needs_bar && AtOperator("(")) {
      ASSIGN_OR_RETURN(piped, ParsePostfix(std::move(piped)));
      continue;
    }
    if (first_needs_bar && !SkipOperator("|")) return piped;
    first_needs_bar = true;
    ExpressionPtr filter = New(ExpressionKind::kFilter, token().at);
    ASSIGN_OR_RETURN(filter->name, ExpectName());
    filter->filter = FindFilter(filter->name->bytes);
    if (filter->filter == nullptr) {
      return ErrorAt(filter->at,
                     absl::StrCat("there is no filter '", ToAbsl(filter->name->bytes), "'"));
    }
    filter->parts.push_back(std::move(piped));
    if (AtOperator("(")) RETURN_IF_ERROR(ParseArguments(filter.get()));
    ASSIGN_OR_RETURN(piped, Finish(std::move(filter)));
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr value) {
  ExpressionPtr test = New(ExpressionKind::kTest, token().at);
  Advance();
  bool negated = SkipName("not");
  ASSIGN_OR_RETURN(test->name, ExpectName());
  test->test = FindTest(test->name->bytes);
  if (test->test == nullptr) {
    return ErrorAt(test->at, absl::StrCat("there is no test '", ToAbsl(test->name->bytes), "'"));
  }
  test->parts.push_back(std::move(value));
  bool literal = token().kind == TokenKind::kString || token().kind == TokenKind::kInteger ||
                 token().kind == TokenKind::kFloat || AtOperator("[") || AtOperator("{");
  bool name = token().kind == TokenKind::kName && !AtName("else") && !AtName("or") &&
              !AtName("and") && !AtName("if") && !AtName("in") && !AtName("not");
  if (AtName("is")) return ErrorAt(token().at, "tests cannot be chained with 'is'");
  if (AtOperator("(")) {
    RETURN_IF_ERROR(ParseArguments(test.get()));
  } else if (literal || name) {
    ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    test->parts.push_back(std::move(argument));
  }
  Position at = test->at;
  ASSIGN_OR_RETURN(ExpressionPtr result, Finish(std::move(test)));
  if (!negated) return result;
  ExpressionPtr negation = New(ExpressionKind::kNot, at);
  negation->parts.push_back(std::move(result));
  return Finish(std::move(negation));
}

}  // namespace fastgen::jinja
