#include "engine/text/split_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/strings.h"
#include "base/unicode.h"

namespace fastgen {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;

// Backtracking steps. A match that stays below the first limit is free. One that does not is tried
// again with a limit that grows, and every such limit is taken from what all the texts of one
// Matcher may cost together: far above what published patterns need (a few per byte).
constexpr uint32_t kFirstMatchLimit = 1000;
constexpr uint32_t kMatchLimitGrowth = 8;
constexpr uint64_t kStepBudgetBase = 10'000'000;
constexpr uint64_t kStepBudgetPerByte = 64;
constexpr uint32_t kMaxMatchLimit = 2'000'000'000;
// The interpreter's memory (KiB), for machines without JIT.
constexpr uint32_t kHeapLimitKib = 256 << 10;
// The JIT's own stack, made only when the 32 KiB on the machine's stack do not suffice.
constexpr size_t kJitStackStartBytes = 64 << 10;
constexpr size_t kMaxJitStackBytes = 64 << 20;

// PCRE2's \s holds U+180E (it stopped being white space in Unicode 6.3); that of the programs that
// tokenizers are made with is White_Space, which does not. Escapes inside \Q...\E stay as they are.
std::string WithUnicodeWhiteSpace(std::string_view pattern) {
  constexpr std::string_view kIs = R"(\p{wspace})";
  constexpr std::string_view kIsNot = R"(\P{wspace})";
  constexpr std::string_view kPosix = "[:space:]";
  constexpr std::string_view kNotPosix = "[:^space:]";
  std::string out;
  for (size_t pos = 0; pos < pattern.size();) {
    const std::string_view rest = pattern.substr(pos);
    std::string_view as = rest.substr(0, 1);
    size_t num_bytes = 1;
    if (rest.substr(0, kPosix.size()) == kPosix) {
      as = kIs;
      num_bytes = kPosix.size();
    } else if (rest.substr(0, kNotPosix.size()) == kNotPosix) {
      as = kIsNot;
      num_bytes = kNotPosix.size();
    } else if (rest.size() > 1 && rest[0] == '\\') {
      num_bytes = 2;
      if (rest[1] == 'Q') num_bytes = std::min(rest.size(), rest.find("\\E", 2));
      // \cS is a control character.
      if (rest[1] == 'c') num_bytes = std::min<size_t>(rest.size(), 3);
      as = rest[1] == 's' ? kIs : rest[1] == 'S' ? kIsNot : rest.substr(0, num_bytes);
    }
    out += as;
    pos += num_bytes;
  }
  return out;
}

pcre2_code* CompilePattern(std::string_view pattern, int* error, PCRE2_SIZE* offset) {
  // NEVER_BACKSLASH_C: \C could match half a character.
  return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                       PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, error, offset, nullptr);
}

std::string ErrorText(int error) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(error, buffer, sizeof(buffer)) < 0)
    return absl::StrCat("error ", error);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct SplitRegex::Code {
  ~Code() { pcre2_code_free(code); }
  std::string pattern;
  pcre2_code* code = nullptr;
};

struct SplitRegex::Matcher::State {
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (jit_stack != nullptr) pcre2_jit_stack_free(jit_stack);
  }
  const Code* regex = nullptr;
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* jit_stack = nullptr;
  uint32_t match_limit = 0;
  uint64_t step_budget = kStepBudgetBase;
};

SplitRegex::SplitRegex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;
SplitRegex& SplitRegex::operator=(SplitRegex&&) noexcept = default;
SplitRegex::~SplitRegex() = default;

absl::StatusOr<SplitRegex> SplitRegex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("split pattern has ", pattern.size(), " bytes, more than ", kMaxPatternBytes));
  }
  if (!IsValidUtf8(pattern)) return absl::InvalidArgumentError("split pattern is not UTF-8");
  auto code = std::make_unique<Code>();
  code->pattern = std::string(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code->code = CompilePattern(WithUnicodeWhiteSpace(pattern), &error, &offset);
  if (code->code == nullptr) {
    // The place in the pattern as it was given.
    pcre2_code_free(CompilePattern(pattern, &error, &offset));
    return absl::InvalidArgumentError(absl::StrCat("split pattern '", ToAbsl(pattern), "', offset ",
                                                   offset, ": ", ErrorText(error)));
  }
  // Where the machine forbids executable memory this fails, and matches are interpreted.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  return SplitRegex(std::move(code));
}

SplitRegex::Matcher::Matcher(const SplitRegex& regex) : state_(std::make_unique<State>()) {
  state_->regex = regex.code_.get();
  state_->data = pcre2_match_data_create(1, nullptr);  // the whole match; groups are of no interest
  state_->context = pcre2_match_context_create(nullptr);
  CHECK(state_->data != nullptr && state_->context != nullptr) << "out of memory";
  pcre2_set_heap_limit(state_->context, kHeapLimitKib);
}

SplitRegex::Matcher::Matcher(Matcher&&) noexcept = default;
SplitRegex::Matcher::~Matcher() = default;

int SplitRegex::Matcher::RunWithin(uint32_t match_limit, std::string_view text, size_t from) {
  if (match_limit != state_->match_limit) {
    state_->match_limit = match_limit;
    pcre2_set_match_limit(state_->context, match_limit);
  }
  const auto match = [&] {
    return pcre2_match(state_->regex->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                       from, PCRE2_NO_UTF_CHECK, state_->data, state_->context);
  };
  int result = match();
  if (result == PCRE2_ERROR_JIT_STACKLIMIT && state_->jit_stack == nullptr) {
    state_->jit_stack = pcre2_jit_stack_create(kJitStackStartBytes, kMaxJitStackBytes, nullptr);
    if (state_->jit_stack != nullptr) {
      pcre2_jit_stack_assign(state_->context, nullptr, state_->jit_stack);
      result = match();
    }
  }
  return result;
}

int SplitRegex::Matcher::Run(std::string_view text, size_t from) {
  if (from == 0) state_->step_budget += text.size() * kStepBudgetPerByte;
  uint64_t limit = kFirstMatchLimit;
  while (true) {
    const int result = RunWithin(static_cast<uint32_t>(limit), text, from);
    if (result != PCRE2_ERROR_MATCHLIMIT) return result;
    limit = std::min<uint64_t>({limit * kMatchLimitGrowth, state_->step_budget, kMaxMatchLimit});
    if (limit <= state_->match_limit) return result;
    state_->step_budget -= limit;
  }
}

SplitRegex::Outcome SplitRegex::Matcher::Find(std::string_view text, size_t from, Match* match) {
  while (from < text.size()) {
    const int result = Run(text, from);
    if (result == PCRE2_ERROR_NOMATCH) return Outcome::kNoMatch;
    if (result < 0) {
      status_ = absl::ResourceExhaustedError(absl::StrCat("split pattern '", state_->regex->pattern,
                                                          "' on a text of ", text.size(),
                                                          " bytes: ", ErrorText(result)));
      return Outcome::kError;
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(state_->data);
    if (bounds[1] > bounds[0] && bounds[0] >= from) {
      *match = {bounds[0], bounds[1]};
      return Outcome::kMatch;
    }
    // An empty match (or one that \K moved) splits nothing: look again one character on.
    from = std::max<size_t>(from, bounds[1]);
    if (from < text.size()) from += DecodeUtf8(text, from).num_bytes;
  }
  return Outcome::kNoMatch;
}

}  // namespace fastgen
