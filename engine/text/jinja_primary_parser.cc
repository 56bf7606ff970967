// The leaves and suffixes of ExpressionParser: names, literals, attributes, subscripts, calls and
// assignment targets.
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_parser.h"

namespace fastgen::jinja {

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePrimary() {
  const Token& at = token();
  switch (at.kind) {
    case TokenKind::kName:
      return ParseNameOrConstant();
    case TokenKind::kString:
      return ParseStrings();
    case TokenKind::kInteger:
    case TokenKind::kFloat: {
      ExpressionPtr number = New(ExpressionKind::kConstant, at.at);
      number->constant =
          at.kind == TokenKind::kInteger ? Value::Int(at.integer) : Value::Float(at.number);
      Advance();
      return number;
    }
    case TokenKind::kOperator:
      if (at.text == "(") return ParseParentheses();
      if (at.text == "[") return ParseListLiteral();
      if (at.text == "{") return ParseDictLiteral();
      break;
    default:
      break;
  }
  return Unexpected("an expression");
}

void ExpressionParser::NoteSpecialName(const Text* name) {
  if (macro_ == nullptr) return;
  if (name == tree_.names.varargs) macro_->uses_varargs = true;
  if (name == tree_.names.kwargs) macro_->uses_kwargs = true;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNameOrConstant() {
  std::string_view word = token().text;
  ExpressionPtr result = New(ExpressionKind::kConstant, token().at);
  if (word == "true" || word == "True" || word == "false" || word == "False") {
    result->constant = Value::Bool((word[0] | 0x20) == 't');
  } else if (word == "none" || word == "None") {
    result->constant = Value::None();
  } else {
    result->kind = ExpressionKind::kName;
    result->name = tree_.Intern(word);
    NoteSpecialName(result->name);
  }
  Advance();
  return result;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseStrings() {
  ExpressionPtr result = New(ExpressionKind::kConstant, token().at);
  std::string text;
  for (; token().kind == TokenKind::kString; Advance()) text += token().string;
  result->constant = tree_.literals.Constant(tree_.literals.Keep(std::move(text)));
  return result;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseParentheses() {
  Position at = token().at;
  Advance();
  if (SkipOperator(")")) return New(ExpressionKind::kTuple, at);
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseTuple());
  RETURN_IF_ERROR(ExpectOperator(")"));
  return value;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseListLiteral() {
  ExpressionPtr list = New(ExpressionKind::kList, token().at);
  Advance();
  while (!SkipOperator("]")) {
    if (!list->parts.empty()) {
      RETURN_IF_ERROR(ExpectOperator(","));
      if (SkipOperator("]")) break;
    }
    ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
    list->parts.push_back(std::move(item));
  }
  return Finish(std::move(list));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseDictLiteral() {
  ExpressionPtr dict = New(ExpressionKind::kDict, token().at);
  Advance();
  while (!SkipOperator("}")) {
    if (!dict->parts.empty()) {
      RETURN_IF_ERROR(ExpectOperator(","));
      if (SkipOperator("}")) break;
    }
    ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
    RETURN_IF_ERROR(ExpectOperator(":"));
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    dict->parts.push_back(std::move(key));
    dict->parts.push_back(std::move(value));
  }
  return Finish(std::move(dict));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTuple(Conditional conditional) {
  Position at = token().at;
  ASSIGN_OR_RETURN(ExpressionPtr first, ParseExpression(conditional));
  if (!AtOperator(",")) return first;
  ExpressionPtr tuple = New(ExpressionKind::kTuple, at);
  tuple->parts.push_back(std::move(first));
  while (SkipOperator(",")) {
    bool ends = token().kind == TokenKind::kVariableEnd || token().kind == TokenKind::kBlockEnd ||
                AtOperator(")") || AtOperator("]");
    if (ends) break;
    ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression(conditional));
    tuple->parts.push_back(std::move(item));
  }
  return Finish(std::move(tuple));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr value) {
  while (true) {
    if (AtOperator(".")) {
      ASSIGN_OR_RETURN(value, ParseAttribute(std::move(value)));
    } else if (AtOperator("[")) {
      ASSIGN_OR_RETURN(value, ParseSubscript(std::move(value)));
    } else if (AtOperator("(")) {
      ExpressionPtr call = New(ExpressionKind::kCall, value->at);
      call->parts.push_back(std::move(value));
      RETURN_IF_ERROR(ParseArguments(call.get()));
      ASSIGN_OR_RETURN(value, Finish(std::move(call)));
    } else {
      return value;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAttribute(ExpressionPtr value) {
  Advance();
  Position at = token().at;
  if (token().kind == TokenKind::kInteger) {
    ExpressionPtr index = New(ExpressionKind::kConstant, at);
    index->constant = Value::Int(token().integer);
    Advance();
    ExpressionPtr subscript = New(ExpressionKind::kSubscript, at);
    subscript->parts.push_back(std::move(value));
    subscript->parts.push_back(std::move(index));
    return Finish(std::move(subscript));
  }
  ExpressionPtr attribute = New(ExpressionKind::kAttribute, at);
  ASSIGN_OR_RETURN(attribute->name, ExpectName());
  attribute->parts.push_back(std::move(value));
  return Finish(std::move(attribute));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr value) {
  Position at = token().at;
  Advance();
  ExpressionPtr bounds[3];
  int num_colons = 0;
  while (!AtOperator("]") && num_colons < 3) {
    if (SkipOperator(":")) {
      ++num_colons;
      continue;
    }
    if (bounds[num_colons] != nullptr) break;
    ASSIGN_OR_RETURN(bounds[num_colons], ParseTuple());
  }
  RETURN_IF_ERROR(ExpectOperator("]"));
  if (num_colons == 0 && bounds[0] == nullptr) return ErrorAt(at, "this subscript is empty");
  ExpressionPtr subscript =
      New(num_colons == 0 ? ExpressionKind::kSubscript : ExpressionKind::kSlice, at);
  subscript->parts.push_back(std::move(value));
  subscript->parts.push_back(std::move(bounds[0]));
  if (num_colons > 0) {
    subscript->parts.push_back(std::move(bounds[1]));
    subscript->parts.push_back(std::move(bounds[2]));
  }
  return Finish(std::move(subscript));
}

absl::Status ExpressionParser::ParseArguments(Expression* call) {
  RETURN_IF_ERROR(ExpectOperator("("));
  bool first = true;
  while (!SkipOperator(")")) {
    if (!first) {
      RETURN_IF_ERROR(ExpectOperator(","));
      if (SkipOperator(")")) break;
    }
    first = false;
    Position at = token().at;
    bool is_star = SkipOperator("*");
    bool is_double_star = !is_star && SkipOperator("**");
    const Text* name = nullptr;
    if (token().kind == TokenKind::kName && Peek().kind == TokenKind::kOperator &&
        Peek().text == "=") {
      name = tree_.Intern(token().text);
      Advance();
      Advance();
    }
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    bool is_late = call->star != nullptr || call->double_star != nullptr || !call->named.empty();
    if (is_star && call->star == nullptr) {
      call->star = std::move(value);
    } else if (is_double_star && call->double_star == nullptr) {
      call->double_star = std::move(value);
    } else if (name != nullptr) {
      call->named.emplace_back(name, std::move(value));
    } else if (!is_star && !is_double_star && !is_late) {
      call->parts.push_back(std::move(value));
    } else {
      return ErrorAt(at, "this argument cannot stand here");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTargetItem() {
  Nesting nesting(this);
  RETURN_IF_ERROR(nesting.Check());
  Position at = token().at;
  if (SkipOperator("(")) {
    ASSIGN_OR_RETURN(ExpressionPtr inner, ParseTarget());
    RETURN_IF_ERROR(ExpectOperator(")"));
    return inner;
  }
  ExpressionPtr target = New(ExpressionKind::kName, at);
  ASSIGN_OR_RETURN(target->name, ExpectName());
  std::string_view word = target->name->bytes;
  if (word == "true" || word == "false" || word == "none" || word == "True" || word == "False" ||
      word == "None") {
    return ErrorAt(at, absl::StrCat("cannot assign to '", ToAbsl(word), "'"));
  }
  if (!SkipOperator(".")) return target;
  ExpressionPtr attribute = New(ExpressionKind::kAttribute, at);
  ASSIGN_OR_RETURN(attribute->name, ExpectName());
  attribute->parts.push_back(std::move(target));
  return attribute;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTarget() {
  Position at = token().at;
  ASSIGN_OR_RETURN(ExpressionPtr first, ParseTargetItem());
  if (!AtOperator(",")) return first;
  ExpressionPtr tuple = New(ExpressionKind::kTuple, at);
  tuple->parts.push_back(std::move(first));
  while (SkipOperator(",")) {
    if (token().kind != TokenKind::kName && !AtOperator("(")) break;
    if (AtName("in")) break;
    ASSIGN_OR_RETURN(ExpressionPtr item, ParseTargetItem());
    tuple->parts.push_back(std::move(item));
  }
  return tuple;
}

}  // namespace fastgen::jinja
