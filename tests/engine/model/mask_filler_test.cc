// Masks that are filled beside the executor are those of the tokens that it handed over.
#include "engine/model/mask_filler.h"

#include <atomic>
#include <utility>
// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
#undef CHECK
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

constexpr int64_t kVocab = 70;

// Allows the one token that is the sum of those before it, and fails at token 60.
class SumConstraint final : public TokenConstraint {
 public:
  absl::StatusOr<std::unique_ptr<TokenMatcher>> NewMatcher() const override {
    num_matchers_.fetch_add(1);
    return std::make_unique<Matcher>();
  }
  int num_matchers() const { return num_matchers_.load(); }
  static int num_alive() { return Matcher::num_alive.load(); }

 private:
  class Matcher final : public TokenMatcher {
   public:
    Matcher() { num_alive.fetch_add(1); }
    ~Matcher() override { num_alive.fetch_sub(1); }
    static inline std::atomic<int> num_alive = 0;

    absl::Status Accept(int32_t token) override {
      sum_ += token;
      return token == 60 ? absl::InternalError("sixty") : absl::OkStatus();
    }
    absl::Status FillMask(absl::Span<uint32_t> mask) override {
      for (uint32_t& word : mask) word = 0;
      mask[static_cast<size_t>(sum_ / 32)] = uint32_t{1} << (sum_ % 32);
      return absl::OkStatus();
    }

   private:
    int32_t sum_ = 0;
  };
  mutable std::atomic<int> num_matchers_ = 0;
};

int32_t Only(MaskFiller* filler, int32_t slot) {
  absl::Span<uint32_t> mask;
  if (!filler->Wait(slot, &mask).ok()) return -1;
  int32_t token = -1;
  for (int32_t i = 0; i < static_cast<int32_t>(mask.size()) * 32; ++i) {
    if ((mask[static_cast<size_t>(i / 32)] >> (i % 32) & 1) != 0) token = token == -1 ? i : -2;
  }
  return token;
}

TEST_CASE("each slot follows its own sequence, from its output so far on", "[model]") {
  const auto constraint = std::make_shared<const SumConstraint>();
  MaskFiller filler(4, kVocab);
  const std::vector<int32_t> output = {1, 2, 3};
  filler.Start(0, constraint, output);
  filler.Start(3, constraint, {});
  CHECK(Only(&filler, 3) == 0);
  CHECK(Only(&filler, 0) == 6);
  CHECK(Only(&filler, 0) == 6);
  for (int round = 0; round < 100; ++round) {
    filler.Push(0, round == 0 ? 4 : 0);
    filler.Push(3, round < 50 ? 1 : 0);
    CHECK(Only(&filler, 0) == 10);
    CHECK(Only(&filler, 3) == std::min(round + 1, 50));
  }
  CHECK(constraint->num_matchers() == 2);
}

TEST_CASE("a slot that is taken by another sequence begins anew", "[model]") {
  const auto constraint = std::make_shared<const SumConstraint>();
  MaskFiller filler(1, kVocab);
  for (int round = 0; round < 50; ++round) {
    filler.Start(0, constraint, {});
    if (round % 2 == 0) CHECK(Only(&filler, 0) == 0);
    filler.Start(0, constraint, std::vector<int32_t>{7});
    CHECK(Only(&filler, 0) == 7);
    filler.Push(0, 5);
  }
}

TEST_CASE("an error of a matcher stays until its slot begins anew", "[model]") {
  const auto constraint = std::make_shared<const SumConstraint>();
  MaskFiller filler(1, kVocab);
  filler.Start(0, constraint, std::vector<int32_t>{60});
  absl::Span<uint32_t> mask;
  CHECK(filler.Wait(0, &mask).message() == "sixty");
  filler.Push(0, 1);
  CHECK(filler.Wait(0, &mask).message() == "sixty");
  filler.Start(0, constraint, {});
  CHECK(Only(&filler, 0) == 0);
}

TEST_CASE("what a sequence that has ended left behind is freed when another one begins",
          "[model]") {
  auto ended = std::make_shared<const SumConstraint>();
  const auto running = std::make_shared<const SumConstraint>();
  MaskFiller filler(4, kVocab);
  filler.Start(0, ended, {});
  filler.Start(1, running, {});
  CHECK(Only(&filler, 0) == 0);
  CHECK(Only(&filler, 1) == 0);
  CHECK(SumConstraint::num_alive() == 2);
  ended = nullptr;
  filler.Start(2, running, {});
  CHECK(Only(&filler, 2) == 0);
  // Waits for the worker. A row that was planned ahead for the ended sequence sees an error.
  absl::Span<uint32_t> mask;
  CHECK(absl::IsCancelled(filler.Wait(0, &mask)));
  CHECK(SumConstraint::num_alive() == 2);
  CHECK(Only(&filler, 1) == 0);
  filler.Start(0, running, std::vector<int32_t>{7});
  CHECK(Only(&filler, 0) == 7);
}

TEST_CASE("work that nobody waits for is let go with the filler", "[model]") {
  const auto constraint = std::make_shared<const SumConstraint>();
  for (int round = 0; round < 50; ++round) {
    MaskFiller filler(8, kVocab);
    for (int32_t slot = 0; slot < 8; ++slot) filler.Start(slot, constraint, {});
  }
  CHECK(constraint.use_count() == 1);
}

}  // namespace
}  // namespace fastgen
