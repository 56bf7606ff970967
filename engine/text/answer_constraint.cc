#include "engine/text/answer_constraint.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/int_math.h"
#include "base/status_macros.h"
#include "engine/text/marker_scanner.h"

namespace fastgen {
namespace {

constexpr std::string_view kOpeningTag = "<think>";
constexpr std::string_view kClosingTag = "</think>";
// Tokens of blanks between the reasoning and the answer.
constexpr int kMaxBlankTokens = 8;

void Set(int32_t token, absl::Span<uint32_t> mask) {
  mask[static_cast<size_t>(token / 32)] |= uint32_t{1} << (token % 32);
}

void Clear(int32_t token, absl::Span<uint32_t> mask) {
  mask[static_cast<size_t>(token / 32)] &= ~(uint32_t{1} << (token % 32));
}

bool Has(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

std::string_view WithoutLeadingBlanks(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  return text;
}

// How `text` goes on as blanks and the opening tag.
enum class Opening { kNo, kMaybe, kDone };
Opening MatchOpening(std::string_view text) {
  const std::string_view rest = WithoutLeadingBlanks(text);
  if (text.size() - rest.size() > MarkerScanner::kMaxBlanks) return Opening::kNo;
  const size_t length = std::min(rest.size(), kOpeningTag.size());
  if (rest.substr(0, length) != kOpeningTag.substr(0, length)) return Opening::kNo;
  return length == kOpeningTag.size() ? Opening::kDone : Opening::kMaybe;
}

class AnswerMatcher final : public TokenMatcher {
 public:
  AnswerMatcher(std::shared_ptr<const AnswerVocabulary> vocabulary,
                std::unique_ptr<GrammarMatcher> grammar, const AnswerConstraintOptions& options)
      : owner_(std::move(vocabulary)),
        vocabulary_(*owner_),
        grammar_(std::move(grammar)),
        avoids_end_(options.avoids_end),
        prompt_opened_(options.reasoning == AnswerConstraintOptions::Reasoning::kOpen),
        phase_(options.reasoning == AnswerConstraintOptions::Reasoning::kNone ? Phase::kAnswer
                                                                              : Phase::kStart) {}

  absl::Status FillMask(absl::Span<uint32_t> mask) override;
  absl::Status Accept(int32_t token) override;

 private:
  // kStart: the opening tag may come, or have begun. kBlanks: the reasoning has just ended.
  enum class Phase { kStart, kReasoning, kBlanks, kAnswer };

  absl::Status FillStart(absl::Span<uint32_t> mask);
  void FillReasoning(absl::Span<uint32_t> mask) const;
  absl::Status FillGrammar(absl::Span<uint32_t> mask);
  absl::Status AcceptStart(int32_t token);
  absl::Status AcceptReasoning(std::string_view text);
  absl::Status AcceptBlanks(int32_t token);
  absl::Status AcceptGrammar(int32_t token);
  // The bytes of `text` behind the closing tag that it completes after `matched` bytes of it;
  // nullopt when it does not.
  static std::optional<std::string_view> AfterClosing(std::string_view text, size_t* matched);

  const std::shared_ptr<const AnswerVocabulary> owner_;
  const AnswerVocabulary& vocabulary_;
  const std::unique_ptr<GrammarMatcher> grammar_;
  const bool avoids_end_;
  const bool prompt_opened_;
  Phase phase_;
  std::string start_;         // kStart: the text so far
  bool fits_grammar_ = true;  // kStart: so does the grammar
  size_t matched_ = 0;        // kReasoning: bytes of the closing tag that the text ends with
  int num_blank_tokens_ = 0;  // kBlanks
  int32_t num_tokens_ = 0;
};

absl::Status AnswerMatcher::FillMask(absl::Span<uint32_t> mask) {
  CHECK_EQ(mask.size(), vocabulary_.num_words());
  switch (phase_) {
    case Phase::kStart:
      return FillStart(mask);
    case Phase::kReasoning:
      FillReasoning(mask);
      return absl::OkStatus();
    case Phase::kBlanks:
      RETURN_IF_ERROR(FillGrammar(mask));
      if (num_blank_tokens_ == kMaxBlankTokens) return absl::OkStatus();
      for (int32_t token : vocabulary_.blank_tokens()) Set(token, mask);
      return absl::OkStatus();
    case Phase::kAnswer:
      break;
  }
  return FillGrammar(mask);
}

absl::Status AnswerMatcher::FillGrammar(absl::Span<uint32_t> mask) {
  RETURN_IF_ERROR(grammar_->FillMask(mask));
  // The library fills whole words.
  const int32_t num_last = vocabulary_.num_tokens() % 32;
  if (num_last != 0) mask.back() &= (uint32_t{1} << num_last) - 1;
  if (num_tokens_ == 0 && vocabulary_.drops_first_space()) {
    // The text would lack it, and no longer be what the grammar says.
    for (int32_t token : vocabulary_.space_first_tokens()) Clear(token, mask);
  }
  if (!avoids_end_ || !grammar_->is_whole()) return absl::OkStatus();
  const std::vector<int32_t>& end_ids = vocabulary_.end_ids();
  for (int32_t token : end_ids) Clear(token, mask);
  const bool goes_on =
      std::any_of(mask.begin(), mask.end(), [](uint32_t word) { return word != 0; });
  if (goes_on) return absl::OkStatus();
  for (int32_t token : end_ids) Set(token, mask);
  return absl::OkStatus();
}

absl::Status AnswerMatcher::FillStart(absl::Span<uint32_t> mask) {
  if (prompt_opened_) {
    FillReasoning(mask);
  } else if (fits_grammar_) {
    RETURN_IF_ERROR(FillGrammar(mask));
  } else {
    std::fill(mask.begin(), mask.end(), 0);
  }
  if (prompt_opened_) return absl::OkStatus();
  std::string text;
  for (int32_t token = 0; token < vocabulary_.num_tokens(); ++token) {
    const std::string_view piece = vocabulary_.Text(token);
    if (piece.empty() ||
        (!IsBlank(piece.front()) && kOpeningTag.find(piece.front()) == std::string_view::npos)) {
      continue;
    }
    text = start_;
    text += piece;
    if (MatchOpening(text) != Opening::kNo) Set(token, mask);
  }
  return absl::OkStatus();
}

void AnswerMatcher::FillReasoning(absl::Span<uint32_t> mask) const {
  const absl::Span<const uint32_t> text_mask = vocabulary_.text_mask();
  std::copy(text_mask.begin(), text_mask.end(), mask.begin());
  // One that closes the reasoning and goes on with the answer would have to be split.
  for (int32_t token : vocabulary_.inner_angle_tokens()) {
    size_t matched = matched_;
    const auto rest = AfterClosing(vocabulary_.Text(token), &matched);
    if (rest.has_value() && !WithoutLeadingBlanks(*rest).empty()) Clear(token, mask);
  }
}

std::optional<std::string_view> AnswerMatcher::AfterClosing(std::string_view text,
                                                            size_t* matched) {
  for (size_t i = 0; i < text.size(); ++i) {
    // The tag's first byte is nowhere else in it: after a mismatch only that one counts.
    if (text[i] == kClosingTag[*matched]) {
      ++*matched;
    } else {
      *matched = text[i] == kClosingTag.front() ? 1 : 0;
    }
    if (*matched == kClosingTag.size()) return text.substr(i + 1);
  }
  return std::nullopt;
}

absl::Status AnswerMatcher::Accept(int32_t token) {
  CHECK(token >= 0 && token < vocabulary_.num_tokens()) << token;
  absl::Status status;
  switch (phase_) {
    case Phase::kStart:
      status = AcceptStart(token);
      break;
    case Phase::kReasoning:
      status = AcceptReasoning(vocabulary_.Text(token));
      break;
    case Phase::kBlanks:
      status = AcceptBlanks(token);
      break;
    case Phase::kAnswer:
      status = AcceptGrammar(token);
      break;
  }
  ++num_tokens_;
  return status;
}

absl::Status AnswerMatcher::AcceptGrammar(int32_t token) {
  ASSIGN_OR_RETURN(const bool is_accepted, grammar_->Accept(token));
  if (is_accepted) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("token ", token, " does not fit the constraint after ", num_tokens_, " tokens"));
}

absl::Status AnswerMatcher::AcceptStart(int32_t token) {
  const std::string_view piece = vocabulary_.Text(token);
  start_ += piece;
  const Opening opening = piece.empty() ? Opening::kNo : MatchOpening(start_);
  if (opening == Opening::kDone) {
    const size_t end = start_.find(kOpeningTag) + kOpeningTag.size();
    phase_ = Phase::kReasoning;
    return AcceptReasoning(std::string_view(start_).substr(end));
  }
  if (prompt_opened_) {
    if (opening == Opening::kMaybe) return absl::OkStatus();
    phase_ = Phase::kReasoning;
    return AcceptReasoning(start_);
  }
  if (opening == Opening::kNo) {
    phase_ = Phase::kAnswer;
    if (fits_grammar_) return AcceptGrammar(token);
    return absl::InternalError(absl::StrCat("token ", token, " does not fit the constraint after ",
                                            num_tokens_, " tokens"));
  }
  if (!fits_grammar_) return absl::OkStatus();
  ASSIGN_OR_RETURN(fits_grammar_, grammar_->Accept(token));
  return absl::OkStatus();
}

absl::Status AnswerMatcher::AcceptReasoning(std::string_view text) {
  if (AfterClosing(text, &matched_).has_value()) phase_ = Phase::kBlanks;
  return absl::OkStatus();
}

absl::Status AnswerMatcher::AcceptBlanks(int32_t token) {
  const std::string_view text = vocabulary_.Text(token);
  ASSIGN_OR_RETURN(const bool is_accepted, grammar_->Accept(token));
  if (is_accepted) {
    phase_ = Phase::kAnswer;
    return absl::OkStatus();
  }
  if (text.empty() || !WithoutLeadingBlanks(text).empty() ||
      ++num_blank_tokens_ > kMaxBlankTokens) {
    return absl::InternalError(absl::StrCat("token ", token, " does not fit the constraint after ",
                                            num_tokens_, " tokens"));
  }
  return absl::OkStatus();
}

}  // namespace

AnswerVocabulary::AnswerVocabulary(const Tokenizer& tokenizer, int32_t num_tokens,
                                   std::vector<int32_t> end_ids, std::vector<int32_t> markers)
    : num_tokens_(num_tokens),
      end_ids_(std::move(end_ids)),
      drops_first_space_(tokenizer.drops_first_space()),
      text_mask_(static_cast<size_t>(CeilDiv(num_tokens, 32)), 0) {
  for (int32_t token : end_ids_) CHECK(token >= 0 && token < num_tokens) << token;
  begin_.reserve(static_cast<size_t>(num_tokens) + 1);
  for (int32_t token = 0; token < num_tokens; ++token) {
    begin_.push_back(texts_.size());
    if (Has(end_ids_, token) || (tokenizer.IsSpecial(token) && !Has(markers, token))) continue;
    const std::string_view text = tokenizer.TokenBytes(token);
    if (text.empty()) continue;
    texts_ += text;
    Set(token, absl::MakeSpan(text_mask_));
    if (WithoutLeadingBlanks(text).empty()) blank_tokens_.push_back(token);
    if (text.front() == ' ') space_first_tokens_.push_back(token);
    const size_t angle = text.find('>');
    if (angle != std::string_view::npos && angle + 1 < text.size()) {
      inner_angle_tokens_.push_back(token);
    }
  }
  begin_.push_back(texts_.size());
}

GrammarVocabulary MakeGrammarVocabulary(const Tokenizer& tokenizer, int32_t num_tokens,
                                        const std::vector<int32_t>& end_ids,
                                        const std::vector<int32_t>& shown) {
  GrammarVocabulary vocabulary;
  vocabulary.num_tokens = num_tokens;
  vocabulary.end_ids = end_ids;
  const int32_t num_texts = std::min(num_tokens, tokenizer.vocab_size());
  vocabulary.texts.reserve(static_cast<size_t>(num_texts));
  for (int32_t token = 0; token < num_texts; ++token) {
    const bool is_shown = !tokenizer.IsSpecial(token) || Has(shown, token);
    vocabulary.texts.emplace_back(is_shown ? tokenizer.TokenBytes(token) : std::string_view());
  }
  return vocabulary;
}

AnswerConstraint::AnswerConstraint(std::shared_ptr<const AnswerVocabulary> vocabulary,
                                   std::shared_ptr<const Grammar> grammar,
                                   const AnswerConstraintOptions& options)
    : vocabulary_(std::move(vocabulary)), grammar_(std::move(grammar)), options_(options) {
  CHECK(grammar_ != nullptr);
}

absl::StatusOr<std::unique_ptr<TokenMatcher>> AnswerConstraint::NewMatcher() const {
  ASSIGN_OR_RETURN(std::unique_ptr<GrammarMatcher> grammar, GrammarMatcher::Create(grammar_));
  return std::make_unique<AnswerMatcher>(vocabulary_, std::move(grammar), options_);
}

}  // namespace fastgen
