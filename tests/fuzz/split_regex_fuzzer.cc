// Any pattern, searched for in any text: the searches end, in order and inside the text, and those
// that look at few bytes at a time find what those that see the whole text do.
//
// The input: a byte that says how often the text is repeated, the pattern, a zero byte, the text.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/unicode.h"
#include "engine/text/split_regex.h"

namespace {

using fastgen::SplitRegex;

struct Result {
  SplitRegex::Outcome outcome;
  std::vector<size_t> bounds;
};

Result FindAll(const SplitRegex& regex, std::string_view text, fastgen::SplitBudget& budget) {
  budget.AddText(text.size());
  SplitRegex::Matcher matcher(regex, &budget);
  Result result = {SplitRegex::Outcome::kMatch, {}};
  SplitRegex::Match match = {0, 0};
  size_t from = 0;
  while ((result.outcome = matcher.Find(text, from, &match)) == SplitRegex::Outcome::kMatch) {
    CHECK(match.begin >= from && match.begin < match.end && match.end <= text.size());
    result.bounds.push_back(match.begin);
    result.bounds.push_back(match.end);
    from = match.end;
  }
  const bool failed = result.outcome == SplitRegex::Outcome::kError;
  CHECK(failed == (matcher.status().code() == absl::StatusCode::kResourceExhausted));
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t num_times = size_t{1} << (data[0] & 7);
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t zero = input.find('\0');
  const std::string_view pattern = input.substr(0, zero);
  const std::string_view part = zero == input.npos ? "It's 12 a\u6f22  \n" : input.substr(zero + 1);
  if (!fastgen::IsValidUtf8(part)) return 0;
  const auto regex = SplitRegex::Compile(pattern);
  if (!regex.ok()) return 0;
  std::string text;
  for (size_t i = 0; i < num_times; ++i) text += part;
  fastgen::SplitBudget quick_budget;
  const Result quick = FindAll(*regex, text, quick_budget);
  fastgen::SplitBudget counted_budget;
  counted_budget.CountAll();
  const Result counted = FindAll(*regex, text, counted_budget);
  // Which of two texts is too much depends on the way, what is found does not.
  if (quick.outcome == counted.outcome && quick.outcome == SplitRegex::Outcome::kNoMatch) {
    CHECK(quick.bounds == counted.bounds) << pattern;
  }
  return 0;
}
