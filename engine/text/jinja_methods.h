// Attributes, items, slices and the methods of strings and dicts.
//
// The text operations that filters and methods share are here too. All keep provenance as
// jinja_text.h describes.
// Errors come without a position; the interpreter adds it.
// Thread rule: any thread; the heap is the render's.
// Tested by tests/engine/text/chat_template_golden_test.cc and jinja_provenance_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

// value.name: methods first, then a dict's key, else undefined. INVALID_ARGUMENT on an undefined
// value.
absl::StatusOr<Value> GetAttribute(Heap& heap, const Value& value, const Text* name);
// value[key]: items first, then attributes, else undefined.
absl::StatusOr<Value> GetItem(Heap& heap, const Value& value, const Value& key);

struct SliceBounds {
  std::optional<int64_t> start;
  std::optional<int64_t> stop;
  std::optional<int64_t> step;
};
absl::StatusOr<Value> GetSlice(Heap& heap, const Value& value, const SliceBounds& bounds);

bool HasMethod(const Value& value, std::string_view name);
absl::StatusOr<Value> CallMethod(Heap& heap, const Value& self, std::string_view name,
                                 const Arguments& arguments);

enum class Side { kLeft, kRight, kBoth };
// Python's strip: of white space, or of the characters in `characters` when not null.
absl::StatusOr<Value> Strip(Heap& heap, const Text& text, const Text* characters, Side side);

// kTitle is Python's str.title(), where any character that is no letter ends a word; kTitleWords is
// the filter, where only white space, hyphens and opening brackets do.
enum class CaseStyle { kUpper, kLower, kTitle, kTitleWords, kCapitalize, kSwap };
absl::StatusOr<Value> ChangeCase(Heap& heap, const Text& text, CaseStyle style);

// Replaces the first `count` occurrences, all when negative.
absl::StatusOr<Value> Replace(Heap& heap, const Text& text, const Text& from, const Text& to,
                              int64_t count);
absl::StatusOr<Value> Join(Heap& heap, const std::vector<Value>& items, const Text& separator);
// `text` count times. RESOURCE_EXHAUSTED when that is too long.
absl::StatusOr<Value> Repeat(Heap& heap, const Text& text, int64_t count);
// Printf-style formatting with %s, %d, %f and the like; %(name)s takes a value of the one dict.
absl::StatusOr<Value> FormatPercent(Heap& heap, const Text& format,
                                    const std::vector<Value>& values);

}  // namespace fastgen::jinja
