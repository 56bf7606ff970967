// The tests: `value is name(arguments)`.
//
// Errors come without a position; the interpreter adds it.
// Thread rule: any thread; the heap is the render's.
// Tested by tests/engine/text/chat_template_golden_test.cc.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

struct Test {
  using Function = absl::StatusOr<bool> (*)(Heap& heap, const Value& value,
                                            const Arguments& arguments);

  std::string_view name;
  Function run;
  size_t num_arguments = 0;
};

// Null when there is none of that name.
const Test* FindTest(std::string_view name);

// INVALID_ARGUMENT for a wrong number of arguments.
absl::StatusOr<bool> ApplyTest(Heap& heap, const Test& test, const Value& value,
                               const Arguments& arguments);

}  // namespace fastgen::jinja
