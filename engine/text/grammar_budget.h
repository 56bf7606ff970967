// GrammarBudget: bounds what work inside the grammar library may take, in time and memory.
//
// The library cannot be interrupted, and the size of a grammar says little about what it costs. But
// what it computes it keeps, so whatever runs long takes memory again and again: ./dev setup
// renames the library's references to operator new and operator delete to the functions of
// grammar_budget.cc, which throw std::bad_alloc on a thread whose budget is spent. The library is
// exception safe there; tests fail every allocation of a compilation, one after another. Time is
// the thread's own, so that what compiles does not depend on who else computes. Frees that happen
// elsewhere (inside libstdc++) are not seen: the count errs upwards. Thread rule: a budget counts
// for the thread that made it, from construction to destruction; they do not nest. Tested by
// tests/engine/text/grammar_test.cc; fuzzed by tests/fuzz/grammar_fuzzer.cc.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace fastgen {

class GrammarBudget {
 public:
  struct Limits {
    std::chrono::milliseconds time = std::chrono::seconds(10);  // of computing
    int64_t memory_bytes = 512 << 20;
    int64_t num_allocations = INT64_MAX;  // for tests
  };

  explicit GrammarBudget(const Limits& limits);
  ~GrammarBudget();
  GrammarBudget(const GrammarBudget&) = delete;
  GrammarBudget& operator=(const GrammarBudget&) = delete;

  // Why an allocation failed.
  enum class Spent { kNothing, kTime, kMemory };
  Spent spent() const { return spent_; }
  int64_t num_bytes() const { return num_bytes_; }
  int64_t num_allocations() const { return num_allocations_; }

  // For the functions that stand for operator new and operator delete. Allow: false where nothing
  // more may be taken.
  bool Allow(size_t bytes);
  void Count(int64_t bytes) { num_bytes_ += bytes; }

 private:
  const Limits limits_;
  const std::chrono::nanoseconds end_;  // on the thread's clock
  int64_t num_bytes_ = 0;
  int64_t num_allocations_ = 0;
  Spent spent_ = Spent::kNothing;
};

}  // namespace fastgen
