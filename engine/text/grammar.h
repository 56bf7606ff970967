// Grammar: the only door to xgrammar. A structural tag, the library's JSON form of all that a
// grammar may be, is compiled against a model's vocabulary; a matcher then follows an output token
// by token and tells which tokens may come next.
//
// Sources are untrusted and so is what they do to the library: its exceptions become absl::Status,
// what it would warn about (a keyword that it ignores) is an error, as an answer must not look
// constrained where it is not, and each call has a GrammarBudget. Depth and size of a source are
// for the caller to bound (engine/text/structural_tag.h). What no grammar may choose (special
// tokens, holes) has the text "" in the vocabulary. Thread rule: compiler and grammar: any thread,
// immutable. A matcher: one thread at a time. Tested by tests/engine/text/grammar_test.cc; fuzzed
// by tests/fuzz/grammar_fuzzer.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/text/grammar_budget.h"

namespace fastgen {

struct GrammarVocabulary {
  std::vector<std::string> texts;  // [at most num_tokens] what each id stands for
  int32_t num_tokens = 0;          // rows of the logits
  std::vector<int32_t> end_ids;    // any of them ends a whole output
};

// A compiled source.
class Grammar {
 public:
  struct Parts;
  explicit Grammar(std::unique_ptr<Parts> parts);
  ~Grammar();
  int64_t num_bytes() const;  // memory that it takes, roughly

 private:
  friend class GrammarMatcher;
  const std::unique_ptr<Parts> parts_;
};

class GrammarCompiler {
 public:
  // INVALID_ARGUMENT for a vocabulary that the library does not take.
  static absl::StatusOr<std::unique_ptr<GrammarCompiler>> Create(GrammarVocabulary vocabulary);
  ~GrammarCompiler();

  // INVALID_ARGUMENT with the reason; RESOURCE_EXHAUSTED when the budget is spent.
  absl::StatusOr<std::shared_ptr<const Grammar>> Compile(const std::string& structural_tag,
                                                         const GrammarBudget::Limits& limits) const;

 private:
  struct Parts;
  explicit GrammarCompiler(std::unique_ptr<Parts> parts);
  const std::unique_ptr<Parts> parts_;
};

struct MatcherLimits {
  int64_t num_bytes = 256 << 20;                // an honest output takes some 100 bytes a token
  int64_t num_bytes_of_all = int64_t{1} << 30;  // of all matchers of the process
};

// Follows one output. After an error, and once it has ended, it is of no further use and keeps
// nothing. What it remembers grows with the output; of one matcher and of all together it is
// bounded.
class GrammarMatcher {
 public:
  // RESOURCE_EXHAUSTED, here and below, where the grammar is too ambiguous for the output so far,
  // or for all that are followed at the same time.
  static absl::StatusOr<std::unique_ptr<GrammarMatcher>> Create(
      std::shared_ptr<const Grammar> grammar, const MatcherLimits& limits = {});
  ~GrammarMatcher();

  // False when `token` may not come next; nothing has changed then.
  absl::StatusOr<bool> Accept(int32_t token);
  // Bit t % 32 of word t / 32 for each token that may come next. `mask` is [ceil(num_tokens / 32)].
  absl::Status FillMask(absl::Span<uint32_t> mask);
  // What was accepted is a whole output.
  bool is_whole() const;
  // An end token was accepted: nothing may come any more.
  bool has_ended() const { return has_ended_; }
  // Of all matchers of the process.
  static int64_t num_bytes_of_all();

 private:
  struct Parts;
  GrammarMatcher(std::shared_ptr<const Grammar> grammar, const MatcherLimits& limits);
  template <typename Work>
  absl::Status Run(Work work);
  void Release();

  const std::shared_ptr<const Grammar> grammar_;
  const MatcherLimits limits_;
  std::unique_ptr<Parts> parts_;  // null: it has ended, or failed
  int64_t num_bytes_ = 0;         // that parts_ takes
  bool has_ended_ = false;
  bool has_failed_ = false;
};

}  // namespace fastgen
