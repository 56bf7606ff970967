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

// Backtracking steps that one match may take: far above what published patterns need (a few per
// byte).
constexpr uint32_t kMatchLimitBase = 10'000'000;
constexpr uint32_t kMatchLimitPerByte = 64;
constexpr uint32_t kMaxMatchLimit = 2'000'000'000;
// The interpreter's memory (KiB), for machines without JIT.
constexpr uint32_t kHeapLimitKib = 256 << 10;
// The JIT's own stack, made only when the 32 KiB on the machine's stack do not suffice.
constexpr size_t kJitStackStartBytes = 64 << 10;
constexpr size_t kMaxJitStackBytes = 64 << 20;

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
  // NEVER_BACKSLASH_C: \C could match half a character.
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code->code == nullptr) {
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

int SplitRegex::Matcher::Run(std::string_view text, size_t from) {
  const uint32_t limit = static_cast<uint32_t>(std::min<uint64_t>(
      kMaxMatchLimit, kMatchLimitBase + text.size() * uint64_t{kMatchLimitPerByte}));
  if (limit != state_->match_limit) {
    state_->match_limit = limit;
    pcre2_set_match_limit(state_->context, limit);
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
