// Sorting by keys, and the attribute paths that pick them ("function.name").
// Thread rule: any thread; the heap is the render's.
// Tested by tests/engine/text/chat_template_golden_test.cc.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

struct SortOptions {
  bool case_sensitive = false;
  bool reverse = false;
  bool several_attributes = false;  // "a,b": by a, then by b
};

// The value reached from `value` by an index, a name, or names joined by dots; where a step leads
// nowhere, `fallback` stands in unless it is null.
absl::StatusOr<Value> GetPath(Heap& heap, const Value& value, const Value& path,
                              const Value* fallback = nullptr);

// What each item is compared by: its attribute when one is given (`fallback`, unless null, where it
// has none), strings in lower case unless case counts.
absl::StatusOr<std::vector<Value>> SortKeys(Heap& heap, const std::vector<Value>& items,
                                            const Value* attribute, const SortOptions& options,
                                            const Value* fallback = nullptr);

// The items in the order of their keys; equal ones keep theirs. INVALID_ARGUMENT when keys have no
// order.
absl::StatusOr<Value> SortBy(Heap& heap, std::vector<Value> items, std::vector<Value> keys,
                             const SortOptions& options);

}  // namespace fastgen::jinja
