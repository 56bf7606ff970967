// map, select, reject, selectattr and rejectattr: filters that apply another filter or a test to
// each item.
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_ordering.h"
#include "engine/text/jinja_tests.h"

namespace fastgen::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Args = const Arguments&;

// map(attribute="name", default=...) picks, map("filter", arguments...) applies.
Result Map(Heap& heap, const Value& value, Args arguments) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  if (arguments.positional.empty()) {
    const Value* attribute = arguments.Find(0, "attribute");
    if (attribute == nullptr) return absl::InvalidArgumentError("needs a filter or an attribute");
    const Value* fallback = arguments.Find(1, "default");
    for (Value& item : items) {
      ASSIGN_OR_RETURN(item, GetPath(heap, item, *attribute, fallback));
    }
    return heap.MakeList(std::move(items));
  }
  const Value& name = arguments.positional.front();
  const Filter* filter = name.is(Kind::kString) ? FindFilter(name.bytes()) : nullptr;
  // A filter on lists of lists could nest map in map without bound; templates have no use for it.
  if (filter == nullptr || filter->run == Map) {
    return absl::InvalidArgumentError("the first argument must name a filter other than map");
  }
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (Value& item : items) {
    ASSIGN_OR_RETURN(item, ApplyFilter(heap, *filter, item, rest));
  }
  return heap.MakeList(std::move(items));
}

// Keeps the items for which the test's result is `wanted`. The test is the argument at `at`;
// without it, truth counts.
Result Filtered(Heap& heap, const Value& value, Args arguments, const Value* attribute, size_t at,
                bool wanted) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  const Test* test = nullptr;
  Arguments rest;
  if (arguments.positional.size() > at) {
    const Value& name = arguments.positional[at];
    test = name.is(Kind::kString) ? FindTest(name.bytes()) : nullptr;
    if (test == nullptr) return absl::InvalidArgumentError("there is no test of that name");
    rest.positional.assign(arguments.positional.begin() + at + 1, arguments.positional.end());
  }
  std::vector<Value> kept;
  for (const Value& item : items) {
    RETURN_IF_ERROR(heap.Charge(1));
    Value subject = item;
    if (attribute != nullptr) {
      ASSIGN_OR_RETURN(subject, GetPath(heap, item, *attribute));
    }
    bool holds = IsTrue(subject);
    if (test != nullptr) {
      ASSIGN_OR_RETURN(holds, ApplyTest(heap, *test, subject, rest));
    }
    if (holds == wanted) kept.push_back(item);
  }
  return heap.MakeList(std::move(kept));
}

template <bool wanted>
Result Select(Heap& heap, const Value& value, Args arguments) {
  return Filtered(heap, value, arguments, nullptr, 0, wanted);
}

template <bool wanted>
Result SelectAttr(Heap& heap, const Value& value, Args arguments) {
  if (arguments.positional.empty()) return absl::InvalidArgumentError("needs an attribute");
  return Filtered(heap, value, arguments, &arguments.positional.front(), 1, wanted);
}

constexpr Filter kFilters[] = {
    {"map", Map},
    {"select", Select<true>},
    {"reject", Select<false>},
    {"selectattr", SelectAttr<true>},
    {"rejectattr", SelectAttr<false>},
};

}  // namespace

const Filter* FindSelectionFilter(std::string_view name) {
  for (const Filter& filter : kFilters) {
    if (filter.name == name) return &filter;
  }
  return nullptr;
}

}  // namespace fastgen::jinja
