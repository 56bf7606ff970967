// Arithmetic, comparison and membership, as Python does them on the types that templates have.
//
// Integers are 64-bit; a result beyond that is an error. Strings and lists concatenate and repeat
// within the bounds. A number computed from an untrusted one is untrusted.
// Errors come without a position; the interpreter adds it.
// Thread rule: any thread; the heap is the render's.
// Tested by tests/engine/text/chat_template_golden_test.cc and jinja_sandbox_test.cc.
#pragma once

#include "absl/status/statusor.h"
#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

absl::StatusOr<Value> Calculate(Heap& heap, Operator op, const Value& a, const Value& b);
absl::StatusOr<Value> Negate(const Value& value);
absl::StatusOr<bool> Relate(Heap& heap, Operator op, const Value& a, const Value& b);
absl::StatusOr<bool> Contains(Heap& heap, const Value& container, const Value& item);

}  // namespace fastgen::jinja
