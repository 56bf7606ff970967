// The filters on whole lists and dicts.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_ordering.h"
#include "engine/text/jinja_print.h"

namespace fastgen::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Args = const Arguments&;

Result JoinFilter(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"d", "attribute"}));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  const Value* attribute = arguments.Find(1, "attribute");
  if (attribute != nullptr && !attribute->is(Kind::kNone)) {
    for (Value& item : items) {
      ASSIGN_OR_RETURN(item, GetPath(heap, item, *attribute));
    }
  }
  const Value* separator = arguments.Find(0, "d");
  Value text = heap.Constant("");
  if (separator != nullptr) {
    ASSIGN_OR_RETURN(text, ToString(heap, *separator));
  }
  return Join(heap, items, text.text());
}

Result First(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  if (value.is(Kind::kString)) return GetItem(heap, value, Value::Int(0));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  return items.empty() ? Value() : items.front();
}

Result Last(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  if (value.is(Kind::kString)) return GetItem(heap, value, Value::Int(-1));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  return items.empty() ? Value() : items.back();
}

Result ToList(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  return heap.MakeList(std::move(items));
}

Result Items(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  if (value.is(Kind::kUndefined)) return heap.MakeList({});
  if (!value.is(Kind::kDict))
    return absl::InvalidArgumentError("Can only get item pairs from a mapping.");
  return CallMethod(heap, value, "items", {});
}

Result Reverse(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({}));
  if (value.is(Kind::kString)) return GetSlice(heap, value, SliceBounds{{}, {}, -1});
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  std::reverse(items.begin(), items.end());
  return heap.MakeList(std::move(items));
}

Result Sort(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"reverse", "case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  const Value* attribute = arguments.Find(2, "attribute");
  SortOptions options{arguments.FindBool(1, "case_sensitive", false),
                      arguments.FindBool(0, "reverse", false), /*several_attributes=*/true};
  ASSIGN_OR_RETURN(std::vector<Value> keys, SortKeys(heap, items, attribute, options));
  return SortBy(heap, std::move(items), std::move(keys), options);
}

Result DictSort(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"case_sensitive", "by", "reverse"}));
  if (!value.is(Kind::kDict)) return absl::InvalidArgumentError("needs a mapping");
  ASSIGN_OR_RETURN(const Text* by, arguments.FindText(1, "by"));
  std::string_view what = by != nullptr ? by->bytes : "key";
  if (what != "key" && what != "value")
    return absl::InvalidArgumentError("by must be key or value");
  ASSIGN_OR_RETURN(Value pairs, CallMethod(heap, value, "items", {}));
  SortOptions options{arguments.FindBool(0, "case_sensitive", false),
                      arguments.FindBool(2, "reverse", false)};
  Value index = Value::Int(what == "key" ? 0 : 1);
  ASSIGN_OR_RETURN(std::vector<Value> keys, SortKeys(heap, pairs.list().items, &index, options));
  return SortBy(heap, pairs.list().items, std::move(keys), options);
}

Result Unique(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  SortOptions options{arguments.FindBool(0, "case_sensitive", false), false};
  ASSIGN_OR_RETURN(std::vector<Value> keys,
                   SortKeys(heap, items, arguments.Find(1, "attribute"), options));
  std::vector<Value> kept;
  std::vector<Value> seen;
  for (size_t i = 0; i < items.size(); ++i) {
    bool known = false;
    for (size_t j = 0; j < seen.size() && !known; ++j) {
      ASSIGN_OR_RETURN(known, IsEqual(heap, seen[j], keys[i]));
    }
    if (known) continue;
    seen.push_back(keys[i]);
    kept.push_back(items[i]);
  }
  return heap.MakeList(std::move(kept));
}

Result Extreme(Heap& heap, const Value& value, Args arguments, bool largest) {
  RETURN_IF_ERROR(arguments.Check({"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  if (items.empty()) return Value();
  SortOptions options{arguments.FindBool(0, "case_sensitive", false), false};
  ASSIGN_OR_RETURN(std::vector<Value> keys,
                   SortKeys(heap, items, arguments.Find(1, "attribute"), options));
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(int order, Compare(heap, keys[i], keys[best]));
    if (largest ? order > 0 : order < 0) best = i;
  }
  return items[best];
}

Result Sum(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"attribute", "start"}));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  const Value* attribute = arguments.Find(0, "attribute");
  const Value* start = arguments.Find(1, "start");
  Value total = start != nullptr ? *start : Value::Int(0);
  for (Value item : items) {
    if (attribute != nullptr && !attribute->is(Kind::kNone)) {
      ASSIGN_OR_RETURN(item, GetPath(heap, item, *attribute));
    }
    ASSIGN_OR_RETURN(total, Calculate(heap, Operator::kAdd, total, item));
  }
  return total;
}

// Rows of `linecount` items; the last one is filled up when there is something to fill with.
Result Batch(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"linecount", "fill_with"}));
  ASSIGN_OR_RETURN(int64_t row_size, arguments.FindInt(0, "linecount", 0));
  if (row_size < 1 || row_size > kMaxRange)
    return absl::InvalidArgumentError("linecount is out of range");
  const Value* filler = arguments.Find(1, "fill_with");
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  std::vector<Value> rows;
  for (size_t at = 0; at < items.size(); at += row_size) {
    size_t end = std::min(items.size(), at + row_size);
    std::vector<Value> row(items.begin() + at, items.begin() + end);
    if (filler != nullptr && !filler->is(Kind::kNone)) row.resize(row_size, *filler);
    ASSIGN_OR_RETURN(Value made, heap.MakeList(std::move(row)));
    rows.push_back(made);
  }
  return heap.MakeList(std::move(rows));
}

// So many columns of about the same length, the longer ones first; those are filled up when there is
// something to fill with.
Result SliceFilter(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"slices", "fill_with"}));
  ASSIGN_OR_RETURN(int64_t num_slices, arguments.FindInt(0, "slices", 0));
  if (num_slices < 1 || num_slices > kMaxRange)
    return absl::InvalidArgumentError("slices is out of range");
  const Value* filler = arguments.Find(1, "fill_with");
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  const size_t length = items.size() / num_slices;
  const size_t num_longer = items.size() % num_slices;
  std::vector<Value> columns;
  auto next = items.begin();
  for (size_t i = 0; i < static_cast<size_t>(num_slices); ++i) {
    const auto end = next + static_cast<int64_t>(length + (i < num_longer ? 1 : 0));
    std::vector<Value> column(next, end);
    next = end;
    if (filler != nullptr && !filler->is(Kind::kNone) && i >= num_longer) {
      column.push_back(*filler);
    }
    ASSIGN_OR_RETURN(Value made, heap.MakeList(std::move(column)));
    columns.push_back(made);
  }
  return heap.MakeList(std::move(columns));
}

// Pairs of a key and the items that have it, sorted by key.
Result GroupBy(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"attribute", "default", "case_sensitive"}));
  const Value* attribute = arguments.Find(0, "attribute");
  if (attribute == nullptr) return absl::InvalidArgumentError("needs an attribute");
  const Value* fallback = arguments.Find(1, "default");
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(heap, value));
  SortOptions options{arguments.FindBool(2, "case_sensitive", false)};
  ASSIGN_OR_RETURN(std::vector<Value> keys, SortKeys(heap, items, attribute, options, fallback));
  ASSIGN_OR_RETURN(Value sorted, SortBy(heap, std::move(items), std::move(keys), options));
  ASSIGN_OR_RETURN(keys, SortKeys(heap, sorted.list().items, attribute, options, fallback));
  std::vector<Value> groups;
  for (size_t at = 0; at < keys.size();) {
    std::vector<Value> group;
    ASSIGN_OR_RETURN(Value key, GetPath(heap, sorted.list().items[at], *attribute, fallback));
    for (size_t first = at; at < keys.size(); ++at) {
      ASSIGN_OR_RETURN(bool same, IsEqual(heap, keys[first], keys[at]));
      if (!same) break;
      group.push_back(sorted.list().items[at]);
    }
    ASSIGN_OR_RETURN(Value members, heap.MakeList(std::move(group)));
    ASSIGN_OR_RETURN(Value pair, heap.MakeGroup(key, members));
    groups.push_back(pair);
  }
  return heap.MakeList(std::move(groups));
}

Result Attr(Heap& heap, const Value& value, Args arguments) {
  RETURN_IF_ERROR(arguments.Check({"name"}));
  ASSIGN_OR_RETURN(const Text* name, arguments.FindText(0, "name"));
  if (name == nullptr) return absl::InvalidArgumentError("needs a name");
  // Attributes only: a dict's items are no attributes.
  if (value.is(Kind::kDict) && !HasMethod(value, name->bytes)) {
    return Value::Undefined(name, Kind::kDict);
  }
  return GetAttribute(heap, value, name);
}

constexpr Filter kFilters[] = {
    {"join", JoinFilter},
    {"first", First},
    {"last", Last},
    {"list", ToList},
    {"items", Items},
    {"reverse", Reverse},
    {"sort", Sort},
    {"dictsort", DictSort},
    {"unique", Unique},
    {"min", [](Heap& h, const Value& v, Args a) { return Extreme(h, v, a, /*largest=*/false); }},
    {"max", [](Heap& h, const Value& v, Args a) { return Extreme(h, v, a, /*largest=*/true); }},
    {"sum", Sum},
    {"batch", Batch},
    {"slice", SliceFilter},
    {"groupby", GroupBy},
    {"attr", Attr},
};

}  // namespace

const Filter* FindSequenceFilter(std::string_view name) {
  for (const Filter& filter : kFilters) {
    if (filter.name == name) return &filter;
  }
  return nullptr;
}

}  // namespace fastgen::jinja
