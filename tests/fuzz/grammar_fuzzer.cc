// Any text as any kind of constraint: it is refused, or compiled within its budget and followed for
// a while, and what the mask allows is accepted.
//
// The first byte chooses the kind, the second seeds the tokens; the rest is the source.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "tests/engine/text/grammar_under_test.h"

namespace {

using fastgen::Constraint;
using fastgen::ToolCallFormat;
using fastgen::testing::GrammarUnderTest;

constexpr Constraint::Kind kKinds[] = {
    Constraint::Kind::kJsonSchema, Constraint::Kind::kRegex,         Constraint::Kind::kChoice,
    Constraint::Kind::kGrammar,    Constraint::Kind::kStructuralTag, Constraint::Kind::kToolCalls};

void Follow(const GrammarUnderTest& under_test, std::shared_ptr<const fastgen::Grammar> grammar,
            uint32_t seed) {
  auto matcher = under_test.Matcher(std::move(grammar));
  for (int i = 0; i < 24; ++i) {
    const std::vector<int32_t> allowed = under_test.Allowed(matcher.get());
    if (allowed.empty()) return;
    seed = seed * 1664525 + 1013904223;
    const absl::Status status = matcher->Accept(allowed[(seed >> 8) % allowed.size()]);
    CHECK(status.ok() || absl::IsResourceExhausted(status)) << status.ToString();
    if (!status.ok()) return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const GrammarUnderTest* const under_test =
      new GrammarUnderTest({"{\"", "\": ", ", ", "true", "null", "ab", "\xc3\xa9", "\n\n", "12"});
  if (size < 2) return 0;
  Constraint constraint;
  constraint.kind = kKinds[data[0] % std::size(kKinds)];
  constraint.text.assign(reinterpret_cast<const char*>(data) + 2, size - 2);
  constraint.choices = {constraint.text, "other"};
  constraint.optional = (data[0] & 0x80) != 0;
  fastgen::ToolCallStyle style;
  style.format = static_cast<ToolCallFormat>(data[1] % 4);
  fastgen::GrammarBudget::Limits limits;
  limits.time = std::chrono::milliseconds(500);
  limits.memory_bytes = 128 << 20;
  const auto grammar = under_test->Compile(constraint, {constraint.text}, style, limits);
  if (!grammar.ok()) {
    CHECK(!grammar.status().message().empty());
    return 0;
  }
  Follow(*under_test, *grammar, data[1]);
  return 0;
}
