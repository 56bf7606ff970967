// JSON from a request to template values, all of it untrusted.
//
// Keys keep their order, a key given twice keeps its first place and last value, integers and
// floats stay distinct, as in Python. An integer beyond 64 bits becomes a float.
// Errors: INVALID_ARGUMENT with the byte where the text stops being JSON; nesting beyond
// kMaxJsonDepth.
// Thread rule: any thread; the heap is the render's.
// Tested by tests/engine/text/jinja_sandbox_test.cc.
#pragma once

#include <cstddef>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

inline constexpr size_t kMaxJsonDepth = 64;

absl::StatusOr<Value> ParseJson(Heap& heap, std::string_view json);

}  // namespace fastgen::jinja
