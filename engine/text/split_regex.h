// SplitRegex: one pre-tokenisation pattern, compiled once (PCRE2, with JIT where the machine allows
// it).
//
// Patterns come from tokenizer files and texts from requests, so both may be hostile: matches that
// backtrack, all together, more than a generous multiple of the text's length fail the call.
// What real patterns do on a megabyte of one character stays far below that.
// Thread rule: SplitRegex is immutable and used from any thread; each call makes its own Matcher.
// Tested by tests/engine/text/split_regex_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fastgen {

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

  // What one call needs besides the pattern. Must not outlive the SplitRegex.
  class Matcher {
   public:
    explicit Matcher(const SplitRegex& regex);
    Matcher(Matcher&&) noexcept;
    ~Matcher();

    // The first match in `text` at or after `from` that is not empty. Lookarounds see all of `text`
    // and nothing beyond it. REQUIRES: `text` is UTF-8.
    Outcome Find(std::string_view text, size_t from, Match* match);

    // Why Find answered kError: RESOURCE_EXHAUSTED.
    const absl::Status& status() const { return status_; }

   private:
    struct State;
    int RunWithin(uint32_t match_limit, std::string_view text, size_t from);
    int Run(std::string_view text, size_t from);

    std::unique_ptr<State> state_;
    absl::Status status_;
  };

 private:
  struct Code;
  explicit SplitRegex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace fastgen
