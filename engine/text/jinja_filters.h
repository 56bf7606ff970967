// The filters: `value | name(arguments)`.
//
// Each keeps the provenance of its string's bytes; where it cannot map them exactly, the whole
// result is untrusted as soon as any input byte was. A number, bool or length computed from
// untrusted text or numbers is untrusted itself.
// Errors come without a position; the interpreter adds it.
// Thread rule: any thread; the heap is the render's.
// Tested by tests/engine/text/chat_template_golden_test.cc and jinja_provenance_test.cc.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

struct Filter {
  using Function = absl::StatusOr<Value> (*)(Heap& heap, const Value& value,
                                             const Arguments& arguments);

  std::string_view name;
  Function run;
};

// Null when there is none of that name.
const Filter* FindFilter(std::string_view name);

absl::StatusOr<Value> ApplyFilter(Heap& heap, const Filter& filter, const Value& value,
                                  const Arguments& arguments);

// The filters by what they work on; FindFilter looks through all.
const Filter* FindTextFilter(std::string_view name);
const Filter* FindNumberFilter(std::string_view name);
const Filter* FindSequenceFilter(std::string_view name);
const Filter* FindSelectionFilter(std::string_view name);

}  // namespace fastgen::jinja
