#include "engine/text/grammar_budget.h"

#include <malloc.h>
#include <time.h>

#include <new>

#include "base/check.h"

namespace fastgen {
namespace {

thread_local GrammarBudget* current_budget = nullptr;

// Looking at the clock costs some three small allocations.
constexpr int64_t kAllocationsPerLook = 64;

std::chrono::nanoseconds ThreadTime() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

GrammarBudget::GrammarBudget(const Limits& limits)
    : limits_(limits), end_(ThreadTime() + limits.time) {
  CHECK(current_budget == nullptr) << "budgets do not nest";
  current_budget = this;
}

GrammarBudget::~GrammarBudget() { current_budget = nullptr; }

bool GrammarBudget::Allow(size_t bytes) {
  num_bytes_ += static_cast<int64_t>(bytes);
  ++num_allocations_;
  if (num_bytes_ > limits_.memory_bytes || num_allocations_ > limits_.num_allocations) {
    spent_ = Spent::kMemory;
  } else if (num_allocations_ % kAllocationsPerLook == 0 && ThreadTime() > end_) {
    spent_ = Spent::kTime;
  }
  return spent_ == Spent::kNothing;
}

}  // namespace fastgen

// What the grammar library calls for operator new(size_t), operator delete(void*) and
// operator delete(void*, size_t).
extern "C" {
void* fastgen_grammar_new(size_t bytes);
void fastgen_grammar_delete(void* memory) noexcept;
void fastgen_grammar_delete_sized(void* memory, size_t bytes) noexcept;

void* fastgen_grammar_new(size_t bytes) {
  if (fastgen::current_budget == nullptr) return ::operator new(bytes);
  // Before it is taken, as it may be more than there is; then what it really takes.
  if (!fastgen::current_budget->Allow(bytes)) throw std::bad_alloc();
  void* const memory = ::operator new(bytes);
  fastgen::current_budget->Count(static_cast<int64_t>(malloc_usable_size(memory)) -
                                 static_cast<int64_t>(bytes));
  return memory;
}

void fastgen_grammar_delete(void* memory) noexcept {
  if (fastgen::current_budget != nullptr) {
    fastgen::current_budget->Count(-static_cast<int64_t>(malloc_usable_size(memory)));
  }
  ::operator delete(memory);
}

// Not every delete says a size, so none is trusted.
void fastgen_grammar_delete_sized(void* memory, size_t bytes) noexcept {
  fastgen_grammar_delete(memory);
}
}
