// A regex to one that matches inside a JSON string only what needs no escape there.
//
// '.', negated classes and \D \S \W lose '"', '\' and the control characters; a pattern that asks
// for one of these by name is refused, and so is what the grammar library does not know or would
// leave out: look-around, back references, word borders, flags, anchors in the middle. The whole
// string is matched: a search for less is a subset of it. Thread rule: pure function, any thread.
// Tested by tests/engine/text/json_schema_test.cc.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fastgen {

// INVALID_ARGUMENT saying what in it is not supported.
absl::StatusOr<std::string> PatternInJsonString(std::string_view pattern);

}  // namespace fastgen
