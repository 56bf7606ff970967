// What a request's rules about single tokens come to, once its words are tokens.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/check_request.h"

namespace fastgen {
namespace {

absl::Status AddBadWord(const std::string& word, const Tokenizer& tokenizer,
                        std::vector<std::vector<int32_t>>* bad_words) {
  EncodeOptions options;
  options.add_special_tokens = false;
  options.parse_special = false;
  for (const std::string& text : {word, absl::StrCat(" ", word)}) {
    auto ids = tokenizer.Encode(text, options);
    if (!ids.ok()) {
      return absl::Status(ids.status().code(),
                          absl::StrCat("sampling.bad_words: ", ids.status().message()));
    }
    if (ids->empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("sampling.bad_words: \"", word, "\" has no tokens"));
    }
    bad_words->push_back(*std::move(ids));
  }
  return absl::OkStatus();
}

template <typename T>
void SortUnique(std::vector<T>* values) {
  std::sort(values->begin(), values->end());
  values->erase(std::unique(values->begin(), values->end()), values->end());
}

// Whether some allowed id may be sampled in every step.
absl::Status CheckSomethingIsLeft(const TokenRules& rules, const StopCondition& stop) {
  if (rules.allowed_token_ids.empty()) return absl::OkStatus();
  std::vector<int32_t> banned;
  if (stop.min_output_tokens > 0) banned = stop.stop_token_ids;
  for (const std::vector<int32_t>& word : rules.bad_words) {
    if (word.size() == 1) banned.push_back(word.front());
  }
  SortUnique(&banned);
  for (int32_t id : rules.allowed_token_ids) {
    if (!std::binary_search(banned.begin(), banned.end(), id)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "sampling.allowed_token_ids: none of the ", rules.allowed_token_ids.size(),
      " ids may be sampled: each is a bad word, or a stop id while under stopping.min_tokens (",
      stop.min_output_tokens, ")"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TokenRules>> MakeTokenRules(const SamplingParams& sampling,
                                                                 const StopCondition& stop,
                                                                 const Tokenizer& tokenizer) {
  if (sampling.logit_bias.empty() && sampling.allowed_token_ids.empty() &&
      sampling.bad_words.empty()) {
    return std::shared_ptr<const TokenRules>();
  }
  auto rules = std::make_shared<TokenRules>();
  rules->logit_bias = sampling.logit_bias;
  rules->allowed_token_ids = sampling.allowed_token_ids;
  SortUnique(&rules->allowed_token_ids);
  for (const std::string& word : sampling.bad_words) {
    RETURN_IF_ERROR(AddBadWord(word, tokenizer, &rules->bad_words));
  }
  SortUnique(&rules->bad_words);
  RETURN_IF_ERROR(CheckSomethingIsLeft(*rules, stop));
  return std::shared_ptr<const TokenRules>(std::move(rules));
}

}  // namespace fastgen
