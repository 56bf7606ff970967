#include "engine/text/jinja_parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen::jinja {

const Text* SyntaxTree::Intern(std::string_view name) {
  if (const Text* known = FindName(name)) return known;
  const Text* made = &literals.Constant(literals.Keep(std::string(name))).text();
  interned_.emplace(std::string(name), made);
  return made;
}

const Text* SyntaxTree::FindName(std::string_view name) const {
  auto found = interned_.find(name);
  return found == interned_.end() ? nullptr : found->second;
}

namespace {

using EndNames = std::initializer_list<std::string_view>;

class TemplateParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  absl::Status ParseTemplate() { return ParseBlock({}, &tree_.body, Position{}, ""); }

 private:
  // Statements up to a tag that begins with one of `ends`; stops at that name. With no ends: up to
  // the end of the template. `opener` and `opened` say which tag is being closed.
  absl::Status ParseBlock(EndNames ends, Block* block, Position opened, std::string_view opener) {
    Nesting nesting(this);
    RETURN_IF_ERROR(nesting.Check());
    while (token().kind != TokenKind::kEnd) {
      if (token().kind == TokenKind::kBlockBegin) {
        Advance();
        if (std::any_of(ends.begin(), ends.end(), [this](auto end) { return AtName(end); })) {
          return absl::OkStatus();
        }
        RETURN_IF_ERROR(ParseStatement(block));
      } else if (token().kind == TokenKind::kVariableBegin) {
        Advance();
        Statement* output = Add(block, StatementKind::kOutput, token().at);
        ASSIGN_OR_RETURN(output->expression, ParseTuple());
        RETURN_IF_ERROR(ExpectKind(TokenKind::kVariableEnd));
      } else {
        Statement* data = Add(block, StatementKind::kData, token().at);
        data->data = &tree_.literals.Constant(token().text).text();
        Advance();
      }
    }
    if (ends.size() == 0) return absl::OkStatus();
    return ErrorAt(opened, absl::StrCat("this '", ToAbsl(opener), "' block is never closed"));
  }

  Statement* Add(Block* block, StatementKind kind, Position at) const {
    block->push_back(std::make_unique<Statement>());
    block->back()->kind = kind;
    block->back()->at = at;
    return block->back().get();
  }

  // A tag behind its '{%', up to and including its last '%}'.
  absl::Status ParseStatement(Block* block) {
    using Parser = absl::Status (TemplateParser::*)(Position, Block*);
    static constexpr std::pair<std::string_view, Parser> kTags[] = {
        {"if", &TemplateParser::ParseIf},       {"for", &TemplateParser::ParseFor},
        {"set", &TemplateParser::ParseSet},     {"macro", &TemplateParser::ParseMacro},
        {"call", &TemplateParser::ParseCall},   {"filter", &TemplateParser::ParseFilterBlock},
        {"with", &TemplateParser::ParseWith},   {"generation", &TemplateParser::ParseGeneration},
        {"break", &TemplateParser::ParseBreak}, {"continue", &TemplateParser::ParseContinue},
    };
    Position at = token().at;
    for (const auto& [name, parse] : kTags) {
      if (!AtName(name)) continue;
      Advance();
      RETURN_IF_ERROR((this->*parse)(at, block));
      return ExpectKind(TokenKind::kBlockEnd);
    }
    return Unexpected("a known block tag");
  }

  absl::Status ParseIf(Position at, Block* block) {
    Statement* branches = Add(block, StatementKind::kIf, at);
    bool is_else = false;
    while (!is_else) {
      ASSIGN_OR_RETURN(ExpressionPtr condition, ParseTuple());
      branches->conditions.push_back(std::move(condition));
      RETURN_IF_ERROR(ExpectKind(TokenKind::kBlockEnd));
      branches->blocks.emplace_back();
      RETURN_IF_ERROR(ParseBlock({"elif", "else", "endif"}, &branches->blocks.back(), at, "if"));
      if (SkipName("endif")) return absl::OkStatus();
      is_else = AtName("else");
      Advance();
    }
    RETURN_IF_ERROR(ExpectKind(TokenKind::kBlockEnd));
    branches->blocks.emplace_back();
    RETURN_IF_ERROR(ParseBlock({"endif"}, &branches->blocks.back(), at, "if"));
    Advance();
    return absl::OkStatus();
  }

  absl::Status ParseFor(Position at, Block* block) {
    Statement* statement = Add(block, StatementKind::kFor, at);
    auto loop = std::make_unique<ForStatement>();
    ASSIGN_OR_RETURN(loop->target, ParseTarget());
    if (!SkipName("in")) return Unexpected("'in'");
    ASSIGN_OR_RETURN(loop->iterable, ParseTuple(Conditional::kNotAllowed));
    if (SkipName("if")) {
      ASSIGN_OR_RETURN(loop->condition, ParseExpression());
    }
    loop->recursive = SkipName("recursive");
    RETURN_IF_ERROR(ExpectKind(TokenKind::kBlockEnd));
    ++num_loops_;
    absl::Status body = ParseBlock({"else", "endfor"}, &loop->body, at, "for");
    --num_loops_;
    RETURN_IF_ERROR(body);
    if (SkipName("else")) {
      RETURN_IF_ERROR(ExpectKind(TokenKind::kBlockEnd));
      RETURN_IF_ERROR(ParseBlock({"endfor"}, &loop->otherwise, at, "for"));
    }
    Advance();
    statement->loop = std::move(loop);
    return absl::OkStatus();
  }

  absl::Status ParseSet(Position at, Block* block) {
    Statement* set = Add(block, StatementKind::kSet, at);
    ASSIGN_OR_RETURN(set->target, ParseTarget());
    if (SkipOperator("=")) {
      ASSIGN_OR_RETURN(set->expression, ParseTuple());
      return absl::OkStatus();
    }
    set->kind = StatementKind::kSetBlock;
    if (AtOperator("|")) {
      ASSIGN_OR_RETURN(set->expression, ParseFilters(New(ExpressionKind::kBlockBody, token().at),
                                                     /*first_needs_bar=*/true));
    }
    return ParseBody("set", "endset", at, set);
  }

  // '%}', one block, and the name of its end tag.
  absl::Status ParseBody(std::string_view opener, std::string_view end, Position at,
                         Statement* statement) {
    RETURN_IF_ERROR(ExpectKind(TokenKind::kBlockEnd));
    statement->blocks.emplace_back();
    RETURN_IF_ERROR(ParseBlock({end}, &statement->blocks.back(), at, opener));
    Advance();
    return absl::OkStatus();
  }

  absl::Status ParseFilterBlock(Position at, Block* block) {
    Statement* filter = Add(block, StatementKind::kFilterBlock, at);
    ASSIGN_OR_RETURN(filter->expression, ParseFilters(New(ExpressionKind::kBlockBody, at),
                                                      /*first_needs_bar=*/false));
    return ParseBody("filter", "endfilter", at, filter);
  }

  absl::Status ParseWith(Position at, Block* block) {
    Statement* with = Add(block, StatementKind::kScope, at);
    while (token().kind != TokenKind::kBlockEnd) {
      if (!with->targets.empty()) RETURN_IF_ERROR(ExpectOperator(","));
      ExpressionPtr target = New(ExpressionKind::kName, token().at);
      ASSIGN_OR_RETURN(target->name, ExpectName());
      RETURN_IF_ERROR(ExpectOperator("="));
      ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      with->targets.push_back(std::move(target));
      with->conditions.push_back(std::move(value));
    }
    return ParseBody("with", "endwith", at, with);
  }

  // Marks what the assistant wrote, for training; rendering only needs its body.
  absl::Status ParseGeneration(Position at, Block* block) {
    return ParseBody("generation", "endgeneration", at, Add(block, StatementKind::kScope, at));
  }

  absl::Status ParseBreak(Position at, Block* block) {
    if (num_loops_ == 0) return ErrorAt(at, "'break' outside of a loop");
    Add(block, StatementKind::kBreak, at);
    return absl::OkStatus();
  }

  absl::Status ParseContinue(Position at, Block* block) {
    if (num_loops_ == 0) return ErrorAt(at, "'continue' outside of a loop");
    Add(block, StatementKind::kContinue, at);
    return absl::OkStatus();
  }

  // '(a, b=1)'.
  absl::Status ParseParameters(MacroDefinition* macro) {
    RETURN_IF_ERROR(ExpectOperator("("));
    while (!SkipOperator(")")) {
      if (!macro->parameters.empty()) {
        RETURN_IF_ERROR(ExpectOperator(","));
        if (SkipOperator(")")) break;
      }
      Position at = token().at;
      ASSIGN_OR_RETURN(const Text* name, ExpectName());
      ExpressionPtr fallback;
      if (SkipOperator("=")) {
        ASSIGN_OR_RETURN(fallback, ParseExpression());
      } else if (!macro->parameters.empty() && macro->parameters.back().second != nullptr) {
        return ErrorAt(at, "a parameter without default follows one with a default");
      }
      macro->parameters.emplace_back(name, std::move(fallback));
    }
    return absl::OkStatus();
  }

  absl::Status ParseMacroBody(Position at, std::string_view opener, std::string_view end,
                              MacroDefinition* macro) {
    RETURN_IF_ERROR(ExpectKind(TokenKind::kBlockEnd));
    MacroDefinition* outer_macro = std::exchange(macro_, macro);
    int outer_loops = std::exchange(num_loops_, 0);
    absl::Status status = ParseBlock({end}, &macro->body, at, opener);
    macro_ = outer_macro;
    num_loops_ = outer_loops;
    RETURN_IF_ERROR(status);
    Advance();
    return absl::OkStatus();
  }

  absl::Status ParseMacro(Position at, Block* block) {
    Statement* statement = Add(block, StatementKind::kMacro, at);
    auto macro = std::make_unique<MacroDefinition>();
    ASSIGN_OR_RETURN(macro->name, ExpectName());
    RETURN_IF_ERROR(ParseParameters(macro.get()));
    RETURN_IF_ERROR(ParseMacroBody(at, "macro", "endmacro", macro.get()));
    statement->macro = std::move(macro);
    return absl::OkStatus();
  }

  absl::Status ParseCall(Position at, Block* block) {
    Statement* statement = Add(block, StatementKind::kCall, at);
    auto macro = std::make_unique<MacroDefinition>();
    macro->name = tree_.names.caller;
    if (AtOperator("(")) RETURN_IF_ERROR(ParseParameters(macro.get()));
    ASSIGN_OR_RETURN(statement->expression, ParseExpression());
    if (statement->expression->kind != ExpressionKind::kCall) {
      return ErrorAt(at, "a call block needs a call");
    }
    RETURN_IF_ERROR(ParseMacroBody(at, "call", "endcall", macro.get()));
    statement->macro = std::move(macro);
    return absl::OkStatus();
  }

  int num_loops_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SyntaxTree>> Parse(std::string_view source) {
  auto tree = std::make_unique<SyntaxTree>();
  if (source.size() > kMaxSourceBytes) return Tokenize(source).status();
  tree->source = NormalizeNewlines(source);
  tree->names = {tree->Intern("loop"), tree->Intern("caller"), tree->Intern("varargs"),
                 tree->Intern("kwargs")};
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(tree->source));
  RETURN_IF_ERROR(TemplateParser(tree.get(), std::move(tokens)).ParseTemplate());
  return tree;
}

}  // namespace fastgen::jinja
