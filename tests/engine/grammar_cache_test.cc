// Compilations beside their callers: once for equal sources, bounded, and answered in any case.
#include "engine/grammar_cache.h"

#include <atomic>
#include <latch>
#include <semaphore>
#include <string>
#include <thread>

#include "tests/testing/fake_tokenizer.h"
// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
#undef CHECK
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

using testing::FakeTokenizer;

std::string Regex(const std::string& pattern) {
  return "{\"type\":\"structural_tag\",\"format\":{\"type\":\"regex\",\"pattern\":\"" + pattern +
         "\"}}";
}

TEST_CASE("equal sources are compiled once, and errors are not kept", "[engine]") {
  const FakeTokenizer tokenizer;
  GrammarCache cache(&tokenizer, tokenizer.vocab_size(), {FakeTokenizer::kEos}, {});
  const auto first = cache.CompileNow(Regex("a+"), GrammarCache::Markers::kHidden);
  REQUIRE(first.ok());
  CHECK(*cache.CompileNow(Regex("a+"), GrammarCache::Markers::kHidden) == *first);
  CHECK(*cache.CompileNow(Regex("b+"), GrammarCache::Markers::kHidden) != *first);
  for (int i = 0; i < 2; ++i) {
    const auto bad = cache.CompileNow(Regex("("), GrammarCache::Markers::kHidden);
    CHECK(absl::IsInvalidArgument(bad.status()));
    CHECK(bad.status().message().substr(0, 12) == "constraint: ");
  }
}

TEST_CASE("every caller is answered once, also when the cache ends", "[engine]") {
  const FakeTokenizer tokenizer;
  std::atomic<int> num_answers = 0;
  std::atomic<int> num_refused = 0;
  constexpr int kNumCalls = 400;
  {
    GrammarCache cache(&tokenizer, tokenizer.vocab_size(), {FakeTokenizer::kEos}, {});
    for (int i = 0; i < kNumCalls; ++i) {
      cache.Compile(Regex("[a-z]{" + std::to_string(i % 200 + 1) + "}x"),
                    GrammarCache::Markers::kHidden,
                    [&](absl::StatusOr<std::shared_ptr<const Grammar>> grammar) {
                      num_answers.fetch_add(1);
                      if (absl::IsResourceExhausted(grammar.status())) num_refused.fetch_add(1);
                    });
    }
  }
  CHECK(num_answers.load() == kNumCalls);
  CHECK(num_refused.load() > 0);
}

TEST_CASE("callers that wait for one compilation are bounded", "[engine]") {
  const FakeTokenizer tokenizer;
  GrammarCache cache(&tokenizer, tokenizer.vocab_size(), {FakeTokenizer::kEos}, {});
  // Answers are given by the compiling threads: these two keep both of them.
  std::binary_semaphore gate_a(0), gate_b(0);
  std::latch both_held(GrammarCache::kNumThreads);
  for (auto* gate : {&gate_a, &gate_b}) {
    cache.Compile(Regex(gate == &gate_a ? "a" : "b"), GrammarCache::Markers::kHidden,
                  [gate, &both_held](const auto&) {
                    both_held.count_down();
                    gate->acquire();
                  });
  }
  both_held.wait();
  std::atomic<size_t> num_compiled = 0, num_refused = 0;
  const auto count = [&](absl::StatusOr<std::shared_ptr<const Grammar>> grammar) {
    if (grammar.ok()) num_compiled.fetch_add(1);
    if (absl::IsResourceExhausted(grammar.status())) num_refused.fetch_add(1);
  };
  for (size_t i = 0; i < GrammarCache::kMaxCallers + 5; ++i) {
    cache.Compile(Regex("c+"), GrammarCache::Markers::kHidden, count);
  }
  CHECK(num_refused.load() == 5);
  gate_a.release();
  gate_b.release();
  // Refused as long as the others wait.
  while (!cache.CompileNow(Regex("d+"), GrammarCache::Markers::kHidden).ok()) {
    std::this_thread::yield();
  }
  cache.Stop();
  CHECK(num_compiled.load() == GrammarCache::kMaxCallers);
}

TEST_CASE("a marker of calls is text where calls are meant, and there only", "[engine]") {
  const FakeTokenizer tokenizer;
  GrammarCache cache(&tokenizer, tokenizer.vocab_size(), {FakeTokenizer::kEos},
                     {FakeTokenizer::kBos});
  for (const auto markers : {GrammarCache::Markers::kHidden, GrammarCache::Markers::kShown}) {
    const auto grammar = cache.CompileNow(Regex("<bos>x"), markers);
    REQUIRE(grammar.ok());
    auto matcher = *GrammarMatcher::Create(*grammar);
    CHECK(*matcher->Accept(FakeTokenizer::kBos) == (markers == GrammarCache::Markers::kShown));
  }
}

}  // namespace
}  // namespace fastgen
