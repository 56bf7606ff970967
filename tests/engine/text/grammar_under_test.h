// A constraint over FakeTokenizer's vocabulary, compiled, and what it says of texts.
// Thread rule: the test's main thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/answer_constraint.h"
#include "engine/text/structural_tag.h"
#include "tests/testing/fake_tokenizer.h"

namespace fastgen::testing {

inline Constraint MakeConstraint(Constraint::Kind kind, std::string text = "") {
  Constraint constraint;
  constraint.kind = kind;
  constraint.text = std::move(text);
  return constraint;
}

class GrammarUnderTest {
 public:
  // `pieces` are ids from FakeTokenizer::kFirstPiece on. The vocabulary has 40 rows more than the
  // tokenizer.
  explicit GrammarUnderTest(std::vector<std::string> pieces = {})
      : tokenizer_(std::move(pieces)),
        num_tokens_(tokenizer_.vocab_size() + 40),
        vocabulary_(std::make_shared<const AnswerVocabulary>(
            tokenizer_, num_tokens_, std::vector<int32_t>{FakeTokenizer::kEos},
            std::vector<int32_t>{})),
        compiler_(*GrammarCompiler::Create(
            MakeGrammarVocabulary(tokenizer_, num_tokens_, {FakeTokenizer::kEos}, {}))) {}

  absl::StatusOr<std::shared_ptr<const Grammar>> Compile(
      const Constraint& constraint, const std::vector<std::string>& tools = {},
      ToolCallStyle style = {}, const GrammarBudget::Limits& limits = {}) const {
    auto tag = MakeStructuralTag(constraint, tools, style);
    if (!tag.ok()) return tag.status();
    return compiler_->Compile(*tag, limits);
  }

  std::unique_ptr<TokenMatcher> Matcher(std::shared_ptr<const Grammar> grammar,
                                        const AnswerConstraintOptions& options = {}) const {
    return *AnswerConstraint(vocabulary_, std::move(grammar), options).NewMatcher();
  }

  // The tokens that may come next.
  std::vector<int32_t> Allowed(TokenMatcher* matcher) const {
    std::vector<uint32_t> mask(vocabulary_->num_words());
    std::vector<int32_t> tokens;
    if (!matcher->FillMask(absl::MakeSpan(mask)).ok()) return tokens;
    for (int32_t token = 0; token < static_cast<int32_t>(mask.size()) * 32; ++token) {
      if ((mask[static_cast<size_t>(token / 32)] >> (token % 32) & 1) != 0) tokens.push_back(token);
    }
    return tokens;
  }
  bool MayCome(TokenMatcher* matcher, int32_t token) const {
    for (int32_t allowed : Allowed(matcher)) {
      if (allowed == token) return true;
    }
    return false;
  }

  // Feeds `text` byte by byte, each after looking at the mask. False at the first byte that may not
  // come.
  bool Feed(TokenMatcher* matcher, std::string_view text) const {
    for (char c : text) {
      const int32_t token = static_cast<unsigned char>(c);
      const bool may_come = MayCome(matcher, token);
      // The mask and what is accepted must be one.
      if (matcher->Accept(token).ok() != may_come) return false;
      if (!may_come) return false;
    }
    return true;
  }
  enum class Fit { kNo, kBeginning, kWhole };
  Fit FitOf(const Constraint& constraint, std::string_view text,
            const std::vector<std::string>& tools = {}, ToolCallStyle style = {}) const {
    auto matcher = Matcher(*Compile(constraint, tools, style));
    if (!Feed(matcher.get(), text)) return Fit::kNo;
    return MayCome(matcher.get(), FakeTokenizer::kEos) ? Fit::kWhole : Fit::kBeginning;
  }
  bool IsWhole(const Constraint& constraint, std::string_view text,
               const std::vector<std::string>& tools = {}, ToolCallStyle style = {}) const {
    return FitOf(constraint, text, tools, style) == Fit::kWhole;
  }

  const FakeTokenizer& tokenizer() const { return tokenizer_; }

 private:
  const FakeTokenizer tokenizer_;
  const int32_t num_tokens_;
  const std::shared_ptr<const AnswerVocabulary> vocabulary_;
  const std::unique_ptr<GrammarCompiler> compiler_;
};

}  // namespace fastgen::testing
