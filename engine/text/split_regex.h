// SplitRegex: one pre-tokenisation pattern, compiled once (PCRE2, with JIT where the machine allows
// it). SplitBudget: what the searches of one text may cost, by all its patterns together.
//
// Patterns come from tokenizer files and texts from requests, so both may be hostile. PCRE2's own
// limit counts backtracking for each start alone, and neither starts nor scans, so one call can
// take quadratic time below it. Hence two ways to search, which find the same matches:
//   quick    up to 64 bytes, with a small match limit. Says where it would have to look further.
//            Nearly every match of real patterns ends here, as fast as PCRE2 alone.
//   counted  the whole text, by a copy of the pattern that calls back before each of its items:
//            every item tried and every byte passed over is a step of the budget, exactly.
// So a search that scans or backtracks far is counted and its outcome the same on every machine.
// What is left is time linear in the text with a large factor, where quick searches are counted by
// nobody: once they took far more time than real patterns do, the rest of the text is counted. The
// clock chooses the way only; what is refused, the steps alone decide.
// Thread rule: SplitRegex is immutable and used from any thread; each call makes its own
// SplitBudget and Matchers, on one thread. Tested by tests/engine/text/split_regex_test.cc,
// tests/fuzz/split_regex_fuzzer.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fastgen {

class SplitBudget {
 public:
  SplitBudget();

  // Another `num_bytes` of text are searched. REQUIRES: said before they are.
  void AddText(size_t num_bytes);

  // Counts every search from now on.
  void CountAll() { counts_all_ = true; }
  bool counts_all() const { return counts_all_; }

  uint64_t num_steps() const { return num_steps_; }
  uint64_t max_steps() const { return max_steps_; }

 private:
  friend class SplitRegex;

  // Takes a quick search by a pattern of `num_items`, which does no more between two looks at the
  // clock than takes a fifth of a second.
  void TakeQuickSearch(size_t num_items);

  uint64_t num_steps_ = 0;
  uint64_t max_steps_;
  bool counts_all_ = false;
  size_t num_items_until_look_ = 0;
  std::chrono::nanoseconds quick_time_;
  std::chrono::steady_clock::time_point begin_;
  std::chrono::nanoseconds begin_on_processor_;
};

class SplitRegex {
 public:
  // INVALID_ARGUMENT with the pattern, the place and the reason.
  static absl::StatusOr<SplitRegex> Compile(std::string_view pattern);

  SplitRegex(SplitRegex&&) noexcept;
  SplitRegex& operator=(SplitRegex&&) noexcept;
  ~SplitRegex();

  struct Match {
    size_t begin;
    size_t end;
  };

  enum class Outcome { kMatch, kNoMatch, kError };

  // What one call needs besides the pattern. Must outlive neither the SplitRegex nor the budget.
  class Matcher {
   public:
    Matcher(const SplitRegex& regex, SplitBudget* budget);
    Matcher(Matcher&&) noexcept;
    ~Matcher();

    // The first match in `text` at or after `from` that is not empty. Lookarounds see all of `text`
    // and nothing beyond it. REQUIRES: `text` is UTF-8.
    Outcome Find(std::string_view text, size_t from, Match* match);

    // Why Find answered kError: RESOURCE_EXHAUSTED.
    const absl::Status& status() const { return status_; }

   private:
    struct State;
    int SearchQuickly(std::string_view text, size_t* from, size_t end);
    int SearchCounted(std::string_view text, size_t from);
    int Search(std::string_view text, size_t from);

    std::unique_ptr<State> state_;
    absl::Status status_;
  };

 private:
  struct Code;
  explicit SplitRegex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace fastgen
