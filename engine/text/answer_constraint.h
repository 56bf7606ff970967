// AnswerConstraint: a grammar as the executor follows it: over a whole answer, reasoning and end
// included.
//
// Reasoning that is kept apart is free and comes before what the grammar describes. Two automata
// run beside each other until it is known which of them the answer follows: the opening tag, while
// the text so far may still become it, and the grammar. Inside the reasoning every text token is
// allowed, no end token is, and the closing tag ends it; then blanks are free, as the parser drops
// them, and the grammar begins. With `avoids_end` an end token is allowed only when nothing else is
// (ignore_eos: the answer goes on while it can). Invariants: 1. what was accepted is at any time a
// beginning of an allowed answer; 2. an end token is allowed only when the answer is whole. Thread
// rule: AnswerVocabulary, AnswerConstraint: immutable, any thread. A matcher: one thread at a time.
// Tested by tests/engine/text/answer_constraint_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/text/grammar.h"
#include "engine/text/tokenizer.h"
#include "engine/token_constraint.h"

namespace fastgen {

// What the tokens of a model are to an answer.
class AnswerVocabulary {
 public:
  // `end_ids` lie in the vocabulary. `markers`: the special tokens that the tags of
  // reasoning are.
  AnswerVocabulary(const Tokenizer& tokenizer, int32_t num_tokens, std::vector<int32_t> end_ids,
                   std::vector<int32_t> markers);

  int32_t num_tokens() const { return num_tokens_; }
  size_t num_words() const { return text_mask_.size(); }
  const std::vector<int32_t>& end_ids() const { return end_ids_; }
  // "" for end tokens, and for special tokens that are no markers.
  std::string_view Text(int32_t token) const {
    const size_t i = static_cast<size_t>(token);
    return std::string_view(texts_).substr(begin_[i], begin_[i + 1] - begin_[i]);
  }
  // [num_words] tokens with a text.
  absl::Span<const uint32_t> text_mask() const { return text_mask_; }
  // Those of blanks only, of a first space, and those with '>' before their end, which may close a
  // tag and go on.
  absl::Span<const int32_t> blank_tokens() const { return blank_tokens_; }
  absl::Span<const int32_t> space_first_tokens() const { return space_first_tokens_; }
  absl::Span<const int32_t> inner_angle_tokens() const { return inner_angle_tokens_; }
  bool drops_first_space() const { return drops_first_space_; }

 private:
  const int32_t num_tokens_;
  const std::vector<int32_t> end_ids_;
  const bool drops_first_space_;
  std::string texts_;
  std::vector<size_t> begin_;  // [num_tokens + 1] into texts_
  std::vector<uint32_t> text_mask_;
  std::vector<int32_t> blank_tokens_;
  std::vector<int32_t> space_first_tokens_;
  std::vector<int32_t> inner_angle_tokens_;
};

// What a grammar may choose: tokens with a text, of the special ones those in `shown`.
GrammarVocabulary MakeGrammarVocabulary(const Tokenizer& tokenizer, int32_t num_tokens,
                                        const std::vector<int32_t>& end_ids,
                                        const std::vector<int32_t>& shown);

struct AnswerConstraintOptions {
  enum class Reasoning { kNone, kMayOpen, kOpen };  // kOpen: the prompt opened it
  Reasoning reasoning = Reasoning::kNone;
  bool avoids_end = false;
};

class AnswerConstraint final : public TokenConstraint {
 public:
  AnswerConstraint(std::shared_ptr<const AnswerVocabulary> vocabulary,
                   std::shared_ptr<const Grammar> grammar, const AnswerConstraintOptions& options);
  absl::StatusOr<std::unique_ptr<TokenMatcher>> NewMatcher() const override;

 private:
  const std::shared_ptr<const AnswerVocabulary> vocabulary_;
  const std::shared_ptr<const Grammar> grammar_;
  const AnswerConstraintOptions options_;
};

}  // namespace fastgen
