// Arguments: what a filter, test, method, function or macro was called with.
//
// Positional arguments come first; a name may stand for a position. Names keep their provenance,
// since `**mapping` can bring them from a request. Thread rule: one render, one thread. Tested by
// tests/engine/text/jinja_sandbox_test.cc.
#pragma once

#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<const Text*, Value>> named;

  // The argument at `index`, or else the one named `name`; null when neither was given.
  const Value* Find(size_t index, std::string_view name) const;
  // INVALID_ARGUMENT when there are more positional arguments than names, or one named otherwise.
  absl::Status Check(std::initializer_list<std::string_view> names) const;

  // The argument as a string, an integer or a truth value. INVALID_ARGUMENT when it is of another
  // type.
  absl::StatusOr<const Text*> FindText(size_t index,
                                       std::string_view name) const;  // null: absent or None
  absl::StatusOr<int64_t> FindInt(size_t index, std::string_view name, int64_t fallback) const;
  bool FindBool(size_t index, std::string_view name, bool fallback) const;
};

}  // namespace fastgen::jinja
