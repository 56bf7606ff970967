#include "engine/text/split_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/strings.h"
#include "base/unicode.h"

namespace fastgen {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
constexpr size_t kMaxPatternItems = 2048;
// PCRE2 walks through every character of a range without case, which costs milliseconds.
constexpr size_t kMaxRangesWithoutCase = 64;

// A quick search.
constexpr size_t kQuickBytes = 64;
constexpr uint32_t kQuickMatchLimit = 16;
// What all quick searches may take before searches are counted: several times what the whole
// tokenizer needs on a slow machine.
constexpr std::chrono::nanoseconds kQuickTimeBase = std::chrono::milliseconds(50);
constexpr std::chrono::nanoseconds kQuickTimePerByte{250};
// At most kQuickBytes starts, each with kQuickMatchLimit ways, each of which tries every item on
// kQuickBytes / 2 on average, at 1.5 ns: 50 us an item, if ever.
constexpr size_t kItemsPerLook = 4096;

// Counted searches. A step is about a nanosecond: one byte passed over, or an eighth of a callback.
// Published patterns need up to 100 a byte.
constexpr uint64_t kStepBudgetBase = 1 << 24;
constexpr uint64_t kStepBudgetPerByte = 512;
constexpr uint64_t kStepsPerCallback = 8;
// A class of many ranges takes one step more for that many bytes of its text.
constexpr size_t kClassBytesPerStep = 64;
constexpr int kTooManySteps = -1000;  // no error of PCRE2's

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

pcre2_code* CompilePattern(std::string_view pattern, uint32_t options, int* error,
                           PCRE2_SIZE* offset) {
  // NEVER_BACKSLASH_C: \C could match half a character.
  return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                       PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | options, error, offset,
                       nullptr);
}

// A pattern in a message.
std::string Quoted(std::string_view pattern) {
  constexpr size_t kMaxShownBytes = 300;
  if (pattern.size() <= kMaxShownBytes) return absl::StrCat("'", ToAbsl(pattern), "'");
  size_t end = kMaxShownBytes;
  while ((static_cast<uint8_t>(pattern[end]) & 0xC0) == 0x80) --end;
  return absl::StrCat("'", ToAbsl(pattern.substr(0, end)), "...' (", pattern.size(), " bytes)");
}

std::string ErrorText(int error) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(error, buffer, sizeof(buffer)) < 0)
    return absl::StrCat("error ", error);
  return reinterpret_cast<const char*>(buffer);
}

// What one item of a pattern costs.
struct ItemCost {
  uint32_t callback = kStepsPerCallback;  // before it, and for what it may pass over and then fail
  uint32_t byte = 1;                      // for each byte that it passes over
};

// The items of a pattern, as it is compiled, by their places in it.
struct Items {
  std::string_view pattern;
  std::vector<ItemCost> costs;
  size_t num_items = 0;
  std::string_view refused = {};
};

// The smallest number of times that `item` is repeated, where that is written in braces.
uint64_t MinRepeats(std::string_view item) {
  const size_t brace = item.empty() || item.back() != '}' ? item.npos : item.rfind('{');
  uint64_t min = 0;
  if (brace == item.npos) return 1;
  for (size_t pos = brace + 1; item[pos] >= '0' && item[pos] <= '9' && min < 100'000; ++pos) {
    min = min * 10 + static_cast<uint64_t>(item[pos] - '0');
  }
  return std::max<uint64_t>(min, 1);
}

int AddItem(pcre2_callout_enumerate_block* block, void* data) {
  Items& items = *static_cast<Items*>(data);
  const std::string_view item =
      items.pattern.substr(block->pattern_position, block->next_item_length);
  ++items.num_items;
  for (const std::string_view refused : {R"(\X)", R"(\G)", "(*"}) {
    if (item.substr(0, refused.size()) == refused) items.refused = refused;
  }
  ItemCost& cost = items.costs[block->pattern_position];
  cost.byte = static_cast<uint32_t>(1 + item.size() / kClassBytesPerStep);
  cost.callback = static_cast<uint32_t>(
      std::min<uint64_t>(kStepsPerCallback + (MinRepeats(item) - 1) * cost.byte, UINT32_MAX));
  return 0;
}

bool HasTooManyRangesWithoutCase(std::string_view pattern) {
  bool has_flag = false;
  for (size_t pos = pattern.find("(?"); pos != pattern.npos; pos = pattern.find("(?", pos + 1)) {
    const size_t end = pattern.find_first_not_of("^-imsxnUJa", pos + 2);
    if (pattern.substr(pos, end - pos).find('i') != pattern.npos) has_flag = true;
  }
  const auto num_ranges = static_cast<size_t>(std::count(pattern.begin(), pattern.end(), '-'));
  return has_flag && num_ranges > kMaxRangesWithoutCase;
}

// That the calling thread has had.
std::chrono::nanoseconds TimeOnProcessor() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

// One counted search.
struct Count {
  const std::vector<ItemCost>* costs;
  uint64_t max_steps;
  uint64_t num_steps = 0;
  size_t pos = 0;
  uint64_t byte_cost = 1;
};

int CountItem(pcre2_callout_block* block, void* data) {
  Count& count = *static_cast<Count*>(data);
  const size_t pos = block->current_position;
  // From one callback to the next an item passes over what lies between, or gives it back.
  const size_t num_bytes = pos > count.pos ? pos - count.pos : count.pos - pos;
  const ItemCost& cost = (*count.costs)[block->pattern_position];
  count.num_steps += num_bytes * count.byte_cost + cost.callback;
  count.pos = pos;
  count.byte_cost = cost.byte;
  return count.num_steps > count.max_steps ? kTooManySteps : 0;
}

}  // namespace

SplitBudget::SplitBudget()
    : max_steps_(kStepBudgetBase),
      quick_time_(kQuickTimeBase),
      begin_(std::chrono::steady_clock::now()),
      begin_on_processor_(TimeOnProcessor()) {}

void SplitBudget::AddText(size_t num_bytes) {
  max_steps_ += num_bytes * kStepBudgetPerByte;
  quick_time_ += num_bytes * kQuickTimePerByte;
}

void SplitBudget::TakeQuickSearch(size_t num_items) {
  if (num_items <= num_items_until_look_) {
    num_items_until_look_ -= num_items;
    return;
  }
  num_items_until_look_ = kItemsPerLook;
  const auto now = std::chrono::steady_clock::now();
  if (now - begin_ <= quick_time_) return;
  // On a busy machine most of that may have gone to others. No more can have gone to this thread
  // before as much time as is left has passed again.
  const std::chrono::nanoseconds taken = TimeOnProcessor() - begin_on_processor_;
  if (taken > quick_time_) counts_all_ = true;
  begin_ = now - taken;
}

struct SplitRegex::Code {
  ~Code() {
    pcre2_code_free(quick);
    pcre2_code_free(counted);
  }
  std::string pattern;
  pcre2_code* quick = nullptr;
  pcre2_code* counted = nullptr;
  std::vector<ItemCost> costs;
  size_t num_items = 0;
};

struct SplitRegex::Matcher::State {
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(quick);
    pcre2_match_context_free(counted);
    if (jit_stack != nullptr) pcre2_jit_stack_free(jit_stack);
  }
  const Code* regex = nullptr;
  SplitBudget* budget = nullptr;
  pcre2_match_data* data = nullptr;
  pcre2_match_context* quick = nullptr;
  pcre2_match_context* counted = nullptr;
  pcre2_jit_stack* jit_stack = nullptr;
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
  const auto refuse = [&](const auto&... why) {
    return absl::InvalidArgumentError(absl::StrCat("split pattern ", Quoted(pattern), why...));
  };
  if (HasTooManyRangesWithoutCase(pattern)) {
    return refuse(" ignores case and has more than ", kMaxRangesWithoutCase, " ranges");
  }
  auto code = std::make_unique<Code>();
  code->pattern = std::string(pattern);
  const std::string compiled = WithUnicodeWhiteSpace(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code->counted = CompilePattern(compiled, PCRE2_AUTO_CALLOUT, &error, &offset);
  if (code->counted == nullptr) {
    // The place in the pattern as it was given.
    pcre2_code_free(CompilePattern(pattern, PCRE2_AUTO_CALLOUT, &error, &offset));
    return refuse(", offset ", offset, ": ", ErrorText(error));
  }
  Items items = {compiled, std::vector<ItemCost>(compiled.size() + 1)};
  pcre2_callout_enumerate(code->counted, AddItem, &items);
  uint32_t max_reference = 0;
  pcre2_pattern_info(code->counted, PCRE2_INFO_BACKREFMAX, &max_reference);
  if (max_reference > 0) items.refused = "a reference to a group";
  // What these cost nothing counts, or they mean another thing where a search goes on.
  if (!items.refused.empty()) return refuse(" has ", ToAbsl(items.refused), ", not supported");
  if (items.num_items > kMaxPatternItems) {
    return refuse(" has ", items.num_items, " items, more than ", kMaxPatternItems);
  }
  code->costs = std::move(items.costs);
  code->num_items = items.num_items;
  code->quick = CompilePattern(compiled, 0, &error, &offset);
  CHECK(code->quick != nullptr) << ErrorText(error);
  // Where the machine forbids executable memory these fail, and matches are interpreted.
  pcre2_jit_compile(code->quick, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  pcre2_jit_compile(code->counted, PCRE2_JIT_COMPLETE);
  return SplitRegex(std::move(code));
}

SplitRegex::Matcher::Matcher(const SplitRegex& regex, SplitBudget* budget)
    : state_(std::make_unique<State>()) {
  state_->regex = regex.code_.get();
  state_->budget = budget;
  state_->data = pcre2_match_data_create(1, nullptr);  // the whole match; groups are of no interest
  state_->quick = pcre2_match_context_create(nullptr);
  state_->counted = pcre2_match_context_create(nullptr);
  CHECK(state_->data != nullptr && state_->quick != nullptr && state_->counted != nullptr)
      << "out of memory";
  pcre2_set_match_limit(state_->quick, kQuickMatchLimit);
  pcre2_set_heap_limit(state_->quick, kHeapLimitKib);
  pcre2_set_match_limit(state_->counted, UINT32_MAX);
  pcre2_set_depth_limit(state_->counted, UINT32_MAX);
  pcre2_set_heap_limit(state_->counted, kHeapLimitKib);
}

SplitRegex::Matcher::Matcher(Matcher&&) noexcept = default;
SplitRegex::Matcher::~Matcher() = default;

// Searches for a match that begins in [*from, end), and sees nothing beyond `end`. Where it would
// have to, or reaches a limit, the answer is another error than NOMATCH, and no match begins before
// *from. A pattern that may match nothing is answered so at `end`, too, unless it matches there
// whatever follows.
int SplitRegex::Matcher::SearchQuickly(std::string_view text, size_t* from, size_t end) {
  state_->budget->TakeQuickSearch(state_->regex->num_items);
  const uint32_t options = end < text.size() ? PCRE2_PARTIAL_HARD : 0;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // The direct way into the machine code, which does not check again what was checked here.
  int result = pcre2_jit_match(state_->regex->quick, subject, end, *from, options, state_->data,
                               state_->quick);
  if (result == PCRE2_ERROR_JIT_BADOPTION) {  // there is no machine code
    result = pcre2_match(state_->regex->quick, subject, end, *from, options | PCRE2_NO_UTF_CHECK,
                         state_->data, state_->quick);
  }
  if (result == PCRE2_ERROR_PARTIAL) *from = pcre2_get_startchar(state_->data);
  return result;
}

// Searches for a match that begins at or after `from`, and sees the whole text.
int SplitRegex::Matcher::SearchCounted(std::string_view text, size_t from) {
  SplitBudget& budget = *state_->budget;
  Count count = {&state_->regex->costs, budget.max_steps_, budget.num_steps_, from};
  pcre2_set_callout(state_->counted, CountItem, &count);
  const auto search = [&] {
    return pcre2_match(state_->regex->counted, reinterpret_cast<PCRE2_SPTR>(text.data()),
                       text.size(), from, PCRE2_NO_UTF_CHECK, state_->data, state_->counted);
  };
  int result = search();
  if (result == PCRE2_ERROR_JIT_STACKLIMIT && state_->jit_stack == nullptr) {
    state_->jit_stack = pcre2_jit_stack_create(kJitStackStartBytes, kMaxJitStackBytes, nullptr);
    if (state_->jit_stack != nullptr) {
      pcre2_jit_stack_assign(state_->counted, nullptr, state_->jit_stack);
      result = search();
    }
  }
  budget.num_steps_ = count.num_steps;
  return result;
}

// Searches for a match that begins at or after `from`: window by window, until one does not do.
int SplitRegex::Matcher::Search(std::string_view text, size_t from) {
  while (!state_->budget->counts_all()) {
    size_t end = text.size();
    if (end - from > kQuickBytes) {
      end = from + kQuickBytes;
      while ((static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
    }
    const int result = SearchQuickly(text, &from, end);
    if (result >= 0) return result;
    if (result != PCRE2_ERROR_NOMATCH) break;
    if (end == text.size()) return result;
    from = end;
  }
  return SearchCounted(text, from);
}

SplitRegex::Outcome SplitRegex::Matcher::Find(std::string_view text, size_t from, Match* match) {
  while (from < text.size()) {
    const int result = Search(text, from);
    if (result == PCRE2_ERROR_NOMATCH) return Outcome::kNoMatch;
    if (result < 0) {
      const std::string why =
          result == kTooManySteps
              ? absl::StrCat("more than ", state_->budget->max_steps(), " steps")
              : ErrorText(result);
      status_ = absl::ResourceExhaustedError(
          absl::StrCat("split pattern ", Quoted(state_->regex->pattern), " on a text of ",
                       text.size(), " bytes: ", why));
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
